import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { FaasError, printable, type Problem } from '../../errors.ts';
import { findInterpreter, isNodeRuntime } from './interpreters.ts';
import { findNode } from './node-executables.ts';

const PYTHON_CHECKER = fileURLToPath(new URL('../runners/python/check_source.py', import.meta.url));
/** What gives Node its limits and its user: it cannot bound itself, and may lie where nobody else can enter. */
const NODE_CONFINER = fileURLToPath(new URL('../runners/python/confined_node.py', import.meta.url));
const NODE_CHECKER = fileURLToPath(new URL('../runners/node/check-source.mjs', import.meta.url));
const PYTHON_FLAGS = ['-I', '-S', '-B', '-X', 'utf8', '-c'];
/** `--permission` takes files, processes, threads and addons away: a second fence around a compiler. */
const NODE_FLAGS = [
  '--permission',
  '--max-old-space-size=256',
  '--no-warnings',
  '--experimental-vm-modules',
  '--input-type=module',
  '--eval',
];
/** What root hands foreign sources to: a compiler that could be made to misbehave has no rights worth having. */
const NOBODY = 65_534;
const TIMEOUT_MS = 15_000;
/** A file that crashes or stalls the checker costs a new one; after so many the rest stays unchecked, as a problem. */
const CRASHES_MAX = 5;
const MESSAGE_MAX_CHARACTERS = 500;

/** One handler's file, unread: bytes as they are in the repository. */
export interface HandlerSource {
  /** Path from the top of the workspace, for the problem. */
  readonly file: string;
  readonly code: Uint8Array;
  /** Name that the top level of the file must give; empty while it is not known. */
  readonly callable: string;
  /** Whose grammar counts. */
  readonly runtime: string;
}

interface Verdict {
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/**
 * Problems of handlers, found without running anything of them: each is compiled by its interpreter, in a process of
 * its own with no environment and bounded time and memory, and its top level must name the callable. A file that
 * crashes or stalls the compiler is a problem of that file; the others get their answers. A runtime that this host
 * lacks is a problem, too. Rejects with FaasError `internal` when the checker itself does not work.
 */
export async function checkSources(sources: readonly HandlerSource[]): Promise<readonly Problem[]> {
  const problems: Problem[] = [];
  for (const [runtime, group] of Map.groupBy(sources, (source) => source.runtime)) {
    let checker: Checker;
    try {
      checker = checkerFor(runtime);
    } catch (error) {
      if (!(error instanceof FaasError)) throw error;
      problems.push(...group.map(({ file }) => ({ file, line: 1, column: 1, message: error.detail })));
      continue;
    }
    problems.push(...(await checkWith(checker, group)));
  }
  return problems;
}

async function checkWith(checker: Checker, sources: readonly HandlerSource[]): Promise<Problem[]> {
  const problems: Problem[] = [];
  let crashes = 0;
  for (let next = 0; next < sources.length;) {
    const { verdicts, how } = await runChecker(checker, sources.slice(next));
    for (const verdict of verdicts) {
      if (verdict !== null) problems.push({ file: (sources[next] as HandlerSource).file, ...verdict });
      next++;
    }
    const crashed = sources[next];
    if (crashed === undefined) break;
    problems.push({ file: crashed.file, line: 1, column: 1, message: `the file cannot be compiled: the compiler ${how}` });
    next++;
    crashes++;
    if (crashes < CRASHES_MAX) continue;
    const message = `the file was not checked: ${crashes} others ended the compiler`;
    problems.push(...sources.slice(next).map(({ file }) => ({ file, line: 1, column: 1, message })));
    break;
  }
  return problems;
}

/** What compiles the handlers of one runtime. Its text is an argument: the checkout may lie where nobody else can read. */
interface Checker {
  readonly program: string;
  readonly args: readonly string[];
  /** The user it runs as from the start. */
  readonly identity: { readonly uid: number; readonly gid: number } | undefined;
}

/** Throws FaasError `init_failed` when this host lacks the runtime. */
function checkerFor(runtime: string): Checker {
  const isNobody = canBeNobody();
  const uid = isNobody ? NOBODY : (process.getuid?.() ?? 0);
  if (!isNodeRuntime(runtime)) {
    const args = [...PYTHON_FLAGS, readFileSync(PYTHON_CHECKER, 'utf8')];
    return { program: findInterpreter(runtime, uid), args, identity: isNobody ? { uid: NOBODY, gid: NOBODY } : undefined };
  }
  const node = [findNode(runtime, uid).path, ...NODE_FLAGS, readFileSync(NODE_CHECKER, 'utf8')];
  const args = [...PYTHON_FLAGS, readFileSync(NODE_CONFINER, 'utf8'), isNobody ? String(NOBODY) : '-1', ...node];
  return { program: findInterpreter('python3', uid), args, identity: undefined };
}

/** One checker over the sources, up to its end or the first that it has no answer for. */
async function runChecker(
  { program, args, identity }: Checker,
  sources: readonly HandlerSource[],
): Promise<{ verdicts: (Verdict | null)[]; how: string }> {
  const child = spawn(program, args, {
    env: {},
    cwd: '/',
    ...identity,
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  const output: Buffer[] = [];
  let complaint = '';
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => (complaint = (complaint + chunk.toString('utf8')).slice(-2000)));
  // A checker that dies leaves the rest unread.
  child.stdin.on('error', () => {});
  const ended = new Promise<string>((resolve, reject) => {
    child.once('error', (error) =>
      reject(new FaasError('internal', { detail: 'The check of the sources cannot be started.', cause: error })),
    );
    child.once('close', (code, signal) => {
      if (code === 0 || code === null) resolve(describeEnd(signal));
      // No file makes the checker end like this: it is broken itself.
      else reject(new FaasError('internal', { detail: `The check of the sources failed: ${lastLine(complaint)}.` }));
    });
  });
  for (const { file: name, callable, code } of sources) {
    child.stdin.write(withLength(Buffer.from(JSON.stringify({ file: name, callable }))));
    child.stdin.write(withLength(code));
  }
  child.stdin.end();
  const how = await ended;
  const lines = Buffer.concat(output).toString('utf8').split('\n').slice(0, -1);
  return { verdicts: lines.map((line) => readVerdict(line)), how };
}

/** Root in a container may have no other uid to give. */
function canBeNobody(): boolean {
  if (process.getuid?.() !== 0) return false;
  return ['uid_map', 'gid_map'].every((file) =>
    readFileSync(`/proc/self/${file}`, 'latin1')
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/).map(Number))
      .some(([first = 0, , count = 0]) => first <= NOBODY && NOBODY < first + count),
  );
}

function describeEnd(signal: NodeJS.Signals | null): string {
  if (signal === 'SIGKILL' || signal === 'SIGXCPU') return 'took longer than allowed';
  return signal === null ? 'ended early' : `crashed (${signal})`;
}

function lastLine(complaint: string): string {
  return printable(complaint).trim().split('\n').at(-1) ?? '';
}

function readVerdict(line: string): Verdict | null {
  const value = JSON.parse(line) as Verdict | null;
  if (value === null) return null;
  const message = printable(value.message).slice(0, MESSAGE_MAX_CHARACTERS);
  return { line: value.line, column: value.column, message };
}

function withLength(bytes: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(4 + bytes.byteLength);
  frame.writeUInt32BE(bytes.byteLength, 0);
  frame.set(bytes, 4);
  return frame;
}
