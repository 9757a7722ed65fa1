import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { chmod, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { cloneRepository, runClient, startClient } from '../../support/git-client.ts';
import { killGroup } from '../../support/leftovers.ts';
import { startPushServer, type PushServer, type PushServerOptions } from '../../support/push-server.ts';
import { PUSH_CONTENT_TYPE } from '../../support/raw-push.ts';
import { waitUntil } from '../../support/wait-until.ts';

/** A server whose pre-receive waits for `go`. */
async function startGatedServer(
  t: ExecutionContext,
  options: PushServerOptions = {},
): Promise<{ server: PushServer; go: () => void }> {
  const gate = Promise.withResolvers<void>();
  const server = await startPushServer(t, {
    ...options,
    handler: {
      preReceive: async (_push, say) => {
        say('checking');
        await gate.promise;
        return true;
      },
      ...options.handler,
    },
  });
  return { server, go: () => gate.resolve() };
}

async function quarantines(server: PushServer): Promise<string[]> {
  return (await readdir(join(server.repository.directory, '.git/objects'))).filter((name) => name.startsWith('tmp'));
}

const refusals: [string, string, RequestInit, number, RegExp][] = [
  ['the dumb protocol', '/info/refs', {}, 403, /smart HTTP/],
  ['an unknown service', '/info/refs?service=git-evil', {}, 403, /smart HTTP/],
  ['another program', '/info/refs?service=upload-pack', {}, 403, /smart HTTP/],
  ['two services', '/info/refs?service=git-upload-pack&service=git-receive-pack', {}, 403, /smart HTTP/],
  ['a POST of the advertisement', '/info/refs?service=git-upload-pack', { method: 'POST' }, 405, /use GET/],
  ['a GET of a service', '/git-receive-pack', {}, 405, /use POST/],
  ['a wrong content type', '/git-receive-pack', { method: 'POST', body: '0000' }, 415, /Expected POST with Content-Type/],
  [
    'a form',
    '/git-upload-pack',
    { method: 'POST', headers: { 'Content-Type': 'application/x-www-form-urlencoded' }, body: 'a=b' },
    415,
    /./,
  ],
  [
    'an unknown compression',
    '/git-receive-pack',
    { method: 'POST', headers: { 'Content-Type': PUSH_CONTENT_TYPE, 'Content-Encoding': 'br' }, body: 'x' },
    415,
    /gzip only/,
  ],
  ['a file of the dumb protocol', '/HEAD', {}, 404, /^$/],
  ['an object of the dumb protocol', '/objects/info/packs', {}, 404, /^$/],
];
test('everything but the three calls of smart HTTP is refused with a reason', async (t) => {
  const server = await startPushServer(t);
  for (const [title, path, init, status, text] of refusals) {
    const answer = await fetch(server.url + path, init);
    t.is(answer.status, status, title);
    t.regex(await answer.text(), text, title);
  }
  t.is(server.pre.length, 0);
});

test('git that fails answers without a word of its own errors', async (t) => {
  const server = await startPushServer(t);
  await rm(join(server.repository.directory, '.git/HEAD'));
  const answer = await fetch(`${server.url}/info/refs?service=git-upload-pack`);
  t.is(answer.status, 404);
  t.notRegex(await answer.text(), /fatal|repository|tmp/);
  t.regex(server.stderr.join(''), /[Nn]ot a git repository/);
});

test('rubbish where a push should be moves nothing and is answered', async (t) => {
  const server = await startPushServer(t);
  const oid = await server.repository.git(['rev-parse', 'main']);
  const hostile = `${'0'.repeat(40)} ${oid} refs/heads/a\n${oid} ${'0'.repeat(40)} refs/heads/main\0report-status`;
  const line = `${(hostile.length + 4).toString(16).padStart(4, '0')}${hostile}0000`;
  for (const body of ['', '0000', 'zzzz', randomBytes(5000), `${line}PACK`, line]) {
    const answer = await fetch(`${server.url}/git-receive-pack`, {
      method: 'POST',
      headers: { 'Content-Type': PUSH_CONTENT_TYPE },
      body,
    });
    t.true([200, 500].includes(answer.status));
    t.notRegex(await answer.text(), /fatal/);
  }
  t.is(await server.repository.git(['for-each-ref', '--format=%(refname) %(objectname)']), `refs/heads/main ${oid}`);
  t.deepEqual(await quarantines(server), []);
});

test('a client killed during the hook does not stop the push, and the handler sees both halves', async (t) => {
  const { server, go } = await startGatedServer(t);
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ a: 'b' });
  const push = startClient(clone.directory, ['push', 'origin', 'main']);
  await waitUntil(() => server.pre.length === 1);
  killGroup(push.child.pid);
  await push.result;
  go();
  await waitUntil(() => server.post.length === 1);
  t.is(await server.repository.git(['rev-parse', 'main']), tip);
  t.deepEqual(await quarantines(server), []);
});

