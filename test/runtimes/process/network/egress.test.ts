import type { ExecutionContext } from 'ava';
import { makeWorkspace, startDaemonProcess } from '../../../support/daemon-process.ts';
import { DIAL, LAB, NetworkLab, PORT, type LabClient } from '../../../support/network-lab.ts';
import { testNeeding } from '../../../support/requirements.ts';

type Place = readonly ['tcp' | 'udp', string, number];

const test = testNeeding('root', 'isolation', 'nftables');

async function openLab(
  t: ExecutionContext,
  functions: Readonly<Record<string, string>>,
  config: string,
): Promise<{ lab: NetworkLab; client: LabClient; port: number }> {
  const lab = await NetworkLab.open(t);
  const workspace = await makeWorkspace(t, functions, config);
  const daemon = await startDaemonProcess(t, workspace.directory, lab.daemonOptions());
  return { lab, client: await lab.client(daemon), port: daemon.port };
}

const dial = async (client: LabClient, name: string, places: readonly Place[]): Promise<string[]> =>
  await client.json<string[]>(`/invoke/${name}`, places);

const both = (address: string, port: number): Place[] => [
  ['tcp', address, port],
  ['udp', address, port],
];

test('egress reaches the outside, and nothing else: no private range, no metadata, no address of the host', async (t) => {
  const { lab, client, port } = await openLab(t, { out: DIAL, hosted: DIAL }, 'functions:\n  hosted: {network: host}\n');
  t.like(await client.json('/health'), { network: { default: 'egress', missing: [] } });
  t.deepEqual(
    await dial(client, 'out', both(LAB.publicServer, PORT)),
    [LAB.hostPublic, LAB.hostPublic],
    'with the address of the host',
  );

  const forbidden = [
    ...[...LAB.notPublic, LAB.lanServer].flatMap((address) => both(address, PORT)),
    ...[LAB.hostPublic, LAB.hostSecond, LAB.hostPrivate].flatMap((address): Place[] => [
      ...both(address, PORT),
      ['tcp', address, port],
    ]),
  ];
  const asHost = await dial(
    client,
    'hosted',
    forbidden.filter(([, address, at]) => at === PORT && address !== ''),
  );
  t.true(
    asHost.every((answer) => !answer.startsWith('!')),
    `the host itself reaches all of it: ${JSON.stringify(asHost)}`,
  );
  const answers = await dial(client, 'out', forbidden);
  t.deepEqual(
    forbidden.filter((_, index) => answers[index]?.startsWith('!') !== true),
    [],
  );
  t.is(await lab.host.shell('cat /proc/sys/net/ipv4/ip_forward'), '0\n', 'the host as a whole does not forward');
});
