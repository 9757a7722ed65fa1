import { FaasError } from '../../../errors.ts';
import type { Instance } from '../../../pool/instance.ts';
import type { EgressNetworks } from './egress.ts';

const PROBE_DEADLINE_MS = 15_000;

/** Tries to connect to each place of its body, for so many seconds, and says how that ended. */
export const PROBE_CODE = `
import socket
def attempt(address, port, seconds):
    try:
        socket.create_connection((address, port), seconds).close()
        return ""
    except OSError as error:
        return error.strerror or str(error)
def handle(request):
    return [attempt(*place) for place in request.get_json()]
`;

export interface ProbeParts {
  readonly networks: EgressNetworks;
  /** An instance with `egress` that runs the code. */
  readonly start: (code: string, allowed: readonly string[]) => Promise<Instance>;
  readonly nowMs: () => number;
}

/**
 * One instance with a way out must reach an address that is allowed to it, and neither another port of that address nor the host.
 * Rejects with FaasError `isolation_unavailable`.
 */
export async function probeEgress({ networks, start, nowMs }: ProbeParts): Promise<{ readonly missing: readonly string[] }> {
  await using target = await networks.openTarget();
  const [allowedPort, forbiddenPort] = target.ports;
  const instance = await start(PROBE_CODE, [`${target.address}/32:${allowedPort}`]);
  try {
    // All are on this host: what is open answers at once.
    const places = [
      [target.address, allowedPort, 1],
      [target.address, forbiddenPort, 0.2],
      [target.hostAddress, target.hostPort, 0.2],
    ];
    const [allowed, forbidden, host] = await attemptAll(instance, places, nowMs);
    if (forbidden === '' || host === '')
      throw lack(`the packet filter does not hold back what it should (${forbidden === '' ? 'private addresses' : 'the host'})`);
    if (allowed !== '') {
      throw lack(
        `packets of functions are not forwarded: ${allowed}. Another firewall of this host may drop them: allow forwarding from and to the links gf+ and gp+ ` +
          '(with Docker: iptables -I DOCKER-USER -i gf+ -j ACCEPT; iptables -I DOCKER-USER -o gf+ -j ACCEPT, and the same for gp+)',
      );
    }
  } finally {
    await instance.kill();
  }
  if (networks.hasResolvers) return { missing: [] };
  return {
    missing: ["names cannot be resolved with egress: the host's resolvers are on loopback only (set system.network_resolvers)"],
  };
}

async function attemptAll(instance: Instance, places: readonly unknown[], nowMs: () => number): Promise<string[]> {
  const body = Buffer.from(JSON.stringify(places));
  const call = { callId: 'probe', method: 'POST', path: '/', query: '', headers: ['content-type', 'application/json'], body };
  const answer = await instance.invoke(call, nowMs() + PROBE_DEADLINE_MS);
  if (!(answer.body instanceof Uint8Array)) throw lack('the probe gave no answer');
  return JSON.parse(Buffer.from(answer.body).toString('utf8')) as string[];
}

function lack(reason: string): FaasError {
  return new FaasError('isolation_unavailable', { detail: `This host cannot give network egress: ${reason}.` });
}
