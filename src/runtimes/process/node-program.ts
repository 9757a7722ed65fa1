import { fileURLToPath } from 'node:url';
import { findNode } from './node-executables.ts';

/** What the launcher starts instead of going on as the Python runner (docs/PROTOCOL.md). */
export interface RunnerProgram {
  /** Absolute paths on the host: the executable, and the directory with the runner's files. */
  readonly executable: string;
  readonly runner: string;
  readonly flags: readonly string[];
  /** Names of files of the runner that are imported before its main one. */
  readonly preload: readonly string[];
}

const RUNNER_DIRECTORY = fileURLToPath(new URL('../runners/node', import.meta.url));
const MEBI = 1024 * 1024;
const SMALLEST_CLASS_MIB = 16;
/** V8's own maximum; a larger one only delays what a collection of the young generation costs. */
const SEMI_SPACE_MAX_MIB = 32;

export interface NodeProgramOptions {
  readonly runtime: string;
  readonly uid: number;
  /** Name of the handler's file. */
  readonly handlerModule: string;
  readonly memoryBytes: number;
  /** Whether something bounds the addresses of the process: then WebAssembly must do without its guard regions. */
  readonly isAddressSpaceBound: boolean;
}

/** How Node is booted for a function with this runtime, memory and handler. Throws FaasError `init_failed` when the host lacks it. */
export function nodeProgram(options: NodeProgramOptions): RunnerProgram {
  return {
    executable: findNode(options.runtime, options.uid).path,
    runner: RUNNER_DIRECTORY,
    flags: nodeFlags(options),
    // Only for those who need it: it takes 18 MiB as well.
    preload: options.handlerModule.endsWith('.ts') ? ['ahead.ts'] : [],
  };
}

/**
 * V8 fixes the size of its heap when it starts, which is before the function is known. So instances are prepared by
 * classes of memory, the powers of two and one and a half of them, and a function gets the largest that is not above its own.
 */
export function memoryClassMib(memoryBytes: number): number {
  const memoryMib = memoryBytes / MEBI;
  let power = SMALLEST_CLASS_MIB;
  while (power * 2 <= memoryMib) power *= 2;
  return power * 1.5 <= memoryMib ? power * 1.5 : power;
}

function nodeFlags({ memoryBytes, isAddressSpaceBound }: NodeProgramOptions): readonly string[] {
  const memoryMib = memoryClassMib(memoryBytes);
  // Three quarters for the heap: without a bound V8 puts off collections until the kernel kills. The rest is for buffers, stacks, code.
  const heapMib = Math.floor(memoryMib * 0.75);
  // The young generation is three semi-spaces.
  const semiSpaceMib = Math.min(SEMI_SPACE_MAX_MIB, Math.max(1, Math.floor(memoryMib / 32)));
  return [
    `--max-old-space-size=${heapMib - 3 * semiSpaceMib}`,
    `--max-semi-space-size=${semiSpaceMib}`,
    // A signal that opens a debugger port is of no use to a function; and one thread less.
    '--disable-sigusr1',
    ...(isAddressSpaceBound ? ['--disable-wasm-trap-handler'] : []),
  ];
}
