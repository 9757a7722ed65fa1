import { makeWorkspace, startDaemonProcess } from '../../../support/daemon-process.ts';
import { asOrdinaryUser, giveAway } from '../../../support/foreign-hosts.ts';
import { both, DIAL, LAB, NetworkLab, PORT, reachedFrom, startLabDaemon } from '../../../support/network-lab.ts';
import { testNeeding } from '../../../support/requirements.ts';

const test = testNeeding('root', 'isolation', 'nftables');

const outside = both(LAB.publicServer, PORT);
const onHost = both(LAB.hostPrivate, PORT);

interface Health {
  readonly network: { readonly default: string; readonly reason: string; readonly missing: readonly string[] };
}

/** A firewall like Docker's, with an opening for those in the set. */
const DROPPING = `/usr/sbin/nft -f - <<'end'
table ip filter {
  set open { type ifname; }
  chain forward { type filter hook forward priority 0; policy drop; iifname "gX*" accept; oifname "gX*" accept; }
}
end`;

test('without nft, functions that ask for nothing get the host, which is said, and egress by name is refused with the fix', async (t) => {
  const lab = await NetworkLab.open(t);
  const options = lab.daemonOptions('mount --bind /dev/null /usr/sbin/nft');
  const { client, daemon } = await startLabDaemon(t, lab, { out: DIAL }, 'functions: {}\n', options);
  const { network } = await client.json<Health>('/health');
  t.is(network.default, 'host');
  t.regex(network.reason, /nft is not installed \(install nftables\)/);
  t.regex(daemon.output(), /network {5}host: .*install nftables/);
  t.regex(daemon.output(), /"level":"WARNING".*"network":"host"/);
  t.deepEqual(await reachedFrom(client, 'out', [...outside, ...onHost]), [...outside, ...onHost]);
  t.like(await client.json('/functions/out'), { network: 'host' });
  const refused = await client.call('/functions/out', { config: { network: 'egress' } }, 'PUT');
  t.true(refused.status >= 400);
  t.regex(JSON.stringify(refused.json), /cannot give network egress: .*install nftables/);
  t.like(await client.json('/functions/out'), { network: 'host' }, 'the last good revision serves');
  t.is(await lab.host.shell('ip -o link | grep -c ": g[fp]" || true'), '0\n');
});

test('behind a firewall that drops forwarding the start says so, and with the opening that it names egress works', async (t) => {
  const lab = await NetworkLab.open(t);
  await lab.host.shell(DROPPING);
  const { client, daemon } = await startLabDaemon(t, lab, { out: DIAL });
  const { network } = await client.json<Health>('/health');
  t.is(network.default, 'host');
  t.regex(network.reason, /not forwarded.*Another firewall.*gf\+ and gp\+/);
  t.is(await lab.host.shell('/usr/sbin/nft list tables'), 'table ip filter\n');
  await daemon.stop();

  await lab.host.shell('/usr/sbin/nft flush ruleset');
  await lab.host.shell(DROPPING.replaceAll('"gX*" accept', '{ "gf*", "gp*" } accept'));
  const opened = await startLabDaemon(t, lab, { out: DIAL });
  t.like(await opened.client.json('/health'), { network: { default: 'egress' } });
  t.deepEqual(await reachedFrom(opened.client, 'out', [...outside, ...onHost]), outside);
});

test('a range that the host uses itself is not taken, and a configured one is', async (t) => {
  const lab = await NetworkLab.open(t);
  await lab.host.shell('ip route add 198.18.0.0/15 dev lan; ip route add 10.77.0.0/23 dev lan');
  const first = await startLabDaemon(t, lab, { out: DIAL });
  t.regex((await first.client.json<Health>('/health')).network.reason, /198\.18\.0\.0\/15 is free.*network_range/);
  await first.daemon.stop();
  const second = await startLabDaemon(t, lab, { out: DIAL, wide: DIAL }, 'system: {network_range: 10.77.0.0/21}\n');
  t.deepEqual(await reachedFrom(second.client, 'out', [...outside, ...onHost]), outside);
  t.regex(await lab.host.shell('ip route'), /unreachable 10\.77\.4\.0\/22/);
});

test('resolvers on loopback alone are told as missing, and those of the configuration are asked instead', async (t) => {
  const lab = await NetworkLab.open(t);
  const look = 'import socket\ndef handle(request):\n    return [socket.gethostbyname("any.example")]\n';
  const options = lab.daemonOptions(
    "umount /etc/resolv.conf; printf 'nameserver 127.0.0.1\\n' > $HOME/r; mount --bind $HOME/r /etc/resolv.conf",
  );
  const home = { env: { HOME: (await makeWorkspace(t)).directory }, ...options };
  const stub = await startLabDaemon(t, lab, { look }, 'system: {}\n', home);
  t.regex((await stub.client.json<Health>('/health')).network.missing.join(), /network_resolvers/);
  await stub.daemon.stop();
  const asked = await startLabDaemon(t, lab, { look }, `system: {network_resolvers: [${LAB.resolver}]}\n`, home);
  t.deepEqual((await asked.client.json<Health>('/health')).network.missing, []);
  t.deepEqual(await asked.client.json<string[]>('/invoke/look', {}), [LAB.publicServer]);
});

test('the daemon of an ordinary user has none and host, and refuses egress by name', async (t) => {
  const workspace = await makeWorkspace(t, { alone: DIAL, out: DIAL }, 'functions:\n  alone: {network: none}\n');
  await giveAway(workspace.directory);
  const daemon = await startDaemonProcess(t, workspace.directory, await asOrdinaryUser(t));
  const { network } = await daemon.json<Health>('/health');
  t.is(network.default, 'host');
  t.regex(network.reason, /as root/);
  t.deepEqual(await daemon.json('/invoke/alone', { json: [['tcp', '127.0.0.1', daemon.port]] }), ['!Connection refused']);
  const refused = await daemon.call('/functions/out', { method: 'PUT', json: { config: { network: 'egress' } } });
  t.regex(refused.text, /cannot give network egress: .*as root/);
});

test('without isolation a network that was asked for by name is refused, and the host is what there is', async (t) => {
  const workspace = await makeWorkspace(t, { out: DIAL }, 'system: {process_isolation_level: none}\n');
  const daemon = await startDaemonProcess(t, workspace.directory);
  t.like(await daemon.json('/health'), { network: { default: 'host' } });
  for (const network of ['none', 'egress']) {
    const refused = await daemon.call('/functions/out', { method: 'PUT', json: { config: { network } } });
    t.regex(refused.text, new RegExp(`cannot give network ${network}`));
  }
});