test('a client that leaves in the middle of its pack ends git, and nothing is left', async (t) => {
  const server = await startPushServer(t);
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ big: randomBytes(3 * 1024 * 1024) });
  const socket = connect(server.port, '127.0.0.1');
  await once(socket, 'connect');
  const oid = await clone.git(['rev-parse', 'HEAD']);
  const line = `${await server.repository.git(['rev-parse', 'main'])} ${oid} refs/heads/main\0report-status`;
  const body = `${(line.length + 4).toString(16).padStart(4, '0')}${line}0000PACK\0\0\0\u0002\0\0\0\u0005`;
  socket.write(
    `POST /git/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Type: ${PUSH_CONTENT_TYPE}\r\nContent-Length: 100000\r\n\r\n${body}`,
  );
  await waitUntil(async () => (await quarantines(server)).length === 1);
  socket.destroy();
  await waitUntil(async () => (await quarantines(server)).length === 0);
  t.is(server.pre.length, 0);
  t.is((await runClient(clone.directory, ['push', '-q', 'origin', 'main'])).code, 0, 'the next push has its turn');
});

test('a client that falls silent in the middle of its pack is disconnected', async (t) => {
  const server = await startPushServer(t, { endpoint: { silenceMs: 300 } });
  const socket = connect(server.port, '127.0.0.1');
  socket.write(
    `POST /git/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Type: ${PUSH_CONTENT_TYPE}\r\nContent-Length: 100000\r\n\r\n0`,
  );
  await once(socket.resume(), 'close');
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  t.is((await runClient(clone.directory, ['push', '-q', 'origin', 'main'])).code, 0, 'the next push has its turn');
});

test('a handler that decides slowly is no silence', async (t) => {
  const { server, go } = await startGatedServer(t, { endpoint: { silenceMs: 1_500 } });
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const push = startClient(clone.directory, ['push', 'origin', 'main']);
  await waitUntil(() => server.pre.length === 1);
  // Two silences and a bit: there is no condition to wait for when nothing should happen.
  await new Promise((resolve) => setTimeout(resolve, 3_500));
  go();
  t.is((await push.result).code, 0);
});

test('a handler that never decides is given up, and the push is refused', async (t) => {
  const { server } = await startGatedServer(t, { handlerMaxMs: 200 });
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(push.code, 1);
  t.regex(push.stderr, /not decided within 0\.2 s/);
});

test('lines of a slow handler reach the pusher while it decides', async (t) => {
  const { server, go } = await startGatedServer(t);
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const push = startClient(clone.directory, ['push', 'origin', 'main']);
  let seen = '';
  push.child.stderr?.on('data', (text: string) => (seen += text));
  await waitUntil(() => /remote: checking/.test(seen));
  go();
  t.is((await push.result).code, 0);
});

test('pushes take turns, and one more than may wait is told to come back', async (t) => {
  const { server, go } = await startGatedServer(t, { endpoint: { pushTurns: { running: 1, waiting: 1, waitMaxMs: 60_000 } } });
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const posts = () => server.requests.filter(({ method }) => method === 'POST').length;
  const cloned = posts();
  const first = startClient(clone.directory, ['push', 'origin', 'main:refs/heads/one']);
  await waitUntil(() => server.pre.length === 1);
  const second = startClient(clone.directory, ['push', 'origin', 'main:refs/heads/two']);
  await waitUntil(() => posts() === cloned + 2);
  const third = await runClient(clone.directory, ['push', 'origin', 'main:refs/heads/three']);
  t.not(third.code, 0);
  t.regex(third.stderr, /503/);
  t.is((await runClient(clone.directory, ['fetch', '-q'])).code, 0, 'reading goes on meanwhile');
  t.is(server.pre.length, 1);
  go();
  t.is((await first.result).code, 0);
  t.is((await second.result).code, 0);
  t.deepEqual(
    server.pre.map(({ updates }) => updates[0]?.ref),
    ['refs/heads/one', 'refs/heads/two'],
  );
});

