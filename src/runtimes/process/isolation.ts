import type { IsolationLevel } from '../../config/spec.ts';
import { FaasError } from '../../errors.ts';
import type { CgroupDriver, CgroupVersion } from './cgroups/cgroup.ts';

/** What holds on this host, for `/health` and the banner of the start. */
export interface Isolation {
  readonly level: IsolationLevel;
  /** One sentence: why this level. */
  readonly reason: string;
  /** What a stronger level would need, or what this one does without; empty for `strict`. */
  readonly missing: readonly string[];
  readonly cgroups: CgroupVersion;
  readonly details: readonly string[];
}

export interface IsolationChoice {
  readonly wanted: IsolationLevel | 'auto';
  /** Whether only this host can reach the daemon: below `standard`, `auto` goes no further otherwise. */
  readonly isLoopback: boolean;
  readonly cgroups: CgroupDriver;
  /** Really starts and ends one instance at a level; rejects with what failed. */
  readonly probe: (level: IsolationLevel) => Promise<void>;
}

const BY_STRENGTH = ['strict', 'standard', 'none'] as const;

const FIXES: Readonly<Record<string, string>> = {
  cgroups: 'run the daemon as root, or give its systemd unit `Delegate=cpu memory pids`',
  namespaces:
    'allow user namespaces (sysctl user.max_user_namespaces > 0, kernel.apparmor_restrict_unprivileged_userns=0), or run the daemon as root',
  seccomp: 'install libseccomp2',
};

/**
 * The isolation that is in force from now on, decided by trying. A level that was asked for is given whole or refused:
 * rejects with FaasError `isolation_unavailable` that says what is missing and how to supply it.
 */
export async function chooseIsolation(choice: IsolationChoice): Promise<Isolation> {
  const { wanted, isLoopback, cgroups } = choice;
  const levels = wanted === 'auto' ? BY_STRENGTH.filter((level) => level !== 'none' || isLoopback) : [wanted];
  const missing: string[] = [];
  for (const level of levels) {
    const lack = await whatIsMissing(choice, level);
    if (lack === undefined) {
      const isUnlimited = level !== 'strict' && cgroups.version === 'none';
      return {
        level,
        reason: explain(wanted, level),
        missing:
          isUnlimited && !missing.some((text) => text.endsWith(noLimits(cgroups))) ? [...missing, noLimits(cgroups)] : missing,
        cgroups: cgroups.version,
        details: cgroups.details,
      };
    }
    missing.push(`${level}: ${lack}`);
  }
  const hint = wanted === 'auto' && !isLoopback ? ' Without isolation the daemon only serves loopback addresses.' : '';
  throw new FaasError('isolation_unavailable', {
    detail: `This host cannot give ${wanted === 'auto' ? 'any isolation' : `the isolation level ${wanted}`}: ${missing.join('; ')}.${hint}`,
    context: { wanted, missing },
  });
}

async function whatIsMissing(choice: IsolationChoice, level: IsolationLevel): Promise<string | undefined> {
  if (level === 'strict' && choice.cgroups.version === 'none') return noLimits(choice.cgroups);
  try {
    await choice.probe(level);
    return undefined;
  } catch (error) {
    const detail = (error instanceof FaasError ? error.detail : (error as Error).message).replace(/\.$/, '');
    const fix = fixFor(error);
    return fix === undefined ? detail : `${detail} (${fix})`;
  }
}

function noLimits(cgroups: CgroupDriver): string {
  return `no control groups for memory, cpu and pids: ${cgroups.details.join('; ')} (${FIXES['cgroups']})`;
}

function fixFor(error: unknown): string | undefined {
  if (!(error instanceof FaasError)) return undefined;
  const step = error.context['step'];
  if (step === 'system_calls') return FIXES['seccomp'];
  if (step === 'cgroups') return FIXES['cgroups'];
  return step === undefined ? undefined : FIXES['namespaces'];
}

function explain(wanted: IsolationLevel | 'auto', level: IsolationLevel): string {
  if (wanted !== 'auto') return `process_isolation_level is ${level}`;
  if (level === 'strict') return 'the strongest level; this host gives all of it';
  return `the strongest level this host gives${level === 'none' ? '; allowed only while listening on loopback' : ''}`;
}

/*
 * Does not block (docs/SECURITY.md has the same list, held by a test):
 *
 * strict:
 * - bugs of the kernel behind the system calls that are allowed: all functions and the host share one kernel
 * - side channels: time, caches, speculation as far as the host itself does not mitigate it
 * - reading what every user of the host may read below /usr, the host's certificates, its resolver and its time zone
 * - network `host`: all that listens on loopback, on private networks and at metadata addresses, the daemon included
 * - network `egress`: everything at public addresses, at any port: other machines of yours that have such, and all the bandwidth
 * - network `egress`: asking the host's resolvers for any name, private ones included, and telling something to the outside by the names asked for
 * - network `host`: abstract Unix sockets of the host, its list of sockets and addresses, and taking free ports
 * - learning the kernel's version, the interpreter's command line and the host path of the function's own code
 * - covert channels between functions: locks (flock) and page cache of the files that they share read-only
 * - guessing the memory layout: instances of one launcher share its addresses, stack canary and hash seed
 * - using all the CPU that is free when there is no `cpu_limit`
 * - processes that go on between two calls, inside the limits of their instance, until it ends
 * - a crash that starts the program in kernel.core_pattern, where the host has one
 * - lying to the function's own callers and in the function's own log
 *
 * standard, besides:
 * - learning the host's name and the path of the own control group
 * - without control groups: CPU, and memory beyond `memory` for each process (files in /tmp and /dev/shm, memfd, pipes)
 * - without root: what the kernel counts for each user (processes, pipes, signals) is shared with the daemon
 * - without root and with network `host`: services on abstract sockets that trust the daemon's user (X11, session bus)
 *
 * none, besides:
 * - anything that the daemon's user may do, root included: files, keys, other processes, the daemon itself
 */
