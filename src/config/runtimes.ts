/** Which runner a runtime name stands for. */
export type RuntimeKind = 'python' | 'node';

/** Files a handler may be in, in the order in which they are looked for. */
export const HANDLER_EXTENSIONS = {
  python: ['.py'],
  node: ['.mjs', '.js', '.ts'],
} as const satisfies Record<RuntimeKind, readonly string[]>;

const MEBI = 1024 * 1024;

/** Threads of one Node: its own six, four for files, names and hashes once they are used, and pid 1 of its sandbox. */
export const NODE_THREADS = 11;

/** Less than this a runner cannot live with. Node: measured, docs/decisions/007-node-heap-classes.md. */
export const FLOORS = {
  python: { memoryBytes: 0, pids: 0 },
  node: { memoryBytes: 64 * MEBI, pids: 16 },
} as const satisfies Record<RuntimeKind, { readonly memoryBytes: number; readonly pids: number }>;

const FIRST_PYTHON_MINOR = 8;
const FIRST_NODE_MAJOR = 24;

/** The kind of a runtime that `runtimeProblem` accepts; anything else counts as Python, the default. */
export function runtimeKind(runtime: string): RuntimeKind {
  return runtime.startsWith('node') ? 'node' : 'python';
}

/** Why a runtime name is none, or undefined. Whether this host has it is another question (`src/runtimes/process`). */
export function runtimeProblem(runtime: string): string | undefined {
  const shown = JSON.stringify(runtime.slice(0, 60));
  const minor = /^python3\.(\d{1,3})$/.exec(runtime)?.[1];
  const major = /^node(\d{1,3})$/.exec(runtime)?.[1];
  if (runtime === 'python3' || runtime === 'node') return undefined;
  if (minor !== undefined) {
    if (Number(minor) >= FIRST_PYTHON_MINOR) return undefined;
    return `${shown} is too old: python3.${FIRST_PYTHON_MINOR} is the first that is supported`;
  }
  if (major !== undefined) {
    if (Number(major) >= FIRST_NODE_MAJOR) return undefined;
    return `${shown} is too old: node${FIRST_NODE_MAJOR} is the first that is supported`;
  }
  if (/^3(\.\d+)?$/.test(runtime)) return `${shown} is not a runtime; did you mean python${runtime}?`;
  if (/^python/.test(runtime)) return `${shown} is not a runtime; write python3, or python3.N such as python3.11`;
  if (/^node/.test(runtime)) return `${shown} is not a runtime; write node, or nodeN such as node${FIRST_NODE_MAJOR}`;
  return `there is no runtime ${shown}; use python3, python3.N such as python3.11, node, or nodeN such as node${FIRST_NODE_MAJOR}`;
}
