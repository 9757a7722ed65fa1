import type { Readable } from 'node:stream';
import type { Network } from '../config/spec.ts';
import { FaasError, type ErrorFacts } from '../errors.ts';

/** The part of an AbortSignal that a call needs. A real one costs more than everything else a warm call does in the pool. */
export interface CallSignal {
  readonly aborted: boolean;
  addEventListener(type: 'abort', listener: () => void, options?: { readonly once?: boolean }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** One call as the pool and the runner see it. */
export interface Invocation {
  readonly callId: string;
  readonly method: string;
  /** What follows the function's name in the URL, still percent-encoded once; `/` when nothing follows. */
  readonly path: string;
  /** Without the leading `?`. */
  readonly query: string;
  /** Flat list name, value, name, value; repeated names survive. Hop-by-hop headers and our key are already gone. */
  readonly headers: readonly string[];
  readonly body: Uint8Array;
  /** Whose key it came with: waiting calls of one function are served in turns of their callers. */
  readonly caller?: string | undefined;
  /**
   * What follows `body`, when that is only the beginning of one too long to wait for. Arrives only while it is read. Fails with
   * `body_too_large`, `request_timeout` or `cancelled`. Whoever runs the call destroys it when the call ended, which drops
   * what still comes. Such a call can be sent once only.
   */
  readonly rest?: Readable | undefined;
  /** Aborted when the caller went away before the answer ended. */
  readonly signal?: CallSignal | undefined;
}

export interface HandlerAnswer {
  readonly status: number;
  /** Flat list name, value, …; already checked: no CR, LF, NUL, no header that only the gateway may set. */
  readonly headers: readonly string[];
  /** A stream occupies its slot until it was read to its end. Destroyed early, what still comes of it is dropped; the guard ends the production. */
  readonly body: Uint8Array | Readable;
  /** Milliseconds in the handler, measured in the runner; for a stream until its first chunk. */
  readonly execMs: number;
}

/** Phases of one cold start in milliseconds, as far as the implementation knows them. */
export interface StartPhases {
  readonly spawnMs: number;
  readonly isolateMs: number;
  readonly importMs: number;
  /** It did not import its modules itself: it was forked from its function's template. */
  readonly isFromTemplate?: boolean;
}

/** How a CPU limit has worked so far: in how many of its periods the instance wanted to run, and had to wait. */
export interface CpuThrottling {
  readonly periods: number;
  readonly throttledPeriods: number;
  readonly throttledMs: number;
}

export interface InstanceUsage {
  readonly memoryBytes: number;
  readonly peakMemoryBytes: number | undefined;
  readonly cpuMs: number | undefined;
  /** Undefined where CPU cannot be limited. */
  readonly throttling: CpuThrottling | undefined;
}

/** A limit that an instance has met, and that may be why it failed. */
export interface LimitHit {
  /** The key of the configuration, or a name of its own where there is none (`open_files`). */
  readonly limit: string;
  /** Its value in base units: bytes, processes, thousandths of a CPU. */
  readonly value: number;
  /** A sentence without capital and stop. */
  readonly detail: string;
}

/** Why an instance ended. `stopped`: we asked for it. */
export interface InstanceExit {
  readonly cause: 'stopped' | 'crash' | 'oom' | 'bad_response';
  /** For people: "killed by signal 9", "exit status 3", "sent a frame of unknown type 77". */
  readonly detail: string;
  /** Facts of this end for the answer's body. */
  readonly context?: Readonly<Record<string, unknown>>;
  /** Limits that it met in its life. */
  readonly limits?: readonly LimitHit[];
  /** What it used in all, as far as that is known. */
  readonly usage?: InstanceUsage | undefined;
}

/**
 * The handler failed and its instance is as good as before: it raised (`handler_error`), or returned a value that is no
 * answer (`bad_response`), which the runner itself noticed; or it raised because the body of its call did not arrive whole,
 * and the error is the body's.
 */
export class HandlerFault extends FaasError {
  constructor(code: 'handler_error' | 'bad_response' | 'body_too_large' | 'request_timeout' | 'cancelled', facts: ErrorFacts) {
    super(code, facts);
  }
}

/**
 * One live runner as a runtime makes it: no lifecycle rules here, the guard (`guarded-instance.ts`) has them once for
 * every implementation. Ready from birth: `Runtime.start` resolves only after the handler is loaded.
 */
export interface Instance {
  /** Unique over the daemon's life; `[a-z0-9-]+`. */
  readonly id: string;
  /** In the host's PID namespace, when there is one. */
  readonly pid: number | undefined;
  readonly mode: 'process' | 'container';
  /** The one in force. */
  readonly network: Network;
  readonly phases: StartPhases;
  /**
   * Sends one invocation and resolves with the answer's head (and body, unless it streams). Rejects with HandlerFault (the
   * instance stays usable), or with FaasError `crash`, `oom`, `bad_response` (it does not). Has no deadline of its own.
   */
  invoke(invocation: Invocation, deadlineMs: number): Promise<HandlerAnswer>;
  /**
   * Tells the runner that the caller of a running call is gone; what still comes of its answer is dropped. Resolves when the
   * runner has ended the call, which may take as long as it likes; not at all when the instance ends first. Never rejects.
   */
  cancel(invocation: Invocation): Promise<void>;
  /** Kills the whole tree. Any number of times, in any state. Resolves once no process of the instance is left. */
  kill(): Promise<void>;
  /** Resolves once, when no process is left, whoever caused it. Never rejects. */
  readonly exited: Promise<InstanceExit>;
  usage(): Promise<InstanceUsage | undefined>;
}

/** What a runtime needs to start an instance: the forcing side of a spec and the materialised code. */
export interface StartRequest {
  readonly functionName: string;
  readonly version: string;
  readonly runtime: string;
  /** Absolute path of the read-only directory that holds the function's files. */
  readonly codeDirectory: string;
  readonly handlerModule: string;
  readonly handlerCallable: string;
  readonly memoryBytes: number;
  readonly cpuMillis: number | null;
  readonly pids: number;
  readonly tmpBytes: number;
  readonly environment: Readonly<Record<string, string>>;
  /** `auto`: what the runtime gives functions that ask for nothing by name. */
  readonly network: Network | 'auto';
  readonly networkAllow: readonly string[];
  /** Absolute path of the read-only directory with what was installed for the function; undefined: nothing was. */
  readonly dependenciesDirectory: string | undefined;
  readonly signature: 'http' | 'cloudevent' | null;
  readonly importTemplate: 'auto' | 'never';
  /** The instance gets a call while others run; else one at a time. */
  readonly isConcurrent: boolean;
  readonly timeoutMs: number;
}

/** What became of the import template of one version (`import_template`). */
export interface ImportTemplateView {
  /** `refused`: there will be none. */
  readonly state: 'none' | 'making' | 'ready' | 'refused';
  /** Why there is none, as far as there is a reason. */
  readonly reason: string | undefined;
  /** Live instances that were forked from it. */
  readonly instances?: number | undefined;
  /** What it uses itself. */
  readonly memoryBytes?: number | undefined;
  /** How long its import took. */
  readonly importMs?: number | undefined;
}

export interface Runtime {
  /**
   * Starts one instance and loads the handler. Rejects with FaasError `init_failed` (exception, file and line in the
   * detail; the process tree is gone), `oom`, `isolation_unavailable`. An aborted signal kills what was begun and
   * rejects with the signal's reason. Never tries again by itself.
   */
  start(request: StartRequest, signal: AbortSignal): Promise<Instance>;
  /** Nothing is started for this request any more; what the runtime keeps for it can go. */
  release?(request: StartRequest): void;
  /** Undefined where there are no import templates. */
  viewImportTemplate?(request: StartRequest): ImportTemplateView | undefined;
}
