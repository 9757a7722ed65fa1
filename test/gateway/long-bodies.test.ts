import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import test from 'ava';
import type { FaasError } from '../../src/errors.ts';
import { WHOLE_BODY_MAX_BYTES } from '../../src/gateway/arriving-body.ts';
import type { Invocation } from '../../src/pool/instance.ts';
import { answerWith, startGateway } from '../support/gateway-fixture.ts';
import { call, connectTo, readUntilEnd } from '../support/http-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const MEBI = 1024 * 1024;
const HEAD = 'Host: x\r\nAuthorization: Bearer demo-key\r\n';

function chunk(bytes: number): string {
  return `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`;
}

async function readRest({ rest }: Invocation): Promise<Buffer> {
  return rest === undefined ? Buffer.alloc(0) : Buffer.concat((await rest.toArray()) as Buffer[]);
}

/** Everything that comes until the connection ends or is cut, latin1. */
async function readUntilCut(socket: Socket): Promise<string> {
  let received = '';
  socket.on('data', (data) => (received += data.toString('latin1')));
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('close', resolve));
  return received;
}

for (const bytes of [WHOLE_BODY_MAX_BYTES - 1, WHOLE_BODY_MAX_BYTES]) {
  test(`a declared body of ${bytes} bytes is there whole when its call begins`, async (t) => {
    await using fixture = await startGateway();
    fixture.table.serve('size', async ({ body, rest }) => ({ answer: answerWith(`${body.length} ${rest === undefined}`) }));
    t.is((await call(`${fixture.url}/invoke/size`, { body: Buffer.alloc(bytes) })).text, `${bytes} true`);
  });
}

test('a chunked body that ends early enough is there whole, with its length told to the handler', async (t) => {
  await using fixture = await startGateway();
  fixture.table.serve('size', async ({ body, rest, headers }) => ({
    answer: answerWith(`${body.length} ${rest === undefined} ${headers[headers.indexOf('Content-Length') + 1]}`),
  }));
  const body = [Buffer.alloc(300_000), Buffer.alloc(300_000)];
  t.is((await call(`${fixture.url}/invoke/size`, { body })).text, '600000 true 600000');
});

for (const isChunked of [false, true]) {
  test(`a long ${isChunked ? 'chunked' : 'declared'} body passes unchanged`, async (t) => {
    await using fixture = await startGateway({ maxBodyBytes: () => 8 * MEBI });
    let beganWith = 0;
    fixture.table.serve('echo', async (invocation) => {
      beganWith = invocation.body.length;
      t.is(invocation.headers.includes('Content-Length'), !isChunked);
      return { answer: answerWith(Buffer.concat([invocation.body, await readRest(invocation)])) };
    });
    const body = Buffer.alloc(5 * MEBI + 3, 'abcdefg');
    const pieces = [body.subarray(0, 700_000), body.subarray(700_000, 3 * MEBI), body.subarray(3 * MEBI)];
    const reply = await call(`${fixture.url}/invoke/echo`, { body: isChunked ? pieces : body });
    t.is(reply.text, body.toString());
    t.true(beganWith >= WHOLE_BODY_MAX_BYTES && beganWith < 1.2 * MEBI, `began with ${beganWith}`);
  });
}

test('a long body starts its call before it is complete, and Expect: 100-continue is answered once', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 8 * MEBI });
  let hasBegun = false;
  fixture.table.serve('echo', async (invocation) => {
    hasBegun = true;
    const rest = await readRest(invocation);
    return { answer: answerWith(String(invocation.body.length + rest.length)) };
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  const head = `${HEAD}Expect: 100-continue\r\nConnection: close\r\nContent-Length: ${3 * MEBI}`;
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${head}\r\n\r\n`);
  await waitUntil(() => socket.bytesRead > 0);
  socket.write(Buffer.alloc(2 * MEBI));
  await waitUntil(() => hasBegun);
  socket.write(Buffer.alloc(MEBI));
  t.regex(await answer, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 [^]*\r\n\r\n3145728$/);
});

test('nothing is read from the client while the handler does not read, and little while the call waits', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 200 * MEBI });
  const begin = Promise.withResolvers<void>();
  let held = 0;
  fixture.table.serve('echo', async (invocation) => {
    await begin.promise;
    held = invocation.body.length + (invocation.rest?.readableLength ?? 0);
    return { answer: answerWith(String(invocation.body.length + (await readRest(invocation)).length)) };
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Connection: close\r\nContent-Length: ${100 * MEBI}\r\n\r\n`);
  let taken = 0;
  const piece = Buffer.alloc(64 * 1024);
  const upload = new Readable({
    read() {
      taken += piece.length;
      this.push(taken <= 100 * MEBI ? piece : null);
    },
  });
  upload.pipe(socket, { end: false });
  // It has come to rest when a while passes without another piece.
  await waitUntil(async () => {
    const before = taken;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return taken === before;
  });
  t.true(taken < 50 * MEBI, `${taken} bytes were taken from the client`);
  begin.resolve();
  t.regex(await answer, /\r\n\r\n104857600$/);
  t.true(held < 1.3 * MEBI, `${held} bytes were held`);
});

