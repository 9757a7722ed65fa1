import { join } from 'node:path';
import {
  baseEnvironment,
  proxies,
  type InputFile,
  type InstallOrder,
  type InstallPlaces,
  type PythonWish,
} from './install-plan.ts';
import { PUBLIC_INDEX_URL, type PipSettings } from './pip-settings.ts';
import { hasCredentials, secretsIn } from './redaction.ts';

const WHEELS_ONLY = {
  when: /matching distribution|No solution found|no wheel/i,
  text: 'Only wheels are installed: a package that has none for this interpreter would need `allow_build`.',
};
const PROBED_PACKAGES_MAX = 3;
/** pip asks five times more by default, which takes minutes where packets are dropped. */
const DEFAULT_RETRIES = '2';

/** The host's side of an order for Python. */
export interface PythonHost {
  readonly settings: PipSettings;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Path of the interpreter. */
  readonly python: string;
  /** Path as the installer sees it; undefined: pip. */
  readonly uv: string | undefined;
}

/**
 * The order for uv, or for the interpreter's own pip. All settings are written out here and read from nowhere else, so nothing of the
 * repository can add to them. Pure.
 *
 * @param resolvedBefore `name==version` of what an earlier installation of the same wish took
 */
export function orderPython(
  wish: PythonWish,
  resolvedBefore: readonly string[],
  { settings, environment: hostEnvironment, python, uv }: PythonHost,
  places: InstallPlaces,
): InstallOrder {
  const input: Record<string, InputFile> = { 'requirements.txt': { text: requirementsText(wish) } };
  const inside = (name: string): string => join(places.input, name);
  const give = (name: string, file: InputFile): string => {
    input[name] = file;
    return inside(name);
  };
  const certFile = settings.certFile === undefined ? undefined : give('certificates.pem', { copyOf: settings.certFile });
  const clientCertFile =
    settings.clientCertFile === undefined ? undefined : give('client.pem', { copyOf: settings.clientCertFile });
  const constraints = settings.constraintFiles.map((file, index) => give(`constraints-${index}.txt`, { copyOf: file }));
  if (resolvedBefore.length > 0 && !wish.isHashed)
    constraints.push(give('resolved.txt', { text: `${resolvedBefore.join('\n')}\n` }));
  const findLinks = settings.findLinks.map((link, index) =>
    /^[a-z+]+:\/\//i.test(link) ? link : give(`links-${index}`, { copyOf: link.replace(/^file:\/\//, '') }),
  );
  const reading: PipSettings = { ...settings, certFile, clientCertFile, constraintFiles: constraints, findLinks };
  const environment = {
    ...baseEnvironment(places),
    ...proxies(settings.proxy, hostEnvironment),
    ...(certFile === undefined ? {} : { SSL_CERT_FILE: certFile, REQUESTS_CA_BUNDLE: certFile }),
  };
  const indexes = settings.isIndexDisabled ? [] : [settings.indexUrl ?? PUBLIC_INDEX_URL, ...settings.extraIndexUrls];
  const urls = [...indexes, ...settings.findLinks, ...Object.values(environment)];
  const common = {
    input,
    project: [],
    python,
    hint: wish.allowBuild ? undefined : WHEELS_ONLY,
    probes: probesOf(indexes, wish, settings),
    secrets: secretsIn(urls),
    hasCredentials: hasCredentials(urls) || clientCertFile !== undefined,
  };
  if (uv !== undefined) return { ...common, tool: 'uv', ...uvCommand(uv, python, wish, reading, environment, places) };
  input['pip.conf'] = { text: pipConf(reading) };
  return {
    ...common,
    tool: 'pip',
    command: pipArguments(wish, places),
    environment: { ...environment, PIP_CONFIG_FILE: inside('pip.conf') },
  };
}

function requirementsText({ requirements }: PythonWish): string {
  const lines = requirements.map(({ text, hashes }) => [text, ...hashes.map((hash) => `--hash=${hash}`)].join(' '));
  return `${lines.join('\n')}\n`;
}

