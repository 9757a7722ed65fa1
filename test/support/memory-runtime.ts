import { Readable } from 'node:stream';
import { FaasError } from '../../src/errors.ts';
import type { Clock } from '../../src/observability/clock.ts';
import type {
  HandlerAnswer,
  Instance,
  InstanceExit,
  InstanceUsage,
  Invocation,
  Runtime,
  StartRequest,
} from '../../src/pool/instance.ts';

/** What the user's code does; `instance` lets it die in the middle. */
export type MemoryHandler = (invocation: Invocation, instance: MemoryInstance) => HandlerAnswer | Promise<HandlerAnswer>;

export interface MemoryRuntimeOptions {
  readonly clock: Clock;
  readonly handler?: MemoryHandler;
  /** How long a start takes; 5 when not given. */
  readonly startMs?: number;
  /** How long it takes until a killed instance is gone; 1 when not given. */
  readonly killMs?: number;
}

const mebibyte = 1024 * 1024;

export function answerOf(text: string, execMs = 1): HandlerAnswer {
  return { status: 200, headers: [], body: Buffer.from(text), execMs };
}

/** Keeps the whole contract of the instance port without a process: its handlers are functions of this process. */
export class MemoryInstance implements Instance {
  readonly id: string;
  readonly pid: number | undefined = undefined;
  readonly mode = 'process';
  readonly network = 'none';
  readonly phases = { spawnMs: 1, isolateMs: 2, importMs: 2 };
  readonly exited: Promise<InstanceExit>;
  readonly #runtime: MemoryRuntime;
  readonly #exit = Promise.withResolvers<InstanceExit>();
  readonly #failing = new Set<(error: FaasError) => void>();
  /** Of the calls whose handlers run, or whose streams nobody has ended. */
  readonly #ends = new Map<Invocation, PromiseWithResolvers<void>>();
  #isDead = false;
  #isDying = false;

  constructor(runtime: MemoryRuntime, id: string) {
    this.#runtime = runtime;
    this.id = id;
    this.exited = this.#exit.promise;
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  invoke(invocation: Invocation): Promise<HandlerAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#isDead) {
        reject(new FaasError('crash', { detail: 'The channel is closed.' }));
        return;
      }
      this.#failing.add(reject);
      this.#ends.set(invocation, Promise.withResolvers());
      this.#runtime.calls.push({ callId: invocation.callId, instanceId: this.id });
      const handle = async (): Promise<HandlerAnswer> => this.#runtime.handler(invocation, this);
      handle().then(
        (answer) => {
          this.#failing.delete(reject);
          if (answer.body instanceof Readable) this.#watch(invocation, answer.body);
          else this.endCall(invocation);
          resolve(answer);
        },
        (error: unknown) => {
          this.#failing.delete(reject);
          this.endCall(invocation);
          reject(error);
        },
      );
    });
  }

  cancel(invocation: Invocation): Promise<void> {
    this.#runtime.cancels.push(invocation.callId);
    return this.#ends.get(invocation)?.promise ?? Promise.resolve();
  }

  /** The runner says that the call is over. Of itself when its handler ended, or its stream was read to the end. */
  endCall(invocation: Invocation): void {
    this.#ends.get(invocation)?.resolve();
    this.#ends.delete(invocation);
  }

  /** The runner says so of the calls with this id. */
  endCalls(callId: string): void {
    for (const invocation of this.#ends.keys()) if (invocation.callId === callId) this.endCall(invocation);
  }

  async kill(): Promise<void> {
    if (!this.#isDying && !this.#isDead) {
      this.#isDying = true;
      this.#runtime.kills += 1;
      this.#runtime.clock.schedule(this.#runtime.killMs, () => this.die('stopped', 'killed by us'));
    }
    await this.exited;
  }

  /** Ends as if from outside: the calls break off, no process is left. */
  die(cause: InstanceExit['cause'], detail: string): void {
    if (this.#isDead) return;
    this.#isDead = true;
    this.#runtime.gone(this);
    for (const reject of this.#failing) reject(new FaasError(cause === 'stopped' ? 'crash' : cause, { detail }));
    this.#failing.clear();
    this.#exit.resolve({ cause, detail });
  }

  usage(): Promise<InstanceUsage> {
    return Promise.resolve({ memoryBytes: mebibyte, peakMemoryBytes: undefined, cpuMs: undefined, throttling: undefined });
  }

  #watch(invocation: Invocation, body: Readable): void {
    const breakOff = (error: FaasError): void => void body.destroy(error);
    this.#failing.add(breakOff);
    body.once('close', () => {
      this.#failing.delete(breakOff);
      if (body.readableEnded) this.endCall(invocation);
    });
  }
}

export class MemoryRuntime implements Runtime {
  readonly clock: Clock;
  handler: MemoryHandler;
  startMs: number;
  killMs: number;
  kills = 0;
  /** Ids of calls whose runners were told that the caller is gone. */
  readonly cancels: string[] = [];
  /** Each start takes the first of these, if there is one, and fails with it. */
  readonly startErrors: FaasError[] = [];
  /** Every call that reached a handler. */
  readonly calls: { callId: string; instanceId: string }[] = [];
  /** Ready and not dead. */
  readonly live = new Set<MemoryInstance>();
  /** Called as a start begins, before it is counted. */
  onBegin: (request: StartRequest) => void = () => undefined;
  starts = 0;
  #processes = 0;

  constructor(options: MemoryRuntimeOptions) {
    this.clock = options.clock;
    this.handler = options.handler ?? ((invocation) => answerOf(invocation.callId));
    this.startMs = options.startMs ?? 5;
    this.killMs = options.killMs ?? 1;
  }

  /** Starts under way and live instances. */
  get processes(): number {
    return this.#processes;
  }

  start(request: StartRequest, signal: AbortSignal): Promise<Instance> {
    this.onBegin(request);
    this.starts += 1;
    this.#processes += 1;
    const id = `memory-${this.starts}`;
    const error = this.startErrors.shift();
    return new Promise((resolve, reject) => {
      const fail = (thrown: Error): void => {
        this.#processes -= 1;
        reject(thrown);
      };
      const abort = (): void => {
        cancel();
        this.clock.schedule(this.killMs, () => fail(signal.reason));
      };
      const cancel = this.clock.schedule(this.startMs, () => {
        signal.removeEventListener('abort', abort);
        if (error !== undefined) {
          fail(error);
          return;
        }
        const instance = new MemoryInstance(this, id);
        this.live.add(instance);
        resolve(instance);
      });
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort, { once: true });
    });
  }

  gone(instance: MemoryInstance): void {
    this.live.delete(instance);
    this.#processes -= 1;
  }
}
