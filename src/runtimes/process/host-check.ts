import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { FaasError } from '../../errors.ts';
import type { Clock } from '../../observability/clock.ts';
import type { Logger } from '../../observability/logger.ts';
import { openCgroups } from './cgroups/open.ts';
import { findInterpreter } from './interpreters.ts';
import { functionUid } from './instance-uids.ts';
import { nodeRuntimes } from './node-executables.ts';
import type { NetworkDefault } from './network/choose-network.ts';
import { createProcessRuntime } from './process-runtime.ts';

/** One thing that this host has or lacks. */
export interface HostCheck {
  readonly name: string;
  readonly ok: boolean;
  /** What was found, in one line. */
  readonly found: string;
  /** What its lack costs; only when it is lacking. */
  readonly costs?: string;
  /** How to supply it; only when it is lacking. */
  readonly fix?: string;
  /** Whether the daemon cannot run without it. */
  readonly required: boolean;
}

const run = promisify(execFile);
const PROBE_TIMEOUT_MS = 10_000;
const STATE_ID = 'check';
const MIN_NODE = [24, 12] as const;
const MIN_GIT = [2, 30] as const;
const MIN_PYTHON = [3, 8] as const;
/** chokidar takes a watch a directory; below this a workspace of a few thousand functions is compared on a timer only. */
const MIN_INOTIFY_WATCHES = 16_384;
const MIN_INOTIFY_INSTANCES = 64;

/** Asks the kernel, not files: a namespace is made, the library is loaded. */
const PROBE = `
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def loads(name):
    try:
        ctypes.CDLL(name)
        return True
    except OSError:
        return False
pid = os.fork()
if pid == 0:
    os._exit(0 if libc.unshare(0x10000000) == 0 else ctypes.get_errno())
print(json.dumps({"version": list(sys.version_info[:3]), "seccomp": loads("libseccomp.so.2"),
    "user_namespace": errno.errorcode.get(os.waitpid(pid, 0)[1] >> 8, "")}))
`;

interface PythonProbe {
  readonly version: readonly number[];
  readonly seccomp: boolean;
  /** Name of the error; empty when a user namespace could be made. */
  readonly user_namespace: string;
}

/**
 * Everything that decides how well functions run on this host, each found out by trying it. Leaves nothing behind.
 * Never rejects because of what the host lacks.
 */
export async function checkHost(clock: Clock): Promise<readonly HostCheck[]> {
  const python = await probePython();
  const checks: HostCheck[] = [checkNode(), checkNodeRuntimes(), await checkGit(), checkPython(python)];
  if (!(python instanceof Error)) checks.push(checkSeccomp(python), checkUserNamespaces(python));
  checks.push(await checkCgroups(), checkRoot(), ...checkInotify(), ...(await checkRuntime(clock)), await checkDocker());
  return checks;
}

function checkNode(): HostCheck {
  const ok = isAtLeast(process.versions.node, MIN_NODE);
  return {
    name: 'Node.js',
    ok,
    found: process.version,
    required: true,
    ...(ok ? {} : { costs: 'the daemon does not run', fix: `install Node.js ${MIN_NODE.join('.')} or later` }),
  };
}

/** What `runtime: node`, `nodeN` may be here. */
function checkNodeRuntimes(): HostCheck {
  const runtimes = nodeRuntimes(functionUid());
  const ok = 'node' in runtimes;
  const found = Object.entries(runtimes).map(([name, version]) => `${name} (${version})`);
  return {
    name: 'Node runtimes',
    ok,
    found: found.join(', ') || 'none that functions can run',
    required: false,
    ...(ok ? {} : { costs: 'no function with `runtime: node` runs', fix: `chmod o+rx ${process.execPath}` }),
  };
}

async function checkGit(): Promise<HostCheck> {
  const lack = { costs: 'there is no workspace without Git', fix: `install git ${MIN_GIT.join('.')} or later` };
  try {
    const { stdout } = await run('git', ['--version'], { timeout: PROBE_TIMEOUT_MS });
    const ok = isAtLeast(/\d+\.\d+/.exec(stdout)?.[0] ?? '0', MIN_GIT);
    return { name: 'Git', ok, found: stdout.trim(), required: true, ...(ok ? {} : lack) };
  } catch {
    return { name: 'Git', ok: false, found: 'none', required: true, ...lack };
  }
}

async function probePython(): Promise<PythonProbe | Error> {
  try {
    const uid = process.getuid?.() === 0 ? 65_534 : (process.getuid?.() ?? 65_534);
    const python = findInterpreter('python3', uid);
    const { stdout } = await run(python, ['-I', '-S', '-c', PROBE], { env: {}, timeout: PROBE_TIMEOUT_MS });
    return JSON.parse(stdout) as PythonProbe;
  } catch (error) {
    return error as Error;
  }
}

function checkPython(probe: PythonProbe | Error): HostCheck {
  const costs = 'no Python function runs';
  if (probe instanceof Error) {
    const found = probe instanceof FaasError ? probe.detail : probe.message;
    return { name: 'Python', ok: false, found, required: true, costs, fix: 'install python3' };
  }
  const version = probe.version.join('.');
  const ok = isAtLeast(version, MIN_PYTHON);
  return {
    name: 'Python',
    ok,
    found: version,
    required: true,
    ...(ok ? {} : { costs, fix: `install Python ${MIN_PYTHON.join('.')} or later` }),
  };
}

