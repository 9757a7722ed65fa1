import { randomBytes } from 'node:crypto';
import { chown, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { cloneRepository, runClient } from '../../support/git-client.ts';
import { makeRepository } from '../../support/git-repository.ts';
import { PUSH_CONTENT_TYPE, rawPushBody } from '../../support/raw-push.ts';
import { startPushServer } from '../../support/push-server.ts';

for (const version of ['0', '1', '2'])
  test(`clone, fetch and push work with protocol version ${version}`, async (t) => {
    const server = await startPushServer(t);
    const clone = await cloneRepository(t, server.url, ['-c', `protocol.version=${version}`]);
    const tip = await clone.commit({ a: version });
    await clone.git(['push', '-q', 'origin', 'main']);
    t.is(await server.repository.git(['rev-parse', 'main']), tip);
    t.is(server.requests[0]?.headers['git-protocol'], version === '0' ? undefined : `version=${version}`);
  });

test('a shallow clone may push', async (t) => {
  const server = await startPushServer(t);
  await server.repository.commit({ b: 'second' });
  const clone = await cloneRepository(t, server.url, ['--depth=1']);
  t.is(await clone.git(['rev-list', '--count', 'HEAD']), '1');
  const tip = await clone.commit({ c: 'third' });
  await clone.git(['push', '-q', 'origin', 'main']);
  t.is(await server.repository.git(['rev-parse', 'main']), tip);
  t.is((await runClient(server.repository.directory, ['fsck', '--strict'])).code, 0);
});

test('a first push into a repository without commits works', async (t) => {
  const repository = await makeRepository(t);
  const server = await startPushServer(t, { repository });
  const local = await makeRepository(t);
  const tip = await local.commit({ a: 'b' });
  await local.git(['push', '-q', server.url, 'main']);
  t.is(await repository.git(['rev-parse', 'main']), tip);
  t.deepEqual(server.pre[0]?.updates, [{ oldOid: undefined, newOid: tip, ref: 'refs/heads/main' }]);
});

test('a push of several MiB comes chunked and arrives whole', async (t) => {
  const server = await startPushServer(t);
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ big: randomBytes(6 * 1024 * 1024) });
  await clone.git(['push', '-q', 'origin', 'main']);
  const push = server.requests.findLast(({ method }) => method === 'POST');
  t.is(push?.headers['transfer-encoding'], 'chunked');
  t.is(push?.headers['content-length'], undefined);
  t.is(await server.repository.git(['rev-parse', 'main']), tip);
  t.is((await runClient(server.repository.directory, ['fsck', '--strict'])).code, 0);
});

test('a pack over the limit is refused with a reason and its quarantine is removed', async (t) => {
  const server = await startPushServer(t, { endpoint: { maxInputBytes: 1024 * 1024 } });
  const before = await server.repository.git(['rev-parse', 'main']);
  const clone = await cloneRepository(t, server.url);
  for (const [size, postBuffer] of [
    [3 * 1024 * 1024, '1048576'],
    [6 * 1024 * 1024, '1048576'],
    [3 * 1024 * 1024, '16777216'],
  ] as const) {
    await clone.commit({ big: randomBytes(size) });
    const push = await runClient(clone.directory, ['-c', `http.postBuffer=${postBuffer}`, 'push', 'origin', 'main']);
    t.is(push.code, 1, push.stderr);
    t.regex(push.stderr, /unpacker error/);
    t.regex(push.stderr, /exceeds maximum allowed size/);
  }
  t.is(server.pre.length, 0);
  t.is(await server.repository.git(['rev-parse', 'main']), before);
  t.deepEqual(
    (await readdir(join(server.repository.directory, '.git/objects'))).filter((name) => name.startsWith('tmp')),
    [],
  );
});

test('a body far beyond the limit is cut off', async (t) => {
  const server = await startPushServer(t, { endpoint: { maxInputBytes: 1024 } });
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ big: randomBytes(24 * 1024 * 1024) });
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.not(push.code, 0);
  t.is(server.pre.length, 0);
});

test('a fetch that negotiates with many commits comes gzipped and is understood', async (t) => {
  const server = await startPushServer(t);
  const clone = await cloneRepository(t, server.url, ['-c', 'protocol.version=0']);
  // Tags at unrelated commits: each is a "have" line, and together they exceed what git sends uncompressed.
  const names = Array.from({ length: 60 }, (_, index) => `t${index}`);
  for (const name of names) await clone.git(['tag', name, await clone.git(['commit-tree', '-m', name, 'HEAD^{tree}'])]);
  const tip = await server.repository.commit({ a: 'new' });
  t.is((await runClient(clone.directory, ['fetch', '-q', 'origin'])).code, 0);
  t.is(await clone.git(['rev-parse', 'origin/main']), tip);
  t.true(server.requests.some(({ headers }) => headers['content-encoding'] === 'gzip'));
});

test('a gzipped push of a client that compresses everything is understood', async (t) => {
  const server = await startPushServer(t);
  const oid = await server.repository.git(['rev-parse', 'main']);
  const body = rawPushBody([`${'0'.repeat(40)} ${oid} refs/heads/copy`]);
  const answer = await fetch(`${server.url}/git-receive-pack`, {
    method: 'POST',
    headers: { 'Content-Type': PUSH_CONTENT_TYPE, 'Content-Encoding': 'gzip' },
    body: gzipSync(body),
  });
  t.is(answer.status, 200);
  t.regex(await answer.text(), /unpack ok[^]*ok refs\/heads\/copy/);
  t.is(await server.repository.git(['rev-parse', 'refs/heads/copy']), oid);
});

test('a push with Expect: 100-continue and credentials works', async (t) => {
  const server = await startPushServer(t);
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ big: randomBytes(2 * 1024 * 1024) });
  const push = await runClient(clone.directory, ['-c', 'http.extraHeader=Expect: 100-continue', 'push', '-q', 'origin', 'main']);
  t.is(push.code, 0, push.stderr);
  t.is(server.requests.findLast(({ method }) => method === 'POST')?.headers['expect'], '100-continue');
  t.is(await server.repository.git(['rev-parse', 'main']), tip);
});

test('a SHA-256 repository is served too', async (t) => {
  const repository = await makeRepository(t, { objectFormat: 'sha256' });
  await repository.commit({ a: 'a' });
  const server = await startPushServer(t, { repository });
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ a: 'b' });
  await clone.git(['push', '-q', 'origin', 'main']);
  t.is(server.pre[0]?.updates[0]?.newOid, tip);
  t.is(tip.length, 64);
});

const asRoot = process.getuid?.() === 0 ? test : test.skip;
asRoot('a repository that belongs to another user than the daemon is served (needs root)', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ a: 'a' });
  for (const entry of ['', ...(await readdir(repository.directory, { recursive: true }))])
    await chown(join(repository.directory, entry), 65_534, 65_534);
  const server = await startPushServer(t, { repository });
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ a: 'b' });
  const push = await runClient(clone.directory, ['push', '-q', 'origin', 'main']);
  t.is(push.code, 0, push.stderr + server.stderr.join(''));
  const refs = await clone.git(['ls-remote', 'origin', 'refs/heads/main']);
  t.true(refs.startsWith(tip));
});
