import type { DaemonProcess } from '../../../support/daemon-process.ts';
import { descendantsOf, killHard, waitForEnd } from '../../../support/leftovers.ts';
import { both, DIAL, LAB, NetworkLab, PORT, reachedFrom, startLabDaemon } from '../../../support/network-lab.ts';
import { testNeeding } from '../../../support/requirements.ts';
import { waitUntil } from '../../../support/wait-until.ts';

const test = testNeeding('root', 'isolation', 'nftables');

const outside = both(LAB.publicServer, PORT);

/** Everything of the host's network that a daemon may change. */
async function lookAround(lab: NetworkLab): Promise<Record<string, string>> {
  return {
    tables: await lab.host.shell('/usr/sbin/nft list tables'),
    links: await lab.host.shell("ip -o link | awk '{print $2}'"),
    routes: await lab.host.shell('ip route; ip -6 route'),
    sysctls: await lab.host.shell('grep -r . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/ip_forward'),
    rules: await lab.host.shell('ip rule'),
  };
}

const keeperOf = (daemon: DaemonProcess) => descendantsOf(daemon.pid).filter(({ command }) => command.includes('keeper.py'));

test('a daemon that stops leaves the network of the host as it was', async (t) => {
  const lab = await NetworkLab.open(t);
  const before = await lookAround(lab);
  const { daemon, client } = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(client, 'out', outside), outside);
  const during = await lookAround(lab);
  for (const [what, seen] of Object.entries(during)) if (what !== 'rules') t.not(seen, before[what], what);
  t.is(await daemon.stop(), 0);
  t.deepEqual(await lookAround(lab), before);
});

test('of a daemon that was killed nothing is left either, and of one that was killed with all it started the next start removes it', async (t) => {
  const lab = await NetworkLab.open(t);
  const before = await lookAround(lab);
  const first = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(first.client, 'out', outside), outside);
  const started = descendantsOf(first.daemon.pid);
  await first.daemon.kill();
  await waitForEnd(started);
  t.deepEqual(await lookAround(lab), before);

  const second = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(second.client, 'out', outside), outside);
  const all = descendantsOf(second.daemon.pid);
  // The keeper first, or it would still take everything back.
  for (const { pid } of keeperOf(second.daemon)) killHard(pid);
  await second.daemon.kill();
  await waitForEnd(all);
  const left = await lookAround(lab);
  t.regex(left['tables'] ?? '', /gitfaas-/);
  t.regex(left['routes'] ?? '', /unreachable 198\.19\.0\.0\/22/);

  // Another state: not its business, and no hindrance.
  const other = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(other.client, 'out', outside), outside);
  t.is(await other.daemon.stop(), 0);
  t.deepEqual(await lookAround(lab), left);

  const again = await second.restart();
  t.is((await lookAround(lab))['tables']?.trim().split('\n').length, 1);
  t.is(await again.stop(), 0);
  t.deepEqual(await lookAround(lab), before);
});

test('two daemons on one host have addresses, filters and ends of their own', async (t) => {
  const lab = await NetworkLab.open(t);
  const before = await lookAround(lab);
  const daemons = await Promise.all([1, 2].map(async () => await startLabDaemon(t, lab, { out: DIAL })));
  const [first, second] = daemons;
  if (first === undefined || second === undefined) throw new Error('unreachable');
  for (const { client } of daemons) {
    t.like(await client.json('/health'), { network: { default: 'egress' } });
    t.deepEqual(await reachedFrom(client, 'out', outside), outside);
  }
  const { routes = '' } = await lookAround(lab);
  t.is(routes.match(/^unreachable 198\.19\.\d+\.0\/22/gm)?.length, 2);
  t.is(await first.daemon.stop(), 0);
  t.deepEqual(await reachedFrom(second.client, 'out', outside), outside, 'the other still forwards');
  t.is(await second.daemon.stop(), 0);
  t.deepEqual(await lookAround(lab), before);
});

test('the host becomes no router by it: what came in from outside and was not forwarded before is not forwarded now', async (t) => {
  const lab = await NetworkLab.open(t);
  const throughHost = `python3 -c 'import socket; print(socket.create_connection(("${LAB.publicServer}", ${PORT}), 1).recv(99))'`;
  // Both sides would know the way.
  await lab.internet.shell(`ip route add 10.20.0.0/24 via ${LAB.hostPublic}`);
  await t.throwsAsync(lab.lan.shell(throughHost));
  const { daemon, client } = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(client, 'out', outside), outside);
  await t.throwsAsync(lab.lan.shell(throughHost));
  await t.throwsAsync(lab.internet.shell(throughHost.replace(LAB.publicServer, LAB.lanServer)));
  await daemon.stop();

  await lab.host.shell('sysctl -q -w net.ipv4.ip_forward=1');
  const before = await lookAround(lab);
  t.regex(await lab.lan.shell(throughHost), /10\.20\.0\.3/);
  const router = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(router.client, 'out', outside), outside);
  t.regex(await lab.lan.shell(throughHost), /10\.20\.0\.3/, 'a host that forwards goes on with it');
  await router.daemon.stop();
  t.deepEqual(await lookAround(lab), before);
});

test('an uplink that comes later is opened, too', async (t) => {
  const lab = await NetworkLab.open(t);
  await lab.host.shell('ip route del default; ip link set wan down');
  const { client } = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(client, 'out', outside), []);
  await lab.host.shell(`ip link set wan up; ip route add default via ${LAB.gateway}`);
  await waitUntil(async () => (await reachedFrom(client, 'out', outside)).length === outside.length, 30_000);
  t.pass();
});
