import { FaasError } from '../../errors.ts';
import type { Clock } from '../../observability/clock.ts';
import type { Instance, StartRequest } from '../../pool/instance.ts';
import type { InstallKind } from '../protocol.ts';
import { watchDisk, type DiskBound } from './disk-watch.ts';

/** Makes the sandbox: `ProcessRuntime.startInstaller`. */
export type StartInstaller = (request: StartRequest, kind: InstallKind, signal: AbortSignal) => Promise<Instance>;

export interface InstallerBounds {
  readonly memoryBytes: number;
  readonly timeMs: number;
  readonly disk: DiskBound;
}

export interface InstallerRun {
  readonly runtime: string;
  readonly network: StartRequest['network'];
  readonly networkAllow: readonly string[];
  readonly kind: InstallKind;
  /** Absolute, in the store: what the installer reads, and what it fills. */
  readonly inputDirectory: string;
  readonly installDirectory: string;
  /** As `install.py` takes it. */
  readonly order: Readonly<Record<string, unknown>>;
  readonly bounds: InstallerBounds;
  readonly onLine: (line: string) => void;
}

/** How the installer's program ended, as its sandbox tells. */
export interface InstallerEnd {
  readonly code: number;
  readonly hasTool: boolean;
  /** `name==version`. */
  readonly installed: readonly string[];
  readonly probes: readonly Probe[];
}

/** What the index answered: a status of HTTP, or why there was none. */
export interface Probe {
  readonly status?: number;
  readonly error?: string;
}

const PIDS_MAX = 512;
const TMP_BYTES = 64 * 1024 * 1024;
const OUTPUT_MAX_BYTES = 64 * 1024 * 1024;
const NAME_AND_VERSION = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/**
 * Runs one installer in its sandbox to the end of its last process, within its bounds. Rejects with FaasError `install_failed` when it
 * exceeds one, with the signal's reason when that comes first, and with what the runtime says when no sandbox can be made.
 */
export async function runInstaller(
  start: StartInstaller,
  run: InstallerRun,
  clock: Clock,
  signal: AbortSignal,
): Promise<InstallerEnd> {
  const instance = await start(startRequest(run), run.kind, signal);
  let stopped: unknown;
  const stop = (reason: unknown): void => {
    stopped ??= reason;
    void instance.kill();
  };
  const onAbort = (): void => stop(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  const { bounds } = run;
  const cancelTimer = clock.schedule(bounds.timeMs, () => stop(failed(`it took longer than ${bounds.timeMs / 1000} s`)));
  using _watch = watchDisk(run.installDirectory, bounds.disk, clock, () =>
    stop(failed(`it takes more than ${bounds.disk.bytes / 2 ** 20} MiB or ${bounds.disk.files} files`)),
  );
  try {
    return await converse(instance, run, clock);
  } catch (error) {
    if (stopped !== undefined) throw stopped;
    if (error instanceof FaasError && error.code === 'oom')
      throw failed(`it took more than ${bounds.memoryBytes / 2 ** 20} MiB of memory`);
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    cancelTimer();
    await instance.kill();
  }
}

/** One call: the order goes in, lines and the end come out. */
async function converse(instance: Instance, run: InstallerRun, clock: Clock): Promise<InstallerEnd> {
  const answer = await instance.invoke(
    {
      callId: `install-${instance.id}`,
      method: 'POST',
      path: '/',
      query: '',
      headers: ['content-type', 'application/json'],
      body: Buffer.from(JSON.stringify(run.order)),
    },
    clock.nowMs() + run.bounds.timeMs,
  );
  const pieces = answer.body instanceof Uint8Array ? [answer.body] : answer.body;
  let rest = '';
  let heardBytes = 0;
  for await (const piece of pieces as AsyncIterable<Uint8Array>) {
    heardBytes += piece.byteLength;
    if (heardBytes > OUTPUT_MAX_BYTES) throw failed(`it printed more than ${OUTPUT_MAX_BYTES / 2 ** 20} MiB`);
    // ASCII: what JSON escapes. Only the new piece is searched, or a line without an end would be searched again with each.
    const [first = '', ...lines] = Buffer.from(piece).toString('latin1').split('\n');
    lines.unshift(rest + first);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const event = readEvent(line);
      if (typeof event['line'] === 'string') run.onLine(event['line']);
      else if (typeof event['end'] === 'object' && event['end'] !== null) return readEnd(event['end'] as Record<string, unknown>);
    }
  }
  throw failed('its sandbox ended before it was done');
}

function readEvent(text: string): Record<string, unknown> {
  try {
    const event: unknown = JSON.parse(text);
    if (typeof event === 'object' && event !== null) return event as Record<string, unknown>;
  } catch (error) {
    throw failed('its sandbox said something else than agreed', error);
  }
  throw failed('its sandbox said something else than agreed');
}

function readEnd(end: Record<string, unknown>): InstallerEnd {
  const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
  return {
    code: Number(end['code']),
    hasTool: end['has_tool'] === true,
    installed: list(end['installed']).flatMap((pair) => {
      const [name, version] = list(pair).map(String);
      const isSound =
        name !== undefined && version !== undefined && NAME_AND_VERSION.test(name) && /^[A-Za-z0-9.!+_]+$/.test(version);
      return isSound ? [`${name}==${version}`] : [];
    }),
    probes: list(end['probes']).map((probe) => {
      const { status, error } = (probe ?? {}) as Record<string, unknown>;
      return typeof status === 'number' ? { status } : { error: String(error) };
    }),
  };
}

function startRequest(run: InstallerRun): StartRequest {
  return {
    functionName: 'installer',
    version: 'installer',
    runtime: run.runtime,
    codeDirectory: run.inputDirectory,
    handlerModule: 'install',
    handlerCallable: 'handle',
    memoryBytes: run.bounds.memoryBytes,
    cpuMillis: null,
    pids: PIDS_MAX,
    tmpBytes: TMP_BYTES,
    environment: {},
    network: run.network,
    networkAllow: run.networkAllow,
    dependenciesDirectory: run.installDirectory,
    signature: null,
    importTemplate: 'never',
    isConcurrent: false,
    timeoutMs: run.bounds.timeMs,
  };
}

function failed(why: string, cause?: unknown): FaasError {
  return new FaasError('install_failed', { detail: `The installation was given up: ${why}.`, cause });
}
