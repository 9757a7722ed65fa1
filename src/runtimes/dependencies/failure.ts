import { FaasError } from '../../errors.ts';
import type { InstallerEnd, Probe } from './installer-run.ts';
import type { InstallOrder } from './install-plan.ts';
import { showable } from './redaction.ts';

const SHOWN_LINES_MAX = 6;
/** Lines of pip and uv about the way to the index. Only asked when the index itself answers: archives often lie on another host. */
const WAY_TO_INDEX =
  /^(?:WARNING: Retrying|WARNING: .*(?:connection|Connection|timed out)|ERROR: .*(?:HTTPSConnectionPool|HTTPConnectionPool|ConnectionError|ReadTimeout|SSLError|ProxyError|5\d\d Server Error)|(?:error|\s*Caused by): .*(?:error sending request|Connection refused|dns error|timed out|tcp connect|certificate))/;

/** Codes of npm for the same. */
const NPM_WAY_TO_INDEX =
  /^npm (?:error|ERR!) code ((?:ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|EPIPE|EPROTO|ERR_SOCKET_TIMEOUT|FETCH_ERROR|ENEEDAUTH|E401|E407|E429|E5\d\d)|\w*(?:CERT|SSL|TLS|ISSUER)\w*)$/;

/** The error for an installer that gave up, with its last lines: the wish is at fault, or the way to the packages is. */
export function describeFailure(end: InstallerEnd, lines: readonly string[], order: InstallOrder): FaasError {
  if (!end.hasTool) {
    return new FaasError('dependencies_unavailable', {
      detail: 'There is neither uv nor a pip for this interpreter on the host: install uv, or the package python3-pip.',
    });
  }
  const isNpm = order.tool === 'npm';
  const trouble =
    end.probes.map(troubleOf).find((found) => found !== undefined) ??
    lines.find((line) => (isNpm ? NPM_WAY_TO_INDEX : WAY_TO_INDEX).test(line));
  const last = lastLines(lines);
  const said =
    last.length === 0 ? `The installer ended with ${end.code} and said nothing.` : `The installer said:\n${last.join('\n')}`;
  if (trouble !== undefined) {
    const why = showable(trouble, order.secrets);
    return new FaasError('dependencies_unavailable', { detail: `The package index cannot be reached (${why}). ${said}` });
  }
  if (end.code < 0) {
    const why = end.code === -9 ? ', most likely because it used more memory than it may' : '';
    return new FaasError('install_failed', { detail: `The installer was killed by signal ${-end.code}${why}. ${said}` });
  }
  const hint = order.hint !== undefined && order.hint.when.test(last.join('\n')) ? `\n${order.hint.text}` : '';
  return new FaasError('install_failed', { detail: `${said}${hint}` });
}

/** 404 is an answer. So is 403: a mirror may forbid single packages. */
function troubleOf({ status, error }: Probe): string | undefined {
  if (status === undefined) return error ?? 'no answer';
  return status >= 500 || [401, 407, 408, 425, 429].includes(status) ? `it answers ${status}` : undefined;
}

/** From the first error on where there is one: what comes before it are the packages that went well. */
function lastLines(lines: readonly string[]): string[] {
  const spoken = lines.filter((line) => !/^\s*$|^WARNING: You are using pip|^\[notice\]/.test(line));
  const error = spoken.findIndex((line) => /^(?:ERROR|error|npm (?:error|ERR!)|\s*×)/.test(line));
  const from = error < 0 ? -SHOWN_LINES_MAX : error;
  return spoken.slice(from).slice(0, SHOWN_LINES_MAX);
}
