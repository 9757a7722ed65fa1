import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launchDaemonProcess, type DaemonProcess } from '../test/support/daemon-process.ts';
import { openRepository, type TestRepository } from '../test/support/git-repository.ts';

export interface BenchDaemon extends AsyncDisposable {
  readonly daemon: DaemonProcess;
  readonly port: number;
  readonly repository: TestRepository;
  /** For files of the benchmark; goes with the workspace. */
  readonly scratchDirectory: string;
}

export interface BenchWorkspace {
  /** `handler.py` by the function's name. */
  readonly functions: Readonly<Record<string, string>>;
  /** `handler.mjs` by the function's name; its entry says `runtime: node`. */
  readonly nodeFunctions?: Readonly<Record<string, string>>;
  /** YAML of each function's entry by its name, in flow style; default `{}`. */
  readonly entries?: Readonly<Record<string, string>>;
  /** The daemon sees the settings of the host's installers: `pip.conf` below HOME, proxies, certificates. */
  readonly keepsEnvironment?: boolean;
  /** Options of Node itself, such as `--cpu-prof`. */
  readonly nodeOptions?: string | undefined;
}

/** Returns what it was sent, through Python's JSON: what the peers do as well. */
export const ECHO = 'def handle(request):\n    return request.get_json()\n';

/** The real program on a committed workspace in the temporary directory, as strict as it gets, on a free port. */
export async function startBenchDaemon({
  functions,
  nodeFunctions = {},
  entries = {},
  nodeOptions,
  keepsEnvironment = false,
}: BenchWorkspace): Promise<BenchDaemon> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'gitfaas-bench-')));
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => await rm(directory, { recursive: true, force: true }));
  const workspace = openRepository(join(directory, 'workspace'));
  const system = 'system:\n  process_isolation_level: strict\n  max_concurrent_functions: 5000\n  logging_level: WARNING\n';
  const lines = [
    ...Object.entries(entries).map(([name, entry]) => `  ${name}: ${entry}\n`),
    ...Object.keys(nodeFunctions).map((name) => `  ${name}: {runtime: node}\n`),
  ];
  const files: Record<string, string> = {
    'faas_config.yaml': `${system}functions:${lines.length === 0 ? ' {}' : ''}\n${lines.join('')}`,
  };
  for (const [name, code] of Object.entries(functions)) files[`functions/${name}/handler.py`] = code;
  for (const [name, code] of Object.entries(nodeFunctions)) files[`functions/${name}/handler.mjs`] = code;
  await workspace.write(files);
  await workspace.git(['init', '-q', '-b', 'main']);
  await workspace.git(['add', '.']);
  await workspace.git(['commit', '-q', '-m', 'first']);
  const env = {
    ...(keepsEnvironment && hostEnvironment()),
    ...(nodeOptions !== undefined && { NODE_OPTIONS: nodeOptions }),
  };
  const daemon = await launchDaemonProcess(workspace.directory, { env });
  stack.defer(async () => void (await daemon.stop()));
  const started = stack.move();
  return {
    daemon,
    port: daemon.port,
    repository: workspace,
    scratchDirectory: directory,
    [Symbol.asyncDispose]: async () => await started.disposeAsync(),
  };
}

function hostEnvironment(): Record<string, string> {
  const known = Object.entries(process.env).filter(([name, value]) => value !== undefined && !name.startsWith('FAAS_'));
  return Object.fromEntries(known) as Record<string, string>;
}
