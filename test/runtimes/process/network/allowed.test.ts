import {
  both,
  dial,
  DIAL,
  LAB,
  NetworkLab,
  OTHER_PORT,
  PORT,
  reachedFrom,
  startLabDaemon,
  type Place,
} from '../../../support/network-lab.ts';
import { testNeeding } from '../../../support/requirements.ts';
import { waitUntil } from '../../../support/wait-until.ts';

const test = testNeeding('root', 'isolation', 'nftables');

const everything: Place[] = [LAB.lanServer, LAB.metadata, '10.99.0.1', '192.168.7.7', LAB.hostPrivate].flatMap((address) => [
  ...both(address, PORT),
  ...both(address, OTHER_PORT),
]);

const cases: readonly (readonly [string, string, readonly Place[]])[] = [
  ['an address', LAB.lanServer, [...both(LAB.lanServer, PORT), ...both(LAB.lanServer, OTHER_PORT)]],
  ['an address and a port', `${LAB.lanServer}:${OTHER_PORT}`, both(LAB.lanServer, OTHER_PORT)],
  [
    'ranges, one inside the other, and a port',
    '10.0.0.0/8, 10.99.0.0/16, 10.99.0.1:5432, 192.168.7.7:7777',
    everything.filter(
      ([, address, port]) =>
        (address.startsWith('10.') && address !== LAB.hostPrivate) || (address === '192.168.7.7' && port === PORT),
    ),
  ],
  ['a metadata address at one port', `${LAB.metadata}:${PORT}`, both(LAB.metadata, PORT)],
  ['an address of the host, which stays out of reach', `${LAB.hostPrivate}, ${LAB.hostPublic}`, []],
];

test('network_allow opens what it names, for the function that names it, from its first line on', async (t) => {
  const lab = await NetworkLab.open(t);
  await lab.serve(lab.host, [OTHER_PORT]);
  const names = cases.map((_, index) => `allowed-${index}`);
  // At the import: nothing of it may have to wait for the list.
  const early = `import socket\nREACHED = socket.create_connection(("${LAB.lanServer}", ${PORT}), 1).recv(100).decode()\ndef handle(request):\n    return [REACHED]\n`;
  const functions = { ...Object.fromEntries(names.map((name) => [name, DIAL])), other: DIAL, early };
  const entries = cases.map(([, list], index) => `  allowed-${index}: {network_allow: [${list}]}\n`).join('');
  const { client } = await startLabDaemon(
    t,
    lab,
    functions,
    `functions:\n${entries}  early: {network_allow: [${LAB.lanServer}]}\n`,
  );
  for (const [index, [title, , expected]] of cases.entries())
    t.deepEqual(await reachedFrom(client, `allowed-${index}`, everything), expected, title);
  t.deepEqual(await reachedFrom(client, 'other', everything), []);
  t.deepEqual(await client.json<string[]>('/invoke/early', {}), [LAB.hostPrivate]);
  // Everything that is open was opened by a list; the public address needs none.
  t.deepEqual(await reachedFrom(client, 'allowed-4', both(LAB.publicServer, PORT)), both(LAB.publicServer, PORT));
});

test('a change of network_allow holds from the next instance on, and what it closed is closed', async (t) => {
  const lab = await NetworkLab.open(t);
  const config = (list: string) => `functions:\n  out: {network_allow: [${list}]}\n`;
  const { client, workspace } = await startLabDaemon(t, lab, { out: DIAL }, config(LAB.lanServer));
  const [lan] = both(LAB.lanServer, PORT);
  const [metadata] = both(LAB.metadata, PORT);
  if (lan === undefined || metadata === undefined) throw new Error('unreachable');
  t.deepEqual(await reachedFrom(client, 'out', [lan, metadata]), [lan]);
  const { version } = await client.json<{ version: string }>('/functions/out');
  await workspace.write({ 'faas_config.yaml': config(LAB.metadata) });
  await waitUntil(async () => (await client.json<{ version: string }>('/functions/out')).version !== version);
  t.deepEqual(await reachedFrom(client, 'out', [lan, metadata]), [metadata]);
  const refused = await client.call('/functions/out', { config: { network_allow: ['db.internal'] } }, 'PUT');
  t.is(refused.status, 400);
  t.regex(JSON.stringify(refused.json), /is a name/);
  t.deepEqual((await dial(client, 'out', [metadata]))[0]?.startsWith('!'), false);
});
