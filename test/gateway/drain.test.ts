import { once } from 'node:events';
import { Agent } from 'node:http';
import { Readable } from 'node:stream';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { answerWith, startGateway } from '../support/gateway-fixture.ts';
import { call, connectTo, open, readUntilEnd } from '../support/http-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const HEAD = 'Host: x\r\nAuthorization: Bearer demo-key\r\n';

test('a port that is taken is named', async (t) => {
  await using first = await startGateway();
  await using second = await startGateway();
  await second.gateway.close(0);
  const { gateway } = await startGateway();
  await gateway.close(0);
  const error = await t.throwsAsync(gateway.listen('127.0.0.1', first.port), { instanceOf: FaasError });
  t.is(error.code, 'port_in_use');
  t.true(error.detail.includes(String(first.port)));
});

test('an address that is not ours is refused with its reason', async (t) => {
  await using fixture = await startGateway();
  await fixture.gateway.close(0);
  const error = await t.throwsAsync(fixture.gateway.listen('203.0.113.1', 0), { instanceOf: FaasError });
  t.is(error.code, 'usage');
});

test('while draining, running calls finish and say Connection: close, and nothing new is accepted', async (t) => {
  const fixture = await startGateway();
  const release = Promise.withResolvers<void>();
  let isRunning = false;
  fixture.table.serve('slow', async () => {
    isRunning = true;
    await release.promise;
    return { answer: answerWith('finished') };
  });
  const agent = new Agent({ keepAlive: true });
  const running = call(`${fixture.url}/invoke/slow`, { agent });
  await waitUntil(() => isRunning);
  const closing = fixture.gateway.close(10_000);
  t.true(fixture.gateway.isDraining);
  await t.throwsAsync(connectTo(fixture.port), { message: /ECONNREFUSED/ });
  release.resolve();
  const reply = await running;
  t.is(reply.text, 'finished');
  t.is(reply.headers.connection, 'close');
  await closing;
  await fixture.gateway.close(0);
  agent.destroy();
});

test('a new request on a kept connection is answered 503 draining, also for health', async (t) => {
  for (const [path, expected] of [
    ['/invoke/echo', '"code":"draining"'],
    ['/functions', '"code":"draining"'],
    ['/git/info/refs', '"code":"draining"'],
    ['/health', '"status":"draining"'],
  ] as const) {
    const fixture = await startGateway();
    const body = new Readable({ read: () => undefined });
    fixture.table.serve('stream', async () => ({ answer: answerWith(body) }));
    const socket = await connectTo(fixture.port);
    const answer = readUntilEnd(socket);
    // The head of the first answer is out before the drain begins, so it could not say that the connection closes.
    socket.write(`GET /invoke/stream HTTP/1.1\r\n${HEAD}\r\n`);
    await waitUntil(() => socket.bytesRead > 0);
    const closing = fixture.gateway.close(10_000);
    socket.write(`GET ${path} HTTP/1.1\r\n${HEAD}\r\n`);
    body.push('streamed');
    body.push(null);
    const text = await answer;
    t.regex(text, /^HTTP\/1\.1 200 [^]*streamed[^]*HTTP\/1\.1 503 [^]*$/, path);
    t.true(text.includes(expected), text);
    t.regex(text, /Retry-After: 5\r\n/i);
    t.regex(text, /Connection: close\r\n/i);
    await closing;
  }
});

test('idle connections, also those that never sent anything, do not hold the drain up', async (t) => {
  const fixture = await startGateway();
  const agent = new Agent({ keepAlive: true });
  await call(`${fixture.url}/invoke/echo`, { agent });
  const silent = await connectTo(fixture.port);
  const silentEnd = readUntilEnd(silent);
  await call(`${fixture.url}/health`);
  const startMs = performance.now();
  await fixture.gateway.close(30_000);
  t.true(performance.now() - startMs < 5000);
  t.is(await silentEnd, '');
  agent.destroy();
});

test('what is still running after the grace is cut, and the drain ends', async (t) => {
  const fixture = await startGateway();
  const body = new Readable({ read: () => undefined });
  fixture.table.serve('endless', async () => ({ answer: answerWith(body) }));
  const response = await open(`${fixture.url}/invoke/endless`);
  body.push('one');
  await once(response, 'data');
  await fixture.gateway.close(50);
  await t.throwsAsync(async () => {
    for await (const chunk of response) t.truthy(chunk);
  });
  await waitUntil(() => body.destroyed);
});

test('a head that never ends is cut off', async (t) => {
  await using fixture = await startGateway({ options: { headersTimeoutMs: 100 } });
  const socket = await connectTo(fixture.port);
  const answer = readUntilEnd(socket);
  socket.write('GET /health HTTP/1.1\r\nHost: x\r\n');
  t.regex(await answer, /^HTTP\/1\.1 408 /);
});
