/**
 * One error class and one table. The table decides the HTTP status, who may retry and how to fix it; the place that
 * throws decides only the code and the facts. `docs/ERRORS.md` lists the same codes; `test/architecture.test.ts`
 * compares the two.
 */

/** A fault in what the user wrote: a value that is collected and shown, never thrown by itself. */
export interface Problem {
  /** Path from the top of the workspace, `/` separated. */
  readonly file: string;
  /** 1-based; 1 when the problem concerns the whole file. */
  readonly line: number;
  /** 1-based, in characters. */
  readonly column: number;
  readonly message: string;
}

interface ErrorDefinition {
  /** HTTP status of the answer. Errors that only the command line meets carry 500. */
  readonly status: number;
  /** Who may try again: the caller as it is, we ourselves after a pause, only a changed tree, or nobody. */
  readonly retry: 'caller' | 'backoff' | 'new-tree' | 'never';
  readonly title: string;
  readonly fix: string;
}

export const errorTable = {
  // The caller's request.
  bad_request: { status: 400, retry: 'never', title: 'The request is malformed', fix: 'Correct the request as the detail says.' },
  invalid_name: {
    status: 400,
    retry: 'never',
    title: 'The function name is not allowed',
    fix: 'Use 1 to 63 of a-z, 0-9 and -, starting with a letter and not ending with -.',
  },
  unauthorized: {
    status: 401,
    retry: 'never',
    title: 'No key, or an unknown key',
    fix: 'Send `Authorization: Bearer <key>`; make a key with `gitfaas keys create NAME`.',
  },
  forbidden: {
    status: 403,
    retry: 'never',
    title: 'The key lacks the scope for this call',
    fix: 'Use a key that has the scope, or add it to the key in `auth.keys`.',
  },
  not_found: {
    status: 404,
    retry: 'never',
    title: 'There is nothing at this address',
    fix: 'See the list of calls in README.md.',
  },
  unknown_function: {
    status: 404,
    retry: 'never',
    title: 'There is no such function',
    fix: 'List the functions with `GET /functions`.',
  },
  unknown_instance: {
    status: 404,
    retry: 'never',
    title: 'There is no such live instance',
    fix: 'List the instances with `GET /instances`.',
  },
  method_not_allowed: {
    status: 405,
    retry: 'never',
    title: 'The call does not know this method',
    fix: 'Use a method from the `Allow` header.',
  },
  request_timeout: {
    status: 408,
    retry: 'caller',
    title: 'The body did not arrive in time',
    fix: 'Send the whole body without long pauses.',
  },
  already_exists: {
    status: 409,
    retry: 'never',
    title: 'A function of this name exists already',
    fix: 'Change it with PUT, or choose another name.',
  },
  concurrent_edit: {
    status: 409,
    retry: 'caller',
    title: 'The function was changed at the same time',
    fix: 'Read the function again and repeat the change.',
  },
  concurrent_push: {
    status: 409,
    retry: 'caller',
    title: 'The branch moved while it was pushed to',
    fix: 'Fetch, rebase or merge, and push again.',
  },
  edit_in_the_way: {
    status: 409,
    retry: 'caller',
    title: 'An uncommitted edit stands in the way',
    fix: 'Commit, stash or move the named file in the workspace.',
  },
  precondition_failed: {
    status: 412,
    retry: 'caller',
    title: 'The function is not at the expected version',
    fix: 'Read the function again and use its current ETag.',
  },
  body_too_large: {
    status: 413,
    retry: 'never',
    title: 'The body is larger than allowed',
    fix: 'Send less, or raise `system.max_body_size`.',
  },
  unsupported_media_type: {
    status: 415,
    retry: 'never',
    title: 'The body is of a type this call does not read',
    fix: 'Send `Content-Type: application/json` without `Content-Encoding`.',
  },
  invalid_revision: {
    status: 422,
    retry: 'new-tree',
    title: 'The revision would not be valid',
    fix: 'Correct every listed problem; nothing was changed.',
  },
  install_failed: {
    status: 422,
    retry: 'new-tree',
    title: 'The dependencies of a function could not be installed',
    fix: 'Correct the named dependency as the last lines of the installer say; nothing was changed.',
  },
  rate_limited: {
    status: 429,
    retry: 'caller',
    title: 'The quota of this key is used up',
    fix: 'Wait for `Retry-After` seconds.',
  },

  // The platform's state.
  queue_full: {
    status: 503,
    retry: 'caller',
    title: 'The queue of this function is full',
    fix: 'Retry after `Retry-After` seconds; raise `max_instances` or `max_queue`.',
  },
  queue_slow: {
    status: 503,
    retry: 'caller',
    title: 'No instance became free in time',
    fix: 'Retry after `Retry-After` seconds; raise `max_instances` or `queue_timeout`.',
  },
  capacity: {
    status: 503,
    retry: 'caller',
    title: 'The node runs as many instances as it may',
    fix: 'Retry after `Retry-After` seconds; raise `system.max_concurrent_functions`.',
  },
  draining: { status: 503, retry: 'caller', title: 'The daemon is shutting down', fix: 'Retry after `Retry-After` seconds.' },
  not_ready: { status: 503, retry: 'caller', title: 'No revision serves yet', fix: 'See the problems in `GET /status`.' },
  held: {
    status: 503,
    retry: 'caller',
    title: 'The workspace is held',
    fix: 'Finish the merge or rebase, or check the served branch out again; remove a stale `index.lock` when no git command runs.',
  },
  dependencies_unavailable: {
    status: 503,
    retry: 'backoff',
    title: 'Dependencies cannot be installed on this host at the moment',
    fix: 'Make the package index reachable from the host, or supply what the detail names; what runs goes on, and it is tried again.',
  },
  storage_failed: {
    status: 503,
    retry: 'backoff',
    title: 'The workspace or its storage cannot be written',
    fix: 'Free disk space, or make the place that the detail names writable for the daemon.',
  },
  git_failed: {
    status: 500,
    retry: 'backoff',
    title: 'Git failed',
    fix: 'See the detail; `git fsck` in the workspace tells whether the repository is sound.',
  },
  internal: {
    status: 500,
    retry: 'never',
    title: 'The daemon made a mistake',
    fix: 'Report it with the call id and the log lines that carry it.',
  },

  // The function.
  handler_error: {
    status: 500,
    retry: 'never',
    title: 'The handler raised an exception',
    fix: 'See the log lines of this call id.',
  },
  crash: { status: 502, retry: 'never', title: 'The instance died during the call', fix: 'See the log lines of this call id.' },
  oom: {
    status: 502,
    retry: 'never',
    title: 'The handler ran out of memory',
    fix: 'Raise `memory` of the function, or use less.',
  },
  bad_response: {
    status: 502,
    retry: 'never',
    title: 'The handler returned something that is no answer',
    fix: 'Return a dict, list, str, bytes, (body, status), (body, status, headers) or a generator.',
  },
  init_failed: {
    status: 502,
    retry: 'backoff',
    title: 'The function could not be started',
    fix: 'See the detail: what failed while the code was loaded.',
  },
  timeout: {
    status: 504,
    retry: 'never',
    title: 'The call took longer than allowed and was killed',
    fix: 'Raise `timeout` of the function, or do less in one call.',
  },
  cancelled: { status: 499, retry: 'never', title: 'The caller went away', fix: 'Nothing to do: the work was stopped.' },

  // The start of the daemon.
  usage: { status: 500, retry: 'never', title: 'The command line is not understood', fix: 'See `gitfaas --help`.' },
  config_invalid: {
    status: 500,
    retry: 'new-tree',
    title: 'The configuration is not valid',
    fix: 'Correct every listed problem.',
  },
  workspace_invalid: {
    status: 500,
    retry: 'never',
    title: 'The workspace cannot be served',
    fix: 'Name the top of a Git work tree with `--workspace`, or make one with `gitfaas init DIR`.',
  },
  workspace_locked: {
    status: 500,
    retry: 'never',
    title: 'Another daemon serves this workspace',
    fix: 'Stop the other daemon, or serve another workspace.',
  },
  port_in_use: {
    status: 500,
    retry: 'never',
    title: 'The port is taken',
    fix: 'Stop what listens there, or choose another with `--port` (0 picks a free one).',
  },
  insecure_listen: {
    status: 500,
    retry: 'never',
    title: 'Demo keys are only for loopback',
    fix: 'Make a key with `gitfaas keys create NAME`, or listen on 127.0.0.1.',
  },
  isolation_unavailable: {
    status: 500,
    retry: 'never',
    title: 'This host cannot give the isolation that is asked for',
    fix: 'See `gitfaas --check-system`; supply what is missing, or ask for a lower `process_isolation_level` or another `network`.',
  },
} as const satisfies Record<string, ErrorDefinition>;