test('a chunked body that passes the limit during its call is answered 413, and the handler learns it from the body', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 2 * MEBI });
  let seen: FaasError | undefined;
  fixture.table.serve('echo', async (invocation) => {
    await readRest(invocation).catch((error: FaasError) => (seen = error));
    return new Promise(() => undefined);
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n${chunk(MEBI)}${chunk(MEBI)}${chunk(1)}`);
  await waitUntil(() => socket.bytesRead > 0);
  socket.write('0\r\n\r\n');
  t.regex(await answer, /^HTTP\/1\.1 413 [^]*"max_body_bytes":2097152/);
  t.is(seen?.code, 'body_too_large');
});

test('a body that fails after the head of the answer cuts the connection', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 2 * MEBI });
  const body = new Readable({ read: () => undefined });
  fixture.table.serve('echo', async (invocation) => {
    readRest(invocation).catch(() => undefined);
    return { answer: answerWith(body) };
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilCut(socket);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n${chunk(1.5 * MEBI)}`);
  body.push('partial');
  await waitUntil(() => socket.bytesRead > 200);
  socket.write(chunk(MEBI));
  const text = await answer;
  t.regex(text, /^HTTP\/1\.1 200 [^]*partial\r\n$/);
  await waitUntil(() => body.destroyed);
});

test('a client that pauses in a long body is answered 408; while nobody waits for the body it may', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 8 * MEBI, options: { bodyIdleTimeoutMs: 100 } });
  const begin = Promise.withResolvers<void>();
  let isBroken = false;
  fixture.table.serve('echo', async (invocation) => {
    await begin.promise;
    await readRest(invocation).catch(() => (isBroken = true));
    return new Promise(() => undefined);
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Content-Length: ${4 * MEBI}\r\n\r\n`);
  socket.write(Buffer.alloc(2 * MEBI));
  await new Promise((resolve) => setTimeout(resolve, 300));
  t.is(socket.bytesRead, 0);
  begin.resolve();
  t.regex(await answer, /^HTTP\/1\.1 408 [^]*"code":"request_timeout"/);
  t.true(isBroken);
});

test('a client that leaves in the middle of a long body has its call cancelled', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 8 * MEBI });
  let seen: Invocation | undefined;
  let code: string | undefined;
  fixture.table.serve('echo', async (invocation) => {
    seen = invocation;
    await readRest(invocation).catch((error: FaasError) => (code = error.code));
    return new Promise(() => undefined);
  });
  const socket = await connectTo(fixture.port);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Content-Length: ${4 * MEBI}\r\n\r\n`);
  socket.write(Buffer.alloc(2 * MEBI));
  await waitUntil(() => seen !== undefined);
  socket.destroy();
  await waitUntil(() => code !== undefined);
  t.is(code, 'cancelled');
  await waitUntil(() => seen?.signal?.aborted === true);
});

test('a handler that answers without reading a long body: the client reads the whole answer, then the connection closes', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 200 * MEBI });
  fixture.table.serve('echo', async ({ rest }) => {
    rest?.destroy();
    return { answer: answerWith('enough') };
  });
  const reply = await call(`${fixture.url}/invoke/echo`, { body: Buffer.alloc(20 * MEBI) });
  t.is(reply.text, 'enough');
  t.is(reply.headers.connection, 'close');
});

test('a streamed answer to a long body that nobody read is whole, and the connection serves on when the body came', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 8 * MEBI });
  fixture.table.serve('stream', async ({ rest }) => {
    rest?.destroy();
    return { answer: answerWith(Readable.from(['one ', 'two'])) };
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/stream HTTP/1.1\r\n${HEAD}Content-Length: ${4 * MEBI}\r\n\r\n`);
  socket.write(Buffer.alloc(4 * MEBI));
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Connection: close\r\nContent-Length: 4\r\n\r\nnext`);
  t.regex(await answer, /^HTTP\/1\.1 200 [^]*one [^]*two\r\n0\r\n\r\nHTTP\/1\.1 200 [^]*next$/);
});

test('a client that goes on sending what nobody reads is cut off after its answer', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => 8 * MEBI });
  fixture.table.serve('stream', async ({ rest }) => {
    rest?.destroy();
    return { answer: answerWith(Readable.from(['one ', 'two'])) };
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/stream HTTP/1.1\r\n${HEAD}Content-Length: ${4 * MEBI}\r\n\r\n`);
  socket.write(Buffer.alloc(2 * MEBI));
  t.regex(await answer, /one [^]*two\r\n0\r\n\r\n$/);
});
