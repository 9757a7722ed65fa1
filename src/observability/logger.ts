import { pino } from 'pino';
import type { LoggingLevel } from '../config/spec.ts';

type Fields = Readonly<Record<string, unknown>>;

/**
 * Where a part says what happened: a fixed message plus fields. error: someone must look; warn: degraded; info: state
 * changed; debug: the rest. Never throws, never waits for the sink.
 */
export interface Logger {
  debug(fields: Fields, message: string): void;
  info(fields: Fields, message: string): void;
  warn(fields: Fields, message: string): void;
  error(fields: Fields, message: string): void;
  critical(fields: Fields, message: string): void;
  /** True while debug lines are written: for callers that would gather their fields for nothing. */
  readonly isDebug: boolean;
  /** The same log with `fields` on every line; follows later changes of the level. */
  child(fields: Fields): Logger;
}

/** One line that a handler printed, joined to its call as far as it is known. */
export interface FunctionLine {
  readonly functionName: string;
  readonly version: string;
  readonly instanceId: string;
  /** Undefined: printed outside any call. */
  readonly callId: string | undefined;
  readonly stream: 'stdout' | 'stderr';
  /** Without its line end. */
  readonly text: string;
}

/** The daemon's own log: what `createLogger` gives to the composition root, children go to the parts. */
export interface RootLogger extends Logger {
  setLevel(level: LoggingLevel): void;
  /** Writes a function's line at INFO, cut at `FUNCTION_LINE_MAX_CHARACTERS`. */
  logFunctionLine(line: FunctionLine): void;
  /** Writes out what is buffered, synchronously; for the last moment before the exit. */
  flush(): void;
}

/** Something that takes whole lines of JSON; a test passes a collector. */
export interface LogDestination {
  write(line: string): void;
}

export const FUNCTION_LINE_MAX_CHARACTERS = 16_384;

/** A reader of our output that stalls costs at most this much memory; later lines are dropped. */
const BUFFER_MAX_BYTES = 16 * 1024 * 1024;

const PINO_LEVELS = {
  DEBUG: 'debug',
  INFO: 'info',
  WARNING: 'warn',
  ERROR: 'error',
  CRITICAL: 'fatal',
} as const satisfies Record<LoggingLevel, pino.Level>;

const SEED_LABELS: Readonly<Record<string, LoggingLevel>> = {
  trace: 'DEBUG',
  debug: 'DEBUG',
  info: 'INFO',
  warn: 'WARNING',
  error: 'ERROR',
  fatal: 'CRITICAL',
};

const REDACTED_PATHS = [
  'authorization',
  'headers.authorization',
  'headers["proxy-authorization"]',
  'headers.cookie',
  'key',
  'apiKey',
];

/** Makes the daemon's log: JSON lines on standard output, or into `destination`. Levels carry the configuration's names. */
export function createLogger(options: { level: LoggingLevel; destination?: LogDestination | undefined }): RootLogger {
  const ownSink =
    options.destination === undefined ? pino.destination({ dest: 1, sync: false, maxLength: BUFFER_MAX_BYTES }) : undefined;
  const root = pino(
    {
      level: PINO_LEVELS[options.level],
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      messageKey: 'message',
      errorKey: 'error',
      formatters: { level: (label) => ({ level: SEED_LABELS[label] ?? label }) },
      serializers: { error: pino.stdSerializers.errWithCause, cause: pino.stdSerializers.errWithCause },
      redact: { paths: REDACTED_PATHS, censor: '[redacted]' },
    },
    ownSink ?? (options.destination as pino.DestinationStream),
  );
  return new PinoLogger(root, {}, () => ownSink?.flushSync());
}

/** Children are our own: pino's keep the level they were born with, and `logging_level` may change at any time. */
class PinoLogger implements RootLogger {
  readonly #root: pino.Logger;
  readonly #fields: Fields;
  readonly #flush: () => void;

  constructor(root: pino.Logger, fields: Fields, flush: () => void) {
    this.#root = root;
    this.#fields = fields;
    this.#flush = flush;
  }

  get isDebug(): boolean {
    return this.#root.isLevelEnabled('debug');
  }

  debug(fields: Fields, message: string): void {
    if (this.isDebug) this.#root.debug({ ...this.#fields, ...fields }, message);
  }

  info(fields: Fields, message: string): void {
    this.#root.info({ ...this.#fields, ...fields }, message);
  }

  warn(fields: Fields, message: string): void {
    this.#root.warn({ ...this.#fields, ...fields }, message);
  }

  error(fields: Fields, message: string): void {
    this.#root.error({ ...this.#fields, ...fields }, message);
  }

  critical(fields: Fields, message: string): void {
    this.#root.fatal({ ...this.#fields, ...fields }, message);
  }

  child(fields: Fields): Logger {
    return new PinoLogger(this.#root, { ...this.#fields, ...fields }, this.#flush);
  }

  setLevel(level: LoggingLevel): void {
    this.#root.level = PINO_LEVELS[level];
  }

  logFunctionLine(line: FunctionLine): void {
    const isCut = line.text.length > FUNCTION_LINE_MAX_CHARACTERS;
    this.#root.info(
      {
        function: line.functionName,
        version: line.version,
        instance: line.instanceId,
        call_id: line.callId,
        stream: line.stream,
        ...(isCut ? { cut_characters: line.text.length - FUNCTION_LINE_MAX_CHARACTERS } : {}),
      },
      isCut ? line.text.slice(0, FUNCTION_LINE_MAX_CHARACTERS) : line.text,
    );
  }

  flush(): void {
    this.#flush();
  }
}
