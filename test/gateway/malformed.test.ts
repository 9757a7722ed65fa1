import test from 'ava';
import { answerWith, startGateway } from '../support/gateway-fixture.ts';
import { call, connectTo, sendRaw } from '../support/http-client.ts';

const HEAD = 'Host: x\r\nAuthorization: Bearer demo-key\r\n';
const POST = `POST /invoke/echo HTTP/1.1\r\n${HEAD}`;

// Several rows follow the case list of Http11Probe.
const malformed: readonly [string, string, string][] = [
  [
    'Content-Length together with Transfer-Encoding',
    `${POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    '400',
  ],
  ['two different lengths', `${POST}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde`, '400'],
  ['a length that is no number', `${POST}Content-Length: +4\r\n\r\nabcd`, '400'],
  ['a negative length', `${POST}Content-Length: -1\r\n\r\n`, '400'],
  ['an unknown transfer coding', `${POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`, '400'],
  ['a transfer coding after chunked', `${POST}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`, '400'],
  ['a chunk size that is none', `${POST}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n`, '400'],
  ['a chunk longer than it says', `${POST}Transfer-Encoding: chunked\r\n\r\n2\r\nabcdef\r\n0\r\n\r\n`, '400'],
  ['a NUL in a header', `GET /invoke/echo HTTP/1.1\r\n${HEAD}X-A: a\0b\r\n\r\n`, '400'],
  ['a NUL in the target', `GET /invoke/echo\0 HTTP/1.1\r\n${HEAD}\r\n`, '400'],
  ['a space before the colon', `GET /invoke/echo HTTP/1.1\r\n${HEAD}X-A : a\r\n\r\n`, '400'],
  ['a folded header', `GET /invoke/echo HTTP/1.1\r\n${HEAD}X-A: a\r\n b\r\n\r\n`, '400'],
  ['no Host', 'GET /invoke/echo HTTP/1.1\r\n\r\n', '400'],
  ['a bare line feed as line end', 'GET /invoke/echo HTTP/1.1\nHost: x\n\n', '400'],
  ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n\r\n', '400'],
  ['a TLS greeting', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', '400'],
  ['an unknown method', `BREW /invoke/echo HTTP/1.1\r\n${HEAD}\r\n`, '400'],
  ['an unknown version', `GET /invoke/echo HTTP/9.9\r\n${HEAD}\r\n`, '400'],
  ['a head that is too large', `GET /invoke/echo HTTP/1.1\r\n${HEAD}X-A: ${'a'.repeat(20_000)}\r\n\r\n`, '431'],
  ['a target that is too long', `GET /invoke/echo?${'a'.repeat(20_000)} HTTP/1.1\r\n${HEAD}\r\n`, '431'],
];
for (const [what, bytes, status] of malformed) {
  test(`${what} is answered ${status} in valid HTTP, and the daemon goes on`, async (t) => {
    await using fixture = await startGateway();
    let calls = 0;
    fixture.table.serve('echo', async () => {
      calls += 1;
      return { answer: answerWith('ran') };
    });
    const answer = await sendRaw(fixture.port, Buffer.from(bytes, 'latin1'));
    t.true(answer.startsWith(`HTTP/1.1 ${status} `), answer);
    t.regex(answer, /\r\nConnection: close\r\n/i);
    t.is(answer.split('HTTP/1.1 ').length, 2, 'one answer and no more');
    t.is(calls, 0);
    t.is((await call(`${fixture.url}/health`)).status, 200);
  });
}

test('a connection that sends nothing sensible and leaves does no harm', async (t) => {
  await using fixture = await startGateway();
  await Promise.all(
    ['', '\r\n', 'G', 'GET / HTTP/1.1\r\nHost'].map(async (bytes) => {
      const socket = await connectTo(fixture.port);
      socket.end(bytes);
      socket.resume();
      await new Promise((resolve) => socket.once('close', resolve));
    }),
  );
  t.is((await call(`${fixture.url}/health`)).status, 200);
});

test('more headers than Node would keep are all seen', async (t) => {
  await using fixture = await startGateway();
  let count = 0;
  fixture.table.serve('echo', async ({ headers }) => {
    count = headers.filter((text) => text === 'a').length;
    return { answer: answerWith('ok') };
  });
  await sendRaw(fixture.port, `GET /invoke/echo HTTP/1.1\r\n${HEAD}Connection: close\r\n${'a:1\r\n'.repeat(2500)}\r\n`);
  t.is(count, 2500);
});

test('a target with the host in it is taken like its path, and other forms are answered 404', async (t) => {
  await using fixture = await startGateway();
  const end = `${HEAD}Connection: close\r\n\r\n`;
  t.regex(await sendRaw(fixture.port, `GET http://other/invoke/echo?q HTTP/1.1\r\n${end}`), /^HTTP\/1\.1 200 /);
  t.regex(await sendRaw(fixture.port, `GET http://other HTTP/1.1\r\n${end}`), /^HTTP\/1\.1 404 /);
  t.regex(await sendRaw(fixture.port, `OPTIONS * HTTP/1.1\r\n${end}`), /^HTTP\/1\.1 404 /);
  t.regex(await sendRaw(fixture.port, `GET ftp://other/invoke/echo HTTP/1.1\r\n${end}`), /^HTTP\/1\.1 404 /);
});

test('HTTP/1.0 is answered, and its connection closed', async (t) => {
  await using fixture = await startGateway();
  t.regex(
    await sendRaw(fixture.port, `POST /invoke/echo HTTP/1.0\r\n${HEAD}Content-Length: 2\r\n\r\nhi`),
    /^HTTP\/1\.1 200 [^]*\r\n\r\nhi$/,
  );
});