test('a push that waited too long, or whose client left while it waited, frees its place', async (t) => {
  const { server, go } = await startGatedServer(t, { endpoint: { pushTurns: { running: 1, waiting: 1, waitMaxMs: 300 } } });
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const posts = () => server.requests.filter(({ method }) => method === 'POST').length;
  const first = startClient(clone.directory, ['push', 'origin', 'main:refs/heads/one']);
  await waitUntil(() => server.pre.length === 1);
  const before = posts();
  const left = startClient(clone.directory, ['push', 'origin', 'main:refs/heads/two']);
  await waitUntil(() => posts() === before + 1);
  killGroup(left.child.pid);
  await left.result;
  const late = await runClient(clone.directory, ['push', 'origin', 'main:refs/heads/three']);
  t.regex(late.stderr, /503/);
  go();
  t.is((await first.result).code, 0);
  t.is(server.pre.length, 1);
});

test('of two pushes from the same base one wins, the other is told', async (t) => {
  const { server, go } = await startGatedServer(t);
  const base = await server.repository.git(['rev-parse', 'main']);
  const clones = [await cloneRepository(t, server.url), await cloneRepository(t, server.url)];
  const pushes = [];
  for (const [index, clone] of clones.entries()) {
    await clone.commit({ a: String(index) });
    pushes.push(startClient(clone.directory, ['push', 'origin', 'main']));
  }
  await waitUntil(() => server.pre.length === 1);
  await waitUntil(() => server.requests.filter(({ url }) => url?.includes('git-receive-pack') === true).length >= 4);
  go();
  const codes = (await Promise.all(pushes.map(({ result }) => result))).map(({ code }) => code);
  t.deepEqual(codes.toSorted(), [0, 1]);
  t.is(server.post.length, 1);
  t.is(await server.repository.git(['rev-parse', 'main^']), base);
});

test('without runnable hooks a push is refused before it starts, never accepted unseen', async (t) => {
  const server = await startPushServer(t);
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const before = await server.repository.git(['rev-parse', 'main']);
  await chmod(join(server.hooks.hooksDirectory, 'pre-receive'), 0o600);
  t.not((await runClient(clone.directory, ['push', 'origin', 'main'])).code, 0);
  await rm(join(server.hooks.hooksDirectory, 'pre-receive'));
  t.not((await runClient(clone.directory, ['push', 'origin', 'main'])).code, 0);
  t.is(server.errors[0]?.code, 'storage_failed');
  t.is(await server.repository.git(['rev-parse', 'main']), before);
});

test('a stopping endpoint lets a decided push finish, cuts the others off and takes no more', async (t) => {
  const { server, go } = await startGatedServer(t);
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ a: 'b' });
  const push = startClient(clone.directory, ['push', 'origin', 'main']);
  await waitUntil(() => server.pre.length === 1);
  const reading = httpRequest(`${server.url}/git-upload-pack`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-git-upload-pack-request', 'Transfer-Encoding': 'chunked' },
  });
  reading.write('0032');
  // Cut off when git ran already, refused when it was about to.
  const cut = new Promise<void>((resolve) => {
    reading.on('error', () => resolve());
    reading.on('response', () => resolve());
  });
  await waitUntil(() => server.requests.at(-1)?.url === '/git/git-upload-pack');
  const stopped = server.endpoint[Symbol.asyncDispose]();
  await cut;
  const refused = await fetch(`${server.url}/info/refs?service=git-upload-pack`);
  t.is(refused.status, 503);
  go();
  await stopped;
  t.is((await push.result).code, 0);
  t.is(await server.repository.git(['rev-parse', 'main']), tip);
});

test('clients in a hurry: many clones at once are all served', async (t) => {
  const server = await startPushServer(t, { endpoint: { readTurns: { running: 2, waiting: 64, waitMaxMs: 60_000 } } });
  const listings = await Promise.all(
    Array.from({ length: 6 }, () => runClient(server.repository.directory, ['ls-remote', server.url])),
  );
  t.deepEqual(
    listings.map(({ code }) => code),
    [0, 0, 0, 0, 0, 0],
  );
});
