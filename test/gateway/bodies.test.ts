import { once } from 'node:events';
import test from 'ava';
import { answerWith, startGateway } from '../support/gateway-fixture.ts';
import { call, connectTo, readUntilEnd } from '../support/http-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const HEAD = 'Host: x\r\nAuthorization: Bearer demo-key\r\n';
const LIMIT = 1000;

test('a body of exactly the limit passes, declared or in chunks', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => LIMIT });
  const body = 'x'.repeat(LIMIT);
  t.is((await call(`${fixture.url}/invoke/echo`, { body })).text, body);
  t.is((await call(`${fixture.url}/invoke/echo`, { body: [body.slice(0, 400), body.slice(400)] })).text, body);
});

test('a declared length over the limit is refused before a byte of the body was sent', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => LIMIT });
  const socket = await connectTo(fixture.port);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Content-Length: ${LIMIT + 1}\r\n\r\n`);
  const [first] = (await once(socket, 'data')) as [Buffer];
  t.regex(first.toString(), /^HTTP\/1\.1 413 /);
  t.true(first.toString().includes('"code":"body_too_large"'));
  socket.destroy();
});

test('a chunked body is refused as soon as it passes the limit, and the handler does not run', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => LIMIT });
  let ran = false;
  fixture.table.serve('echo', async () => {
    ran = true;
    return { answer: answerWith('ran') };
  });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  const chunk = `${(600).toString(16)}\r\n${'x'.repeat(600)}\r\n`;
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n${chunk}${chunk}`);
  await waitUntil(() => socket.bytesRead > 0);
  // What a client still sends is read and forgotten, so that it can read the answer.
  socket.write(`${chunk}0\r\n\r\n`);
  const text = await answer;
  t.regex(text, /^HTTP\/1\.1 413 /);
  t.regex(text, /\r\nConnection: close\r\n/);
  t.false(ran);
});

test('a large upload that is refused reads its whole answer instead of a reset connection', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => LIMIT });
  const reply = await call(`${fixture.url}/invoke/echo`, { body: Buffer.alloc(8 * 1024 * 1024) });
  t.is(reply.status, 413);
  t.is(reply.headers.connection, 'close');
});

test('Expect: 100-continue is answered only after key and length are known to be good', async (t) => {
  await using fixture = await startGateway({ maxBodyBytes: () => LIMIT });
  const send = async (head: string, body: string): Promise<string> => {
    const socket = await connectTo(fixture.port);
    const answer = readUntilEnd(socket);
    socket.write(
      `POST /invoke/echo HTTP/1.1\r\n${head}Connection: close\r\nExpect: 100-continue\r\nContent-Length: ${body.length}\r\n\r\n`,
    );
    await waitUntil(() => socket.bytesRead > 0);
    socket.write(body);
    return answer;
  };
  t.regex(await send(HEAD, 'hello'), /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /);
  t.regex(await send('Host: x\r\n', 'hello'), /^HTTP\/1\.1 401 /);
  t.regex(await send(HEAD, 'x'.repeat(LIMIT + 1)), /^HTTP\/1\.1 413 /);
});

test('a body that stops coming is answered 408', async (t) => {
  await using fixture = await startGateway({ options: { bodyTimeoutMs: 50 } });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Content-Length: 10\r\n\r\nhalf`);
  t.regex(await answer, /^HTTP\/1\.1 408 [^]*"code":"request_timeout"/);
});

test('a body that arrives after the deadline of its call does not start the handler', async (t) => {
  await using fixture = await startGateway();
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}X-Timeout: 1ms\r\nConnection: close\r\nContent-Length: 4\r\n\r\nha`);
  setTimeout(() => socket.write('lf'), 30);
  t.regex(await answer, /^HTTP\/1\.1 408 /);
});

test('a client that leaves in the middle of its body starts nothing and leaves no error in the log', async (t) => {
  await using fixture = await startGateway();
  let ran = false;
  fixture.table.serve('echo', async () => {
    ran = true;
    return { answer: answerWith('ran') };
  });
  const socket = await connectTo(fixture.port);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Content-Length: 10\r\n\r\nhalf`);
  await new Promise((resolve) => setImmediate(resolve));
  socket.destroy();
  t.is((await call(`${fixture.url}/health`)).status, 200);
  t.false(ran);
  t.deepEqual(
    fixture.logLines.filter(({ level }) => level === 'ERROR'),
    [],
  );
});

test('a refused call with a small body keeps its connection for the next one', async (t) => {
  await using fixture = await startGateway();
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/unknown HTTP/1.1\r\n${HEAD}Content-Length: 5\r\n\r\nhello`);
  socket.write(`POST /invoke/echo HTTP/1.1\r\n${HEAD}Connection: close\r\nContent-Length: 5\r\n\r\nworld`);
  t.regex(await answer, /^HTTP\/1\.1 404 [^]*HTTP\/1\.1 200 [^]*world$/);
});

test.serial(
  'bodies that arrive at the same time share one bound of memory, which is free again when they are gone',
  async (t) => {
    const mebi = 1024 * 1024;
    await using fixture = await startGateway({ maxBodyBytes: () => 400 * mebi });
    const piece = Buffer.alloc(mebi);
    // Two bodies that never end: 300 MiB each, where all together may hold 512.
    const upload = async () => {
      const socket = await connectTo(fixture.port);
      let answer = '';
      socket.on('data', (data) => (answer += data.toString('latin1')));
      socket.on('error', () => {});
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      socket.write(`POST /functions HTTP/1.1\r\n${HEAD}Content-Type: application/json\r\nContent-Length: ${350 * mebi}\r\n\r\n`);
      for (let sent = 0; sent < 300 && answer === '' && !socket.destroyed; sent += 1) {
        if (socket.write(piece)) continue;
        await Promise.race([new Promise<void>((resolve) => socket.once('drain', () => resolve())), closed]);
      }
      return { socket, closed, answer: () => answer };
    };
    for (let round = 0; round < 2; round += 1) {
      const first = await upload();
      t.is(first.answer(), '', 'there is room for one');
      const second = await upload();
      await waitUntil(() => second.answer() !== '');
      t.regex(second.answer(), /^HTTP\/1\.1 503 .*\r\nRetry-After: /s);
      for (const { socket, closed } of [first, second]) {
        socket.destroy();
        await closed;
      }
      t.is((await call(`${fixture.url}/invoke/echo`, { body: 'small' })).text, 'small');
    }
  },
);