function pipArguments(wish: PythonWish, { input, install }: InstallPlaces): string[] {
  return [
    ...['install', '--target', join(install, 'target'), '--requirement', join(input, 'requirements.txt')],
    ...['--no-input', '--no-color', '--progress-bar', 'off', '--disable-pip-version-check', '--no-cache-dir'],
    // Compiled afterwards, in the way that a read-only directory needs.
    ...['--no-compile', '--no-warn-script-location'],
    ...(wish.allowBuild ? [] : ['--only-binary', ':all:']),
    ...(wish.isHashed ? ['--require-hashes'] : []),
  ];
}

function pipConf(settings: PipSettings): string {
  const values: [string, readonly (string | undefined)[]][] = [
    ['index-url', [settings.indexUrl]],
    ['extra-index-url', settings.extraIndexUrls],
    ['no-index', [settings.isIndexDisabled ? 'true' : undefined]],
    ['find-links', settings.findLinks],
    ['trusted-host', settings.trustedHosts],
    ['cert', [settings.certFile]],
    ['client-cert', [settings.clientCertFile]],
    ['proxy', [settings.proxy]],
    ['timeout', [settings.timeoutSeconds]],
    ['retries', [settings.retries ?? DEFAULT_RETRIES]],
    ['constraint', settings.constraintFiles],
    ['pre', [settings.allowsPrereleases ? 'true' : undefined]],
  ];
  const lines = values.flatMap(([key, all]) => {
    const given = all.filter((value) => value !== undefined);
    return given.length === 0 ? [] : [`${key} = ${given.join('\n  ')}`];
  });
  return `[global]\n${lines.join('\n')}\n`;
}

function uvCommand(
  uv: string,
  python: string,
  wish: PythonWish,
  settings: PipSettings,
  environment: Readonly<Record<string, string>>,
  { input, install }: InstallPlaces,
): Pick<InstallOrder, 'command' | 'environment'> {
  const { indexUrl, extraIndexUrls, findLinks, trustedHosts, clientCertFile, timeoutSeconds, retries } = settings;
  const command = [
    ...[uv, 'pip', 'install', '--target', join(install, 'target'), '--requirement', join(input, 'requirements.txt')],
    ...['--python', python, '--no-python-downloads', '--no-config', '--no-progress', '--color', 'never', '--link-mode', 'copy'],
    ...(wish.allowBuild ? [] : ['--only-binary', ':all:']),
    ...(wish.isHashed ? ['--require-hashes'] : []),
    ...(settings.isIndexDisabled ? ['--no-index'] : []),
    ...(settings.allowsPrereleases ? ['--prerelease', 'allow'] : []),
    ...settings.constraintFiles.flatMap((file) => ['--constraints', file]),
  ];
  return {
    command,
    environment: {
      ...environment,
      UV_CACHE_DIR: join(install, 'tmp/uv'),
      // The host's certificates, as with pip.
      UV_NATIVE_TLS: 'true',
      UV_HTTP_RETRIES: retries ?? DEFAULT_RETRIES,
      // In the environment and not among the arguments, which everybody on the host can read.
      ...(indexUrl === undefined ? {} : { UV_DEFAULT_INDEX: indexUrl }),
      ...(extraIndexUrls.length === 0 ? {} : { UV_INDEX: extraIndexUrls.join(' ') }),
      ...(findLinks.length === 0 ? {} : { UV_FIND_LINKS: findLinks.join(',') }),
      ...(trustedHosts.length === 0 ? {} : { UV_INSECURE_HOST: trustedHosts.join(' ') }),
      ...(clientCertFile === undefined ? {} : { SSL_CLIENT_CERT: clientCertFile }),
      ...(timeoutSeconds === undefined ? {} : { UV_HTTP_TIMEOUT: String(Math.ceil(Number(timeoutSeconds))) }),
    },
  };
}

function probesOf(indexes: readonly string[], wish: PythonWish, settings: PipSettings): InstallOrder['probes'] {
  const names = wish.requirements.slice(0, PROBED_PACKAGES_MAX).map(({ name }) => name);
  return indexes.flatMap((index) => {
    const host = URL.parse(index)?.host ?? '';
    const isTrusted = settings.trustedHosts.some((trusted) => trusted === host || trusted === host.split(':')[0]);
    return names.map((name) => ({ url: `${index.replace(/\/+$/, '')}/${name}/`, isTrusted }));
  });
}