function checkSeccomp(probe: PythonProbe): HostCheck {
  return {
    name: 'libseccomp',
    ok: probe.seccomp,
    found: probe.seccomp ? 'libseccomp.so.2' : 'none',
    required: false,
    ...(probe.seccomp
      ? {}
      : { costs: 'neither strict nor standard isolation: no filter of system calls', fix: 'install libseccomp2' }),
  };
}

function checkUserNamespaces(probe: PythonProbe): HostCheck {
  const ok = probe.user_namespace === '';
  const settings = [
    'user/max_user_namespaces',
    'kernel/unprivileged_userns_clone',
    'kernel/apparmor_restrict_unprivileged_userns',
  ]
    .map((name) => [name.replace('/', '.'), readSysctl(name)] as const)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${value}`);
  return {
    name: 'user namespaces',
    ok,
    found: `${ok ? 'can be made' : `refused with ${probe.user_namespace}`} (${settings.join(', ')})`,
    required: false,
    ...(ok
      ? {}
      : {
          costs: 'neither strict nor standard isolation',
          fix: 'sysctl user.max_user_namespaces=65536 kernel.apparmor_restrict_unprivileged_userns=0, or run as root; in a container allow unshare',
        }),
  };
}

async function checkCgroups(): Promise<HostCheck> {
  await using driver = await openCgroups(STATE_ID);
  const ok = driver.version !== 'none';
  return {
    name: 'control groups (memory, cpu, pids)',
    ok,
    found: `${driver.version}: ${driver.details.join('; ')}`,
    required: false,
    ...(ok
      ? {}
      : {
          costs: 'no strict isolation: only rlimits bound memory and processes, nothing bounds cpu',
          fix: 'run as root, or under systemd with `Delegate=cpu memory pids`',
        }),
  };
}

function checkRoot(): HostCheck {
  const ok = process.getuid?.() === 0;
  return {
    name: 'root',
    ok,
    found: `uid ${process.getuid?.()}`,
    required: false,
    ...(ok ? {} : { costs: 'all instances share one uid, apart by namespaces alone', fix: 'run the daemon as root' }),
  };
}

function checkInotify(): HostCheck[] {
  const limits = [
    ['max_user_watches', MIN_INOTIFY_WATCHES],
    ['max_user_instances', MIN_INOTIFY_INSTANCES],
  ] as const;
  return limits.map(([name, wanted]) => {
    const value = Number(readSysctl(`fs/inotify/${name}`) ?? 0);
    const ok = value >= wanted;
    return {
      name: `inotify ${name}`,
      ok,
      found: String(value),
      required: false,
      ...(ok ? {} : { costs: 'edits of large workspaces are seen late', fix: `sysctl fs.inotify.${name}=${wanted * 8}` }),
    };
  });
}

async function checkRuntime(clock: Clock): Promise<HostCheck[]> {
  const storeDirectory = mkdtempSync(join(tmpdir(), 'gitfaas-check-'));
  chmodSync(storeDirectory, 0o755);
  const common = { name: 'isolation by default', required: true } as const;
  try {
    await using runtime = await createProcessRuntime({
      isolation: 'auto',
      isLoopback: true,
      labels: [],
      storeDirectory,
      clock,
      logger: SILENT,
      onLog: () => {},
      stateId: STATE_ID,
      uidFile: join(storeDirectory, 'next-uid'),
      preparedAhead: 0,
    });
    const { level, missing } = runtime.isolation;
    const network = checkNetwork(runtime.network);
    if (level === 'strict') return [{ ...common, ok: true, found: level }, network];
    const lack = { costs: missing.join('; '), fix: 'see the lines above' };
    return [{ ...common, required: false, ok: false, found: level, ...lack }, network];
  } catch (error) {
    const found = error instanceof FaasError ? error.detail : String(error);
    return [{ ...common, ok: false, found, costs: 'no function runs', fix: 'see the lines above' }];
  } finally {
    rmSync(storeDirectory, { recursive: true, force: true });
  }
}

function checkNetwork({ auto, reason, missing }: NetworkDefault): HostCheck {
  const common = { name: 'network by default', required: false, found: auto } as const;
  if (auto === 'egress' && missing.length === 0) return { ...common, ok: true };
  const costs =
    auto === 'egress'
      ? missing.join('; ')
      : "functions that set no `network` are on the host's: they reach loopback and private services";
  return { ...common, ok: false, costs, fix: auto === 'egress' ? 'set system.network_resolvers' : reason };
}

async function checkDocker(): Promise<HostCheck> {
  const socketPath = '/var/run/docker.sock';
  const problem = await new Promise<string | undefined>((resolve) => {
    const ping = request({ socketPath, path: '/_ping', timeout: 3000 }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200 ? undefined : `answers ${answer.statusCode}`);
    });
    ping.on('timeout', () => ping.destroy(new Error('no answer')));
    ping.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    ping.end();
  });
  const ok = problem === undefined;
  return {
    name: 'Docker',
    ok,
    found: ok ? socketPath : `${socketPath}: ${problem}`,
    required: false,
    ...(ok ? {} : { costs: 'no container mode', fix: 'install and start Docker or Podman, if containers are wanted' }),
  };
}

function isAtLeast(version: string, wanted: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > wanted[0] || (major === wanted[0] && minor >= wanted[1]);
}

function readSysctl(name: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${name}`, 'latin1').trim();
  } catch {
    return undefined;
  }
}

const SILENT: Logger = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  critical: () => {},
  isDebug: false,
  child: () => SILENT,
};
