import { setTimeout as sleep } from 'node:timers/promises';
import { both, DIAL, LAB, NetworkLab, PORT, reachedFrom, startLabDaemon, type LabClient } from '../../../support/network-lab.ts';
import { testNeeding } from '../../../support/requirements.ts';

const test = testNeeding('root', 'isolation', 'nftables');

/** Listens on all its addresses and on an abstract socket, and says where. */
const LISTEN = `
import socket, threading
def serve(server):
    while True:
        connection, _ = server.accept()
        connection.send(b"hello")
        connection.close()
def echo(server):
    while True:
        data, peer = server.recvfrom(100)
        server.sendto(b"hello", peer)
def handle(request):
    tcp = socket.create_server(("0.0.0.0", ${PORT}))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", ${PORT}))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\\0of-a-function")
    abstract.listen()
    for target, server in ((serve, tcp), (echo, udp)):
        threading.Thread(target=target, args=[server], daemon=True).start()
    outward = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outward.connect(("${LAB.publicServer}", 1))
    return [outward.getsockname()[0]]
`;

/** Connects to the abstract socket of another. */
const ABSTRACT = `
import socket
def handle(request):
    try:
        socket.socket(socket.AF_UNIX).connect("\\0of-a-function")
        return ["connected"]
    except OSError as error:
        return [error.strerror]
`;

interface Listed {
  readonly function: string;
  readonly pid: number;
}

const pidOf = async (client: LabClient, name: string): Promise<number> => {
  const { instances } = await client.json<{ instances: Listed[] }>('/instances');
  return instances.find((instance) => instance.function === name)?.pid as number;
};

test('nobody opens a connection to an instance: no other function, no other daemon, not the host, nobody outside', async (t) => {
  const lab = await NetworkLab.open(t);
  const config = 'functions:\n  hosted: {network: host}\n  wide: {network_allow: [198.19.0.0/16, 198.18.0.0/16]}\n';
  const functions = { listens: LISTEN, out: DIAL, wide: DIAL, hosted: DIAL, abstract: ABSTRACT };
  const { client } = await startLabDaemon(t, lab, functions, config);
  const second = await startLabDaemon(t, lab, { out: DIAL, wide: DIAL }, config.replace('  hosted: {network: host}\n', ''));
  const [address = ''] = await client.json<string[]>('/invoke/listens', {});
  const places = both(address, PORT);
  for (const [who, asked] of [
    ['out', client],
    ['wide', client],
    ['hosted', client],
    ['out', second.client],
    ['wide', second.client],
  ] as const)
    t.deepEqual(await reachedFrom(asked, who, places), [], who);
  t.deepEqual(await client.json<string[]>('/invoke/abstract', {}), ['Connection refused']);

  const connect = `python3 -c 'import socket; socket.create_connection(("${address}", ${PORT}), 1)'`;
  await t.throwsAsync(lab.host.shell(connect));
  await lab.internet.shell(`ip route add 198.18.0.0/15 via ${LAB.hostPublic}`);
  await t.throwsAsync(lab.internet.shell(connect));
  await t.throwsAsync(lab.lan.shell(connect));
  // It did listen: from inside it answers.
  await lab.host.shell(`nsenter --net=/proc/${await pidOf(client, 'listens')}/ns/net ${connect}`);
});

test('a false source address gets nowhere, not even for a process with all rights in the namespace', async (t) => {
  const lab = await NetworkLab.open(t);
  const { client } = await startLabDaemon(t, lab, { out: DIAL });
  t.deepEqual(await reachedFrom(client, 'out', both(LAB.publicServer, PORT)), both(LAB.publicServer, PORT));
  const pid = await pidOf(client, 'out');
  const counters = async (): Promise<string> =>
    await lab.internet.shell("awk '/^Udp:/ && $2 ~ /[0-9]/ {print $2 + $4}' /proc/net/snmp");
  const send = (source: string) => `python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
${source === '' ? '' : `s.bind(("${source}", 0))`}
s.sendto(b"x", ("${LAB.publicServer}", ${PORT}))'`;
  const inside = async (script: string): Promise<string> =>
    await lab.host.shell(`nsenter --net=/proc/${pid}/ns/net sh -ec '${script.replaceAll("'", `'\\''`)}'`);
  const before = await counters();
  for (const source of ['203.0.113.99', LAB.hostPublic, '10.20.0.9', '198.19.1.1', '198.51.100.77']) {
    await inside(`ip address add ${source}/32 dev eth0`);
    await inside(send(source));
  }
  await sleep(200);
  t.is(await counters(), before, 'nothing arrived');
  await inside(send(''));
  await sleep(200);
  t.not(await counters(), before, 'with its own address it does');
});

test('opening connections without end is slowed down, and leaves the others alone', async (t) => {
  const lab = await NetworkLab.open(t);
  const flood = `
import socket
def handle(request):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in range(10000, 30000):
        try:
            s.sendto(b"x", ("${LAB.publicServer}", port))
        except OSError:
            pass
    return ["sent"]
`;
  const { client } = await startLabDaemon(t, lab, { flood, out: DIAL });
  const count = async (): Promise<number> => Number(await lab.host.shell('cat /proc/sys/net/netfilter/nf_conntrack_count'));
  const before = await count();
  const began = performance.now();
  t.deepEqual(await client.json<string[]>('/invoke/flood', {}), ['sent']);
  const seconds = (performance.now() - began) / 1000;
  const added = (await count()) - before;
  t.true(added > 500 && added < 1000 + 200 * (seconds + 2), `${added} in ${seconds} s`);
  t.deepEqual(await reachedFrom(client, 'out', both(LAB.publicServer, PORT)), both(LAB.publicServer, PORT));
});
