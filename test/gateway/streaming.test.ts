import { once } from 'node:events';
import { Readable } from 'node:stream';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import type { CallSignal } from '../../src/pool/instance.ts';
import { answerWith, startGateway } from '../support/gateway-fixture.ts';
import { call, connectTo, open, readUntilEnd } from '../support/http-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const HEAD = 'Host: x\r\nAuthorization: Bearer demo-key\r\n';

test('each chunk of a streamed answer leaves when it is made', async (t) => {
  await using fixture = await startGateway();
  const body = new Readable({ read: () => undefined });
  fixture.table.serve('echo', async () => ({ answer: answerWith(body, 200, ['Content-Type', 'text/event-stream']) }));
  const response = await open(`${fixture.url}/invoke/echo`);
  t.is(response.headers['transfer-encoding'], 'chunked');
  for (const chunk of ['one', 'two']) {
    body.push(chunk);
    t.is(String((await once(response, 'data'))[0]), chunk);
  }
  body.push(null);
  await once(response, 'end');
  t.true(response.complete);
});

test('a stream that fails cuts the connection, without an error text in the answer', async (t) => {
  await using fixture = await startGateway();
  const body = new Readable({ read: () => undefined });
  fixture.table.serve('echo', async () => ({ answer: answerWith(body) }));
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write(`GET /invoke/echo HTTP/1.1\r\n${HEAD}\r\n`);
  body.push('partial');
  await waitUntil(() => socket.bytesRead > 0);
  body.destroy(new FaasError('handler_error', { detail: 'raised after the first chunk' }));
  const text = await answer;
  t.true(text.includes('partial'));
  t.false(text.includes('raised'));
  t.false(text.endsWith('0\r\n\r\n'));
});

test('a caller who leaves a stream stops its production', async (t) => {
  await using fixture = await startGateway();
  const body = new Readable({ read: () => undefined });
  fixture.table.serve('echo', async () => ({ answer: answerWith(body) }));
  const response = await open(`${fixture.url}/invoke/echo`);
  body.push('one');
  await once(response, 'data');
  response.destroy();
  await waitUntil(() => body.destroyed);
  t.pass();
});

test('a slow reader stops the production, and reads everything in the end', async (t) => {
  await using fixture = await startGateway();
  const chunk = Buffer.alloc(64 * 1024, 'x');
  const chunks = 1000;
  let produced = 0;
  const body = new Readable({
    read() {
      produced += 1;
      this.push(produced > chunks ? null : chunk);
    },
  });
  fixture.table.serve('echo', async () => ({ answer: answerWith(body) }));
  const response = await open(`${fixture.url}/invoke/echo`);
  let before = -1;
  // Production stands still once every buffer on the way is full.
  await waitUntil(async () => {
    const isStill = produced === before;
    before = produced;
    await new Promise((resolve) => setTimeout(resolve, 50));
    return isStill && produced > 1;
  });
  t.true(produced < chunks / 2, `${produced} of ${chunks} chunks were made although nobody reads`);
  let receivedBytes = 0;
  for await (const part of response) receivedBytes += (part as Buffer).length;
  t.is(receivedBytes, chunks * chunk.length);
});

test('HEAD of a streaming function answers at once and lets the handler run out', async (t) => {
  await using fixture = await startGateway();
  let isRunOut = false;
  const body = Readable.from(
    (async function* () {
      yield 'one';
      yield 'two';
      isRunOut = true;
    })(),
  );
  fixture.table.serve('echo', async () => ({ answer: answerWith(body) }));
  const reply = await call(`${fixture.url}/invoke/echo`, { method: 'HEAD' });
  t.is(reply.status, 200);
  t.is(reply.text, '');
  await waitUntil(() => isRunOut);
});

test('the signal of a call tells when its caller left, and not when it was answered', async (t) => {
  await using fixture = await startGateway();
  let signal: CallSignal | undefined;
  let wasAborted: boolean | undefined;
  fixture.table.serve('wait', async (invocation) => {
    signal = invocation.signal;
    await new Promise<void>((resolve) => signal?.addEventListener('abort', resolve));
    wasAborted = true;
    throw new FaasError('cancelled');
  });
  const socket = await connectTo(fixture.port);
  socket.write(`GET /invoke/wait HTTP/1.1\r\n${HEAD}\r\n`);
  await waitUntil(() => signal !== undefined);
  socket.destroy();
  await waitUntil(() => wasAborted === true);
  t.true(signal?.aborted);

  let answered: CallSignal | undefined;
  fixture.table.serve('echo', async (invocation) => {
    answered = invocation.signal;
    return { answer: answerWith('done') };
  });
  t.is((await call(`${fixture.url}/invoke/echo`)).text, 'done');
  t.false(answered?.aborted);
});

test('a stream for a caller who has left already is destroyed', async (t) => {
  await using fixture = await startGateway();
  const body = new Readable({ read: () => undefined });
  const release = Promise.withResolvers<void>();
  let isClosed = false;
  fixture.table.serve('wait', async (invocation) => {
    invocation.signal?.addEventListener('abort', () => (isClosed = true));
    await release.promise;
    return { answer: answerWith(body) };
  });
  const socket = await connectTo(fixture.port);
  socket.write(`GET /invoke/wait HTTP/1.1\r\n${HEAD}\r\n`);
  await waitUntil(() => socket.bytesWritten > 0);
  setTimeout(() => socket.destroy(), 20);
  await waitUntil(() => isClosed);
  release.resolve();
  await waitUntil(() => body.destroyed);
  t.pass();
});
