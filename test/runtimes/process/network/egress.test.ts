import {
  both,
  dial,
  DIAL,
  LAB,
  NetworkLab,
  PORT,
  reachedFrom,
  startLabDaemon,
  type Place,
} from '../../../support/network-lab.ts';
import { testNeeding } from '../../../support/requirements.ts';

const test = testNeeding('root', 'isolation', 'nftables');

/** What the function finds around itself. */
const LOOK = `
import socket
def handle(request):
    return {
        "resolver": open("/etc/resolv.conf").read(),
        "name": socket.gethostbyname("any.example"),
        "links": sorted(name for _, name in socket.if_nameindex()),
        "unix": [line.split()[-1] for line in open("/proc/self/net/unix") if "@" in line],
        "ports": len(open("/proc/self/net/tcp").readlines()) - 1,
    }
`;

test('egress reaches the outside, and nothing else: no private range, no metadata, no address of the host', async (t) => {
  const lab = await NetworkLab.open(t);
  const { client, daemon } = await startLabDaemon(t, lab, { out: DIAL, hosted: DIAL }, 'functions:\n  hosted: {network: host}\n');
  t.like(await client.json('/health'), { network: { default: 'egress', missing: [] } });
  const outside = both(LAB.publicServer, PORT);
  t.deepEqual(await dial(client, 'out', outside), [LAB.hostPublic, LAB.hostPublic], 'with the address of the host');

  const forbidden = [
    ...[...LAB.notPublic, LAB.lanServer].flatMap((address) => both(address, PORT)),
    ...[LAB.hostPublic, LAB.hostSecond, LAB.hostPrivate].flatMap((address) => both(address, PORT)),
  ];
  t.deepEqual(await reachedFrom(client, 'hosted', forbidden), forbidden, 'the host itself reaches all of it');
  t.deepEqual(await reachedFrom(client, 'out', forbidden), []);
  const management: Place[] = ['127.0.0.1', '0.0.0.0', LAB.hostPublic, LAB.hostSecond, LAB.hostPrivate].map((address) => [
    'tcp',
    address,
    daemon.port,
  ]);
  t.deepEqual(await reachedFrom(client, 'hosted', management.slice(0, 1)), management.slice(0, 1));
  t.deepEqual(await reachedFrom(client, 'out', management), []);
  t.is(await lab.host.shell('cat /proc/sys/net/ipv4/ip_forward'), '0\n', 'the host as a whole does not forward');
});

test('no spelling of a forbidden address and no IPv6 gets out of egress', async (t) => {
  const lab = await NetworkLab.open(t);
  const { client } = await startLabDaemon(t, lab, { out: DIAL, hosted: DIAL }, 'functions:\n  hosted: {network: host}\n');
  const spellings = [
    '2852039166',
    '0xa9fea9fe',
    '0251.0376.0251.0376',
    '169.254.43518',
    '::ffff:169.254.169.254',
    '::ffff:a9fe:a9fe',
  ];
  const other = ['fd00:20::1', 'fd00:20::2', '64:ff9b::a9fe:a9fe', 'ff02::1%eth0', '::ffff:10.20.0.2'];
  const places = [...spellings, ...other].flatMap((address) => both(address, PORT));
  const fromHost = await reachedFrom(client, 'hosted', places);
  for (const address of [...spellings, 'fd00:20::1', '::ffff:10.20.0.2'])
    t.true(
      fromHost.some(([protocol, host]) => protocol === 'tcp' && host === address),
      `${address} means something on the host`,
    );
  t.deepEqual(await reachedFrom(client, 'out', places), []);
  const loudspeakers = both('255.255.255.255', PORT).concat(both('203.0.113.255', PORT), both('224.0.0.1', PORT));
  t.deepEqual(await reachedFrom(client, 'out', loudspeakers), []);
});

test('names are asked of the private resolver of the host, and nothing else of it can be reached', async (t) => {
  const lab = await NetworkLab.open(t);
  const { client } = await startLabDaemon(t, lab, { look: LOOK, out: DIAL });
  t.deepEqual(await client.json('/invoke/look', {}), {
    resolver: `nameserver ${LAB.resolver}\n`,
    name: LAB.publicServer,
    links: ['eth0', 'lo'],
    unix: [],
    ports: 0,
  });
  t.deepEqual(await reachedFrom(client, 'out', [...both(LAB.resolver, PORT), ...both(LAB.lanServer, 53)]), []);
});

test('none has loopback alone, host has everything, and what is in force is shown', async (t) => {
  const lab = await NetworkLab.open(t);
  const entries = [
    'out: {}',
    'alone: {network: none}',
    'hosted: {network: host}',
    'named: {network: egress, network_allow: [10.20.0.3]}',
  ];
  const functions = { out: DIAL, alone: DIAL, hosted: DIAL, named: DIAL };
  const { client } = await startLabDaemon(t, lab, functions, `functions:\n${entries.map((entry) => `  ${entry}\n`).join('')}`);
  const places = [...both(LAB.publicServer, PORT), ...both(LAB.hostPrivate, PORT), ...both('127.0.0.1', PORT)];
  t.deepEqual(await reachedFrom(client, 'alone', places), []);
  t.deepEqual(await reachedFrom(client, 'hosted', places), places);
  await dial(client, 'out', []);
  await dial(client, 'named', []);
  const { functions: listed } = await client.json<{ functions: { name: string; network: string; network_allow: string[] }[] }>(
    '/functions',
  );
  const wanted = { out: 'egress', alone: 'none', hosted: 'host', named: 'egress' };
  t.deepEqual(Object.fromEntries(listed.map(({ name, network }) => [name, network])), wanted);
  t.deepEqual(listed.find(({ name }) => name === 'named')?.network_allow, ['10.20.0.3/32']);
  t.like(await client.json('/functions/out'), { network: 'egress', config: {} });
  const { instances } = await client.json<{ instances: { function: string; network: string }[] }>('/instances');
  t.deepEqual(Object.fromEntries(instances.map((instance) => [instance.function, instance.network])), wanted);
});
