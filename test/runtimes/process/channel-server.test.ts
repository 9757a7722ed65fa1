import test from 'ava';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { FaasError } from '../../../src/errors.ts';
import { ChannelServer } from '../../../src/runtimes/process/channel-server.ts';
import { ownIdentity } from '../../../src/runtimes/process/process-identity.ts';
import { encodeFrame, encodeJson, FRAME } from '../../../src/runtimes/protocol.ts';

async function dial(server: ChannelServer): Promise<Socket> {
  const socket = connect(server.socketPath);
  await once(socket, 'connect');
  socket.on('error', () => {});
  return socket;
}

const hello = (token: string, kind: string): Buffer => encodeJson(FRAME.HELLO, 0, { token, kind });

test('a connection with a known token is handed over with what follows its hello, in any chunking', async (t) => {
  await using server = await ChannelServer.open();
  for (const cutAt of [1, 5, 20, 60]) {
    const taken = Promise.withResolvers<{ socket: Socket; rest: Buffer }>();
    server.expect('secret', { channel: (socket, rest) => taken.resolve({ socket, rest }), log: () => t.fail() });
    const client = await dial(server);
    const bytes = Buffer.concat([hello('secret', 'channel'), Buffer.from('and more')]);
    client.write(bytes.subarray(0, cutAt));
    setImmediate(() => client.write(bytes.subarray(cutAt)));
    const { socket, rest } = await taken.promise;
    let heard = rest.toString();
    socket.on('data', (chunk: Buffer) => (heard += chunk.toString()));
    client.end();
    await once(socket, 'end');
    t.is(heard, 'and more');
    socket.destroy();
  }
});

const strangers: readonly (readonly [string, Buffer])[] = [
  ['an unknown token', hello('other', 'channel')],
  ['an unknown kind', hello('secret', 'control')],
  ['another frame first', encodeJson(FRAME.READY, 0, { token: 'secret', kind: 'channel' })],
  ['a hello that is too long', encodeFrame(FRAME.HELLO, 0, Buffer.alloc(4000, 0x20))],
  ['something that is no frame', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['no JSON', encodeFrame(FRAME.HELLO, 0, Buffer.from('{'))],
];

for (const [name, bytes] of strangers) {
  test(`a connection that says ${name} is closed`, async (t) => {
    await using server = await ChannelServer.open();
    server.expect('secret', { channel: () => t.fail(), log: () => t.fail() });
    const client = await dial(server);
    client.resume();
    client.write(bytes);
    await once(client, 'close');
    t.pass();
  });
}

test('a token opens each kind of connection once', async (t) => {
  await using server = await ChannelServer.open();
  const kinds: string[] = [];
  server.expect('secret', {
    channel: (socket) => (kinds.push('channel'), socket.destroy()),
    log: (socket) => (kinds.push('log'), socket.destroy()),
  });
  for (const kind of ['channel', 'log', 'channel', 'log']) {
    const client = await dial(server);
    client.resume();
    client.write(hello('secret', kind));
    await once(client, 'close');
  }
  t.deepEqual(kinds, ['channel', 'log']);
});

test('the directory is private and gone after disposal, with connections that never said hello', async (t) => {
  const server = await ChannelServer.open();
  const directory = dirname(server.socketPath);
  t.is(statSync(directory).mode & 0o777, 0o700);
  const client = await dial(server);
  client.resume();
  const closed = once(client, 'close');
  await server[Symbol.asyncDispose]();
  await closed;
  t.false(existsSync(directory));
});

test('a place whose path is too long or not writable is passed over, and without any left the error says why', async (t) => {
  const place = mkdtempSync(join(tmpdir(), 'gf-'));
  t.teardown(() => rmSync(place, { recursive: true, force: true }));
  const long = join(place, 'x'.repeat(100));
  mkdirSync(long);
  await using server = await ChannelServer.open([long, '/nonexistent', place]);
  t.is(dirname(dirname(server.socketPath)), place);
  const error = await t.throwsAsync(ChannelServer.open([long, '/nonexistent']), { instanceOf: FaasError });
  t.regex(error.message, /too long.*ENOENT/);
});

test('directories of daemons that are gone are removed, those of live ones stay', async (t) => {
  const place = mkdtempSync(join(tmpdir(), 'gf-'));
  t.teardown(() => rmSync(place, { recursive: true, force: true }));
  const own = ownIdentity();
  const dead = `gitfaas-${own.namespace}-${own.pid}-1-00ff`;
  const live = `gitfaas-${own.namespace}-${own.pid}-${own.startTicks}-00ff`;
  const foreign = `gitfaas-1-${own.pid}-1-00ff`;
  for (const name of [dead, live, foreign, 'gitfaas-state']) mkdirSync(join(place, name));
  await using server = await ChannelServer.open([place]);
  t.truthy(server);
  const names = readdirSync(place);
  t.false(names.includes(dead));
  for (const name of [live, foreign, 'gitfaas-state']) t.true(names.includes(name), name);
});
