import type { IsolationLevel, Network } from '../../../config/spec.ts';
import { FaasError } from '../../../errors.ts';

/** The network of functions that ask for none by name, and why it is that. */
export interface NetworkDefault {
  readonly auto: Extract<Network, 'egress' | 'host'>;
  /** One sentence: for `host`, what `egress` would need. */
  readonly reason: string;
  /** Shortcomings of what is in force. */
  readonly missing: readonly string[];
}

export interface NetworkChoice {
  readonly level: IsolationLevel;
  readonly isRoot: boolean;
  /** Really starts an instance with `egress` and lets it try what must work and what must not; rejects with what failed. */
  readonly probe: () => Promise<{ readonly missing: readonly string[] }>;
}

/** `egress` where it was tried and works, else `host`, which says why. Never rejects: what asks for `egress` by name is refused at its start. */
export async function chooseNetwork({ level, isRoot, probe }: NetworkChoice): Promise<NetworkDefault> {
  const lack = whatForbids(level, isRoot);
  if (lack !== undefined) return { auto: 'host', reason: lack, missing: [] };
  try {
    return { auto: 'egress', reason: 'this host gives it: tried with an instance', ...(await probe()) };
  } catch (error) {
    const detail = error instanceof FaasError ? error.detail : (error as Error).message;
    return { auto: 'host', reason: detail.replace(/\.$/, ''), missing: [] };
  }
}

function whatForbids(level: IsolationLevel, isRoot: boolean): string | undefined {
  if (level === 'none') return "without isolation (level none) there is no network of one's own";
  if (!isRoot) return 'network egress needs a daemon that runs as root: only root can make its namespaces and its packet filter';
  return undefined;
}

/** What a function gets. Throws FaasError `isolation_unavailable` for a network that was asked for by name and cannot be had. */
export function networkInForce(wanted: Network | 'auto', byDefault: NetworkDefault, level: IsolationLevel): Network {
  if (wanted === 'auto') return byDefault.auto;
  if (wanted === 'egress' && byDefault.auto !== 'egress') throw refusal('egress', byDefault.reason);
  if (wanted === 'none' && level === 'none') throw refusal('none', 'the isolation level none makes no network namespace');
  return wanted;
}

function refusal(wanted: Network, reason: string): FaasError {
  return new FaasError('isolation_unavailable', {
    detail: `This host cannot give network ${wanted}: ${reason}.`,
    context: { network: wanted },
  });
}
