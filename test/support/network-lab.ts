import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { makeWorkspace, startDaemonProcess, type DaemonProcess, type DaemonProcessOptions } from './daemon-process.ts';
import type { TestRepository } from './git-repository.ts';
import { killHard } from './leftovers.ts';

const run = promisify(execFile);

/** Addresses of the lab. What is behind `internet` is reached through the host's default route, as everything else would be. */
export const LAB = {
  /** Of the host: towards the internet, twice, and towards its private network. */
  hostPublic: '203.0.113.2',
  hostSecond: '203.0.113.77',
  hostPrivate: '10.20.0.2',
  gateway: '203.0.113.1',
  publicServer: '198.51.100.10',
  lanServer: '10.20.0.3',
  resolver: '10.20.0.53',
  metadata: '169.254.169.254',
  /** Every one answers when the host itself asks. */
  notPublic: [
    '0.1.2.3',
    '10.99.0.1',
    '100.64.1.1',
    '100.100.100.200',
    '168.63.129.16',
    '169.254.169.254',
    '172.16.5.5',
    '172.31.255.254',
    '192.0.0.192',
    '192.168.7.7',
    '198.18.200.1',
  ],
} as const;
/** TCP and UDP on every server; TCP and UDP of the resolver. */
export const PORT = 7777;
export const OTHER_PORT = 5432;

/** Echoes the peer's address over TCP and UDP, on all addresses of its namespace; a resolver answers every name with one address. */
const SERVER = `
import select, socket, sys
tcp, udp = [], []
for port in map(int, sys.argv[1].split(",")):
    for kind, found in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
        server = socket.socket(socket.AF_INET6, kind)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_DGRAM:
            server.setsockopt(socket.IPPROTO_IP, 8, 1)
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        found.append(server)
print("ready", flush=True)
def name_of(peer):
    return peer[0].replace("::ffff:", "").encode()
def name_answer(query):
    return query[:2] + b"\\x81\\x80" + query[4:6] + b"\\0\\1\\0\\0\\0\\0" + query[12:] + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton("198.51.100.10")
while True:
    for server in select.select(tcp + udp, [], [])[0]:
        if server in tcp:
            connection, peer = server.accept()
            connection.send(name_of(peer))
            connection.close()
        else:
            data, control, _, peer = server.recvmsg(2048, 256)
            answer = name_answer(data) if server.getsockname()[1] == 53 else name_of(peer)
            # From the address that was asked.
            local = [item[2][4:8] for item in control if item[1] == 8]
            ancillary = [(socket.IPPROTO_IP, 8, bytes(4) + local[0] + bytes(4))] if local else []
            try:
                server.sendmsg([answer], ancillary, 0, peer)
            except OSError:
                pass  # From an address that there is no way back to.
`;

/** Bytes both ways between a Unix socket and a port of the namespace that this runs in. */
const RELAY = `
import { createServer, connect } from 'node:net';
const [path, port] = process.argv.slice(2);
createServer((near) => {
  const far = connect(Number(port), '127.0.0.1');
  near.pipe(far).pipe(near);
  near.on('error', () => far.destroy());
  far.on('error', () => near.destroy());
}).listen(path, () => console.log('ready'));
`;

/** A host of ours in a network namespace: a process that does nothing holds it. */
class LabHost {
  readonly #holder: ChildProcess;

  static async make(): Promise<LabHost> {
    const script = 'ip link set lo up && echo ready && exec sleep infinity';
    const holder = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', '--net', 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(holder.stdout as NodeJS.ReadableStream, 'data');
    return new LabHost(holder);
  }

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  get pid(): number {
    return this.#holder.pid as number;
  }