export type ErrorCode = keyof typeof errorTable;

export interface ErrorFacts {
  /** One sentence with the facts of this case; shown to the caller. Never a secret, never a host path a caller may not know. */
  readonly detail?: string;
  readonly cause?: unknown;
  readonly problems?: readonly Problem[];
  /** Whole seconds for `Retry-After`, at least 1. */
  readonly retryAfterSeconds?: number;
  /** Further members of the answer's body, for logs too. JSON values only. */
  readonly context?: Readonly<Record<string, unknown>>;
}

export class FaasError extends Error {
  override readonly name = 'FaasError';
  readonly code: ErrorCode;
  readonly detail: string;
  readonly problems: readonly Problem[];
  readonly retryAfterSeconds: number | undefined;
  readonly context: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, facts: ErrorFacts = {}) {
    const detail = facts.detail ?? errorTable[code].title;
    super(`${code}: ${detail}`, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = code;
    this.detail = detail;
    this.problems = facts.problems ?? [];
    this.retryAfterSeconds = facts.retryAfterSeconds;
    this.context = facts.context ?? {};
  }

  get status(): number {
    return errorTable[this.code].status;
  }

  get fix(): string {
    return errorTable[this.code].fix;
  }
}

/** Anything thrown becomes a FaasError; what was not one is our own mistake (`internal`), its text kept as cause only. */
export function toFaasError(thrown: unknown): FaasError {
  if (thrown instanceof FaasError) return thrown;
  const systemCode = (thrown as NodeJS.ErrnoException | undefined)?.code;
  if (systemCode === 'ENOSPC' || systemCode === 'EROFS' || systemCode === 'EDQUOT') {
    return new FaasError('storage_failed', { detail: `The storage refused a write (${systemCode}).`, cause: thrown });
  }
  return new FaasError('internal', { cause: thrown });
}

/** `file:line:column: message`, control characters made visible. */
export function formatProblem(problem: Problem): string {
  return printable(`${problem.file}:${problem.line}:${problem.column}: ${problem.message}`);
}

/** Text from a repository or a client made safe for a terminal and a log: control, bidi and invalid characters are escaped. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\uFFFD]/gu, (character) =>
    character === '\n' || character === '\t' ? character : `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}
