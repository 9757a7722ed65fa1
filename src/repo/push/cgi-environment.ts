import type { IncomingMessage } from 'node:http';
import type { Git } from '../git.ts';
import { HIDDEN_REFS } from './ref-rules.ts';

/** The three paths of smart HTTP below our route; the dumb protocol's are not among them. */
export const GIT_SERVICES = ['/info/refs', '/git-upload-pack', '/git-receive-pack'] as const;
export type GitService = (typeof GIT_SERVICES)[number];

export interface CgiFacts {
  readonly git: Git;
  /** Absolute path of the workspace. */
  readonly workTree: string;
  readonly maxInputBytes: number;
  /** Given for a push only; without it the backend refuses pushes. */
  readonly hooks: { readonly hooksDirectory: string; readonly environment: Readonly<Record<string, string>> } | undefined;
  readonly keyName: string;
  readonly service: GitService;
  /** Already checked and rebuilt, never the client's text. */
  readonly query: string;
}

/**
 * The environment of one `git http-backend` (git-http-backend(1), RFC 3875 section 4.1). The path comes from our route, not
 * from the URL. All configuration comes along here, so `.git/config` stays the user's.
 */
export function cgiEnvironment(request: IncomingMessage, facts: CgiFacts): Record<string, string> {
  const { headers } = request;
  const contentEncoding = headers['content-encoding'];
  const gitProtocol = headers['git-protocol'];
  const variables: Record<string, string> = {
    GIT_PROJECT_ROOT: facts.workTree,
    GIT_HTTP_EXPORT_ALL: '1',
    PATH_INFO: facts.service,
    REQUEST_METHOD: request.method ?? 'GET',
    QUERY_STRING: facts.query,
    SERVER_PROTOCOL: 'HTTP/1.1',
    // No CONTENT_LENGTH, also when the client sent it: with it git 2.39 turns in a busy loop for ever when the body, or the
    // daemon, ends early. Without it git reads to the end of its input, which we close after exactly the body.
    CONTENT_TYPE: headers['content-type'] ?? '',
    // Without a user the backend refuses pushes; hooks and reflogs see a committer made from both.
    REMOTE_USER: facts.keyName,
    REMOTE_ADDR: request.socket.remoteAddress ?? 'unknown',
    ...facts.hooks?.environment,
  };
  if (contentEncoding !== undefined) variables['HTTP_CONTENT_ENCODING'] = contentEncoding;
  if (gitProtocol === 'version=1' || gitProtocol === 'version=2') variables['GIT_PROTOCOL'] = gitProtocol;
  return facts.git.environment({ environment: variables, configuration: serverConfiguration(facts) });
}

function serverConfiguration(facts: CgiFacts): (readonly [string, string])[] {
  return [
    // receive-pack and upload-pack run inside the Git directory and see it as `.`.
    ['safe.directory', '.'],
    ['core.hooksPath', facts.hooks?.hooksDirectory ?? '/dev/null'],
    ['http.receivepack', facts.hooks === undefined ? 'false' : 'true'],
    ['http.uploadpack', 'true'],
    ['http.getanyfile', 'false'],
    ['receive.advertisePushOptions', 'true'],
    ['receive.autogc', 'false'],
    // The work tree is brought along by us, path by path.
    ['receive.denyCurrentBranch', 'ignore'],
    ['receive.fsckObjects', 'true'],
    ['receive.maxInputSize', String(facts.maxInputBytes)],
    // The last match counts, so these also stand against a `!refs/gitfaas` of the user.
    ['transfer.hideRefs', HIDDEN_REFS],
    ['uploadpack.allowAnySHA1InWant', 'false'],
    ['uploadpack.allowReachableSHA1InWant', 'false'],
    ['uploadpack.allowTipSHA1InWant', 'false'],
    // Values of `.git/config` that name programs, which a push or a fetch would run.
    ['core.alternateRefsCommand', 'true'],
    ['gpg.program', 'false'],
    ['gpg.openpgp.program', 'false'],
    ['gpg.ssh.program', 'false'],
    ['gpg.x509.program', 'false'],
  ];
}