  /** In front of a command that is to run there. */
  get prefix(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.pid}/ns/net`];
  }

  /** Standard output of a shell script that runs there. */
  async shell(script: string): Promise<string> {
    const [program = '', ...args] = [...this.prefix, 'sh', '-ec', script];
    const { stdout } = await run(program, args, { maxBuffer: 16 * 1024 * 1024 });
    return stdout;
  }

  /** Starts a program that says `ready`. */
  async start(command: readonly string[]): Promise<ChildProcess> {
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...this.prefix, ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout });
    const left = once(child, 'exit').then(([code]) =>
      Promise.reject(new Error(`${command.join(' ')} left with ${String(code)}`)),
    );
    await Promise.race([once(lines, 'line'), left]);
    left.catch(() => {});
    return child;
  }

  end(): void {
    killHard(this.#holder.pid);
  }
}

/**
 * Three hosts in network namespaces, with nothing of the real network: the `host` that a daemon runs on, the `internet` behind its default
 * route, with addresses of every kind, and a `lan`. All go with the test.
 */
export class NetworkLab {
  readonly host: LabHost;
  readonly internet: LabHost;
  readonly lan: LabHost;
  readonly #directory: string;
  readonly #children: ChildProcess[] = [];
  #relayCount = 0;

  static async open(t: ExecutionContext): Promise<NetworkLab> {
    const lab = new NetworkLab(await LabHost.make(), await LabHost.make(), await LabHost.make());
    t.teardown(() => lab.#close());
    const { host, internet, lan } = lab;
    await host.shell(`
      ip link add wan type veth peer name eth0 netns ${internet.pid}
      ip link add lan type veth peer name eth0 netns ${lan.pid}
      ip address add ${LAB.hostPublic}/24 dev wan; ip address add ${LAB.hostSecond}/24 dev wan
      ip address add ${LAB.hostPrivate}/24 dev lan; ip address add fd00:20::2/64 dev wan nodad
      ip link set wan up; ip link set lan up; ip route add default via ${LAB.gateway}
      # Refusals come as fast as they are asked for, so that nobody waits for them.
      sysctl -q -w net.ipv4.icmp_ratelimit=0`);
    await internet.shell(`
      ip address add ${LAB.gateway}/24 dev eth0; ip address add fd00:20::1/64 dev eth0 nodad; ip link set eth0 up
      for address in ${LAB.publicServer} ${LAB.notPublic.join(' ')}; do ip address add $address/32 dev lo; done`);
    await lan.shell(`
      ip address add ${LAB.lanServer}/24 dev eth0; ip address add ${LAB.resolver}/24 dev eth0; ip link set eth0 up
      ip route add default via ${LAB.hostPrivate}`);
    await lab.serve(internet, [PORT, OTHER_PORT]);
    await lab.serve(lan, [53, PORT, OTHER_PORT]);
    await lab.serve(host, [PORT]);
    return lab;
  }

  private constructor(host: LabHost, internet: LabHost, lan: LabHost) {
    this.host = host;
    this.internet = internet;
    this.lan = lan;
    this.#directory = mkdtempSync(join(tmpdir(), 'gitfaas-lab-'));
    writeFileSync(join(this.#directory, 'resolv.conf'), `nameserver ${LAB.resolver}\n`);
    writeFileSync(join(this.#directory, 'server.py'), SERVER);
    writeFileSync(join(this.#directory, 'relay.mjs'), RELAY);
  }

  /** Echoes on these ports, TCP and UDP, on all addresses of a host. */
  async serve(host: LabHost, ports: readonly number[]): Promise<void> {
    this.#children.push(await host.start(['python3', join(this.#directory, 'server.py'), ports.join(',')]));
  }

  /** For a daemon that runs on the host, with the lab's resolver; `preparation`: shell commands before it, in its mount namespace. */
  daemonOptions(preparation = ''): Pick<DaemonProcessOptions, 'wrapper'> {
    const script = `mount --bind "$1" /etc/resolv.conf\n${preparation}\nshift\nexec "$@"`;
    const mounts = ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', script, 'sh'];
    return { wrapper: [...this.host.prefix, ...mounts, join(this.#directory, 'resolv.conf')] };
  }

  /** Calls a daemon on the host, whose loopback is not ours. */
  async client(daemon: DaemonProcess): Promise<LabClient> {
    this.#relayCount += 1;
    const path = join(this.#directory, `relay-${this.#relayCount}`);
    const relay = [process.execPath, join(this.#directory, 'relay.mjs'), path, String(daemon.port)];
    this.#children.push(await this.host.start(relay));
    return new LabClient(path);
  }

  async #close(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      killHard(child.pid);
      await ended;
    }
    for (const host of [this.host, this.internet, this.lan]) host.end();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

export interface LabDaemon {
  readonly daemon: DaemonProcess;
  readonly client: LabClient;
  readonly workspace: TestRepository;
  /** Another daemon on the same workspace. */
  restart(): Promise<DaemonProcess>;
}

/** A daemon on the lab's host, with functions given as the text of their handlers. */
export async function startLabDaemon(
  t: ExecutionContext,
  lab: NetworkLab,
  functions: Readonly<Record<string, string>>,
  config = 'system: {}\n',
  options: DaemonProcessOptions = {},
): Promise<LabDaemon> {
  const workspace = await makeWorkspace(t, functions, config);
  const start = async (): Promise<DaemonProcess> =>
    await startDaemonProcess(t, workspace.directory, { ...lab.daemonOptions(), ...options });
  const daemon = await start();
  return { daemon, client: await lab.client(daemon), workspace, restart: start };
}

/** HTTP over a relay. */
export class LabClient {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Status and parsed body of a call with the admin key. */
  async call(
    path: string,
    body?: unknown,
    method = body === undefined ? 'GET' : 'POST',
  ): Promise<{ status: number; json: unknown }> {
    const outgoing = request({
      socketPath: this.#socketPath,
      path,
      method,
      headers: { authorization: 'Bearer admin-key', 'content-type': 'application/json', connection: 'close' },
    });
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    let text = '';
    for await (const chunk of response) text += String(chunk);
    return { status: response.statusCode ?? 0, json: text === '' ? undefined : JSON.parse(text) };
  }

  /** The body of a call that must succeed. */
  async json<Body = Record<string, unknown>>(path: string, body?: unknown, method?: string): Promise<Body> {
    const reply = await this.call(path, body, method);
    if (reply.status >= 300) throw new Error(`${path}: ${reply.status} ${JSON.stringify(reply.json)}`);
    return reply.json as Body;
  }
}

export type Place = readonly ['tcp' | 'udp', string, number];

/** Over TCP and over UDP. */
export const both = (address: string, port: number): Place[] => [
  ['tcp', address, port],
  ['udp', address, port],
];

/** What a function with the code of `DIAL` gets from each place. */
export async function dial(client: LabClient, name: string, places: readonly Place[]): Promise<string[]> {
  return await client.json<string[]>(`/invoke/${name}`, places);
}

/** Those that did not answer with a failure. */
export async function reachedFrom(client: LabClient, name: string, places: readonly Place[]): Promise<Place[]> {
  const answers = await dial(client, name, places);
  return places.filter((_, index) => answers[index]?.startsWith('!') === false);
}

/** Tries each `[protocol, host, port]` of its body, all at once; answers what came back, or `!` and the error. */
export const DIAL = `
import socket
from concurrent.futures import ThreadPoolExecutor
def dial(place):
    protocol, host, port = place
    try:
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, kind) as connection:
            connection.settimeout(1)
            connection.connect((host, port))
            if protocol == "udp":
                connection.send(b"hello")
            try:
                return connection.recv(2048).decode()
            except socket.timeout:
                if protocol == "tcp":
                    return "connected"
                raise
    except OSError as error:
        return "!" + (error.strerror or str(error))
def handle(request):
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(dial, request.get_json()))
`;
