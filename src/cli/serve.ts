import { startDaemon, type Daemon } from '../daemon.ts';
import { formatProblem } from '../errors.ts';
import { locateConfig, type WorkspaceOptions } from './locate-config.ts';
import type { CommandIo } from './options.ts';

export interface ServeOptions extends WorkspaceOptions {
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly debug: boolean;
}

/** The banner does not wait longer for the first pass: a function that hangs at its import must not hide the URL. */
const BANNER_WAIT_MS = 10_000;

/**
 * Serves a workspace until the signal is aborted, then lets running calls finish. The banner goes to standard error, so
 * that standard output holds the log alone. Start errors are thrown.
 */
export async function serve(options: ServeOptions, io: CommandIo, stop: AbortSignal): Promise<number> {
  const { workspaceDirectory, configFile } = locateConfig(options, io);
  await using daemon = await startDaemon({
    workspaceDirectory,
    configFile,
    flags: { host: options.host, port: options.port, ...(options.debug && { loggingLevel: 'DEBUG' }) },
    environment: io.env,
    debug: options.debug,
  });
  const patience = AbortSignal.any([stop, AbortSignal.timeout(BANNER_WAIT_MS)]);
  await Promise.race([daemon.settled, aborted(patience)]);
  if (!stop.aborted) io.stderr(banner(daemon, io.env));
  await aborted(stop);
  io.stderr('gitfaas: stopping; running calls finish first (Ctrl-C again stops at once)\n');
  return 0;
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}

function banner(daemon: Daemon, env: CommandIo['env']): string {
  const status = daemon.status();
  const functions = daemon.functions();
  const shown = functions.slice(0, 12).join(', ') + (functions.length > 12 ? `, … (${functions.length} in all)` : '');
  const key = daemon.demoKeys ? 'demo-key' : '$FAAS_KEY';
  const example = functions.includes('hello-world') ? 'hello-world' : functions[0];
  const lines = [
    '',
    `gitfaas serves ${daemon.workspaceRoot} (${status.servedRef ?? 'no branch'}) at ${daemon.url}`,
    `  isolation   ${daemon.isolation.level}: ${daemon.isolation.reason}`,
    ...daemon.isolation.missing.map((lack) => `  missing     ${lack}`),
    `  network     ${daemon.network.auto}: ${daemon.network.reason}`,
    ...daemon.network.missing.map((lack) => `  missing     ${lack}`),
    `  functions   ${functions.length === 0 ? 'none yet' : shown}`,
    `  sync        ${status.state}: ${status.message}`,
    ...status.problems.slice(0, 20).map((problem) => `              ${formatProblem(problem)}`),
    daemon.demoKeys
      ? '  keys        demo-key (invoke, manage) and admin-key (all), on loopback only and until `gitfaas keys create NAME`'
      : '  keys        as in `auth.keys`',
    '',
  ];
  if (example !== undefined) {
    lines.push(
      '  call one    ' +
        `curl -X POST ${daemon.url}/invoke/${example} -H "Authorization: Bearer ${key}" -H 'Content-Type: application/json' -d '{"name":"you"}'`,
    );
  }
  lines.push(`  deploy      git clone ${daemon.url.replace('://', `://git:${key}@`)}/git  …edit functions/, commit, git push`);
  lines.push(`  stop        Ctrl-C${env['CI'] === undefined ? '' : ' or SIGTERM'}`, '');
  return `${lines.join('\n')}\n`;
}
