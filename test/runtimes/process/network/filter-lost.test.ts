import { descendantsOf, killHard } from '../../../support/leftovers.ts';
import { both, DIAL, LAB, NetworkLab, PORT, reachedFrom, startLabDaemon, type Place } from '../../../support/network-lab.ts';
import { testNeeding } from '../../../support/requirements.ts';
import { waitUntil } from '../../../support/wait-until.ts';

const test = testNeeding('root', 'isolation', 'nftables');

const outside = both(LAB.publicServer, PORT);
const allowed = both(LAB.lanServer, PORT);
const forbidden = [...both(LAB.hostPrivate, PORT), ...both(LAB.metadata, PORT)];
const places: readonly Place[] = [...outside, ...allowed, ...forbidden];

test('a filter that somebody flushes is there again before it is missed, with all lists, and the log says so', async (t) => {
  const lab = await NetworkLab.open(t);
  const config = `functions:\n  out: {network_allow: [${LAB.lanServer}]}\n`;
  const { client, daemon } = await startLabDaemon(t, lab, { out: DIAL }, config);
  t.deepEqual(await reachedFrom(client, 'out', places), [...outside, ...allowed]);
  for (let round = 1; round <= 3; round++) {
    await lab.host.shell('/usr/sbin/nft flush ruleset');
    await waitUntil(async () => (await lab.host.shell('/usr/sbin/nft list tables')).includes('gitfaas-'), 2000);
    t.deepEqual(await reachedFrom(client, 'out', forbidden), []);
    const isWhole = async (): Promise<boolean> =>
      (await reachedFrom(client, 'out', places)).length === outside.length + allowed.length;
    await waitUntil(isWhole).catch((error: unknown) => t.fail(`${String(error)} ${daemon.output().slice(-3000)}`));
    await waitUntil(() => daemon.output().split('Somebody removed the packet filter').length === round + 1);
  }
  t.is(await daemon.stop(), 0);
  t.is(await lab.host.shell('/usr/sbin/nft list tables'), '');
});

test('without its keeper an instance stays as it was, and the next instances get another', async (t) => {
  const lab = await NetworkLab.open(t);
  const config = `functions:\n  out: {network_allow: [${LAB.lanServer}]}\n`;
  const { client, daemon } = await startLabDaemon(t, lab, { out: DIAL, later: DIAL }, config);
  t.deepEqual(await reachedFrom(client, 'out', places), [...outside, ...allowed]);
  const keepers = (): readonly number[] =>
    descendantsOf(daemon.pid)
      .filter(({ command }) => command.includes('keeper.py'))
      .map(({ pid }) => pid);
  const [first] = keepers();
  t.is(keepers().length, 1);
  killHard(first);
  await waitUntil(() => !keepers().includes(first ?? 0));
  t.deepEqual(await reachedFrom(client, 'out', places), [...outside, ...allowed]);
  t.deepEqual(await reachedFrom(client, 'later', places), outside);
  await client.json('/instances').then(async (listed) => {
    const { instances } = listed as { instances: { id: string; function: string }[] };
    const { id } = instances.find((instance) => instance.function === 'out') ?? { id: '' };
    await client.json(`/instances/${id}`, undefined, 'DELETE');
  });
  t.deepEqual(await reachedFrom(client, 'out', places), [...outside, ...allowed], 'a new instance');
  await waitUntil(() => keepers().length === 1);
  t.is(await daemon.stop(), 0);
  t.is(await lab.host.shell('/usr/sbin/nft list tables'), '');
  t.is(await lab.host.shell('ip -o link | grep -c ": g[fp]" || true'), '0\n');
});
