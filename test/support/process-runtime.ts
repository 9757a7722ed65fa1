import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger, FunctionLine } from '../../src/observability/logger.ts';
import { systemClock } from '../../src/observability/clock.ts';
import type { HandlerAnswer, Instance, Invocation, StartRequest } from '../../src/pool/instance.ts';
import { startTicksOf } from '../../src/runtimes/process/process-identity.ts';
import {
  createProcessRuntime,
  type ProcessRuntime,
  type ProcessRuntimeOptions,
} from '../../src/runtimes/process/process-runtime.ts';

const SILENT: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  critical: () => {},
  isDebug: false,
  child: () => SILENT,
};

let stateCount = 0;

/** Process mode with a store of its own, and handlers written straight into it. */
export class RuntimeFixture implements AsyncDisposable {
  readonly runtime: ProcessRuntime;
  readonly lines: FunctionLine[];
  readonly stateId: string;
  readonly storeDirectory: string;
  readonly logger: Logger = SILENT;
  #functionCount = 0;

  static async open(options: Partial<ProcessRuntimeOptions> = {}): Promise<RuntimeFixture> {
    const store = mkdtempSync(join(realpathSync(tmpdir()), 'gitfaas-store-'));
    chmodSync(store, 0o755);
    const lines: FunctionLine[] = [];
    stateCount += 1;
    const stateId = `test${process.pid}x${stateCount}`;
    try {
      const runtime = await createProcessRuntime({
        isolation: 'auto',
        isLoopback: true,
        labels: [],
        storeDirectory: store,
        clock: systemClock,
        onLog: (line) => lines.push(line),
        logger: SILENT,
        stateId,
        uidFile: join(store, 'next-uid'),
        preparedAhead: 1,
        ...options,
      });
      return new RuntimeFixture(runtime, lines, store, stateId);
    } catch (error) {
      rmSync(store, { recursive: true, force: true });
      throw error;
    }
  }

  private constructor(runtime: ProcessRuntime, lines: FunctionLine[], store: string, stateId: string) {
    this.runtime = runtime;
    this.lines = lines;
    this.storeDirectory = store;
    this.stateId = stateId;
  }

  /** A start of a function with this handler code. */
  request(code: string, overrides: Partial<StartRequest> = {}): StartRequest {
    this.#functionCount += 1;
    const codeDirectory = join(this.storeDirectory, `f${this.#functionCount}`);
    mkdirSync(codeDirectory, { mode: 0o755 });
    writeFileSync(join(codeDirectory, 'handler.py'), code);
    return {
      functionName: 'under-test',
      version: 'v1',
      runtime: 'python3',
      codeDirectory,
      handlerModule: 'handler',
      handlerCallable: 'handle',
      memoryBytes: 128 * 1024 * 1024,
      cpuMillis: null,
      pids: 32,
      tmpBytes: 16 * 1024 * 1024,
      environment: {},
      network: 'host',
      networkAllow: [],
      dependenciesDirectory: undefined,
      signature: null,
      importTemplate: 'never',
      isConcurrent: false,
      timeoutMs: 30_000,
      ...overrides,
    };
  }

  async start(
    code: string,
    overrides: Partial<StartRequest> = {},
    signal: AbortSignal = AbortSignal.timeout(30_000),
  ): Promise<Instance> {
    return await this.runtime.start(this.request(code, overrides), signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.runtime[Symbol.asyncDispose]();
    rmSync(this.storeDirectory, { recursive: true, force: true });
  }
}

let callCount = 0;

/** One call with a generous deadline. */
export async function call(instance: Instance, invocation: Partial<Invocation> = {}): Promise<HandlerAnswer> {
  callCount += 1;
  return await instance.invoke(
    { callId: `call-${callCount}`, method: 'GET', path: '/', query: '', headers: [], body: Buffer.alloc(0), ...invocation },
    systemClock.nowMs() + 30_000,
  );
}

/** An answer's body as text, streamed or not. */
export async function text(answer: HandlerAnswer): Promise<string> {
  if (answer.body instanceof Uint8Array) return Buffer.from(answer.body).toString('utf8');
  const chunks: Buffer[] = [];
  for await (const chunk of answer.body) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

/** Pids of live processes whose command line holds `mark`. */
export function processesWith(mark: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const commandLine = readFileSync(`/proc/${name}/cmdline`, 'utf8');
        // A test's own script names the mark, too.
        return commandLine.includes(mark) && !commandLine.includes('RuntimeFixture') && startTicksOf(Number(name)) !== undefined;
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** Everything on the host that bears the marks of this process's runtimes: children, groups, sockets, mounts. */
export function leftovers(stateId: string): string[] {
  const mine = `-${process.pid}-`;
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim();
  const launchers =
    children === ''
      ? []
      : children.split(' ').filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('launcher.py'));
  const groups = existsSync('/sys/fs/cgroup')
    ? readdirSync('/sys/fs/cgroup').flatMap((name) => listed(`/sys/fs/cgroup/${name}`).filter((group) => group.includes(stateId)))
    : [];
  const sockets = listed('/run').filter((name) => name.startsWith('gitfaas-') && name.includes(mine));
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes('gitfaas'));
  return [...launchers.map((pid) => `launcher ${pid}`), ...groups, ...sockets, ...mounts];
}

function listed(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
