import { access } from 'node:fs/promises';
import test from 'ava';
import type { PushHandler } from '../../../src/repo/push/push-handler.ts';
import { judgeRefUpdates } from '../../../src/repo/push/ref-rules.ts';
import { cloneRepository, runClient } from '../../support/git-client.ts';
import { PUSH_CONTENT_TYPE, rawPushBody } from '../../support/raw-push.ts';
import { startPushServer, type PushServer } from '../../support/push-server.ts';

/** A handler that judges refs with the objects still in quarantine, as the daemon does. */
function judging(server: () => PushServer): Partial<PushHandler> {
  return {
    preReceive: async (push, say) => {
      const refusals = await judgeRefUpdates(server().git, push, 'refs/heads/main');
      for (const refusal of refusals) say(refusal);
      return refusals.length === 0;
    },
  };
}

test('which refs a push may move is decided with the objects still in quarantine', async (t) => {
  const server: PushServer = await startPushServer(t, { handler: judging(() => server) });
  const { repository } = server;
  await repository.git(['update-ref', 'refs/gitfaas/applied/1', 'HEAD']);
  const clone = await cloneRepository(t, server.url);
  const base = await clone.git(['rev-parse', 'HEAD']);
  const tip = await clone.commit({ a: 'new' });
  await clone.git(['checkout', '-q', '--orphan', 'other']);
  const orphan = await clone.commit({ b: 'orphan' });

  const rows: [string[], RegExp | undefined][] = [
    [[`${tip}:refs/heads/main`], undefined],
    [[`+${orphan}:refs/heads/main`], /only fast-forwards/],
    [[':refs/heads/main'], /cannot be deleted/],
    [[`${orphan}:refs/replace/${base}`], /only branches/],
    [[`${orphan}:refs/notes/commits`], /only branches/],
    [[`${orphan}:refs/gitfaas/x`], /deny updating a hidden ref|only branches/],
    [[`${orphan}:refs/heads/-x`], /dash/],
    [[`${orphan}:refs/heads/preview`, `${base}:refs/tags/v1`], undefined],
    [[`+${base}:refs/heads/preview`], undefined],
    [[':refs/heads/preview', ':refs/tags/v1'], undefined],
    // One bad ref holds the whole push back: pre-receive is asked once.
    [[`${orphan}:refs/heads/fine`, ':refs/heads/main'], /cannot be deleted/],
  ];
  for (const [refs, refusal] of rows) {
    const push = await runClient(clone.directory, ['push', 'origin', ...refs]);
    t.is(push.code, refusal === undefined ? 0 : 1, `${refs.join(' ')}: ${push.stderr}`);
    if (refusal !== undefined) t.regex(push.stderr, refusal);
  }
  t.is(
    await repository.git(['for-each-ref', '--format=%(refname) %(objectname)', 'refs/heads', 'refs/tags', 'refs/replace']),
    `refs/heads/main ${tip}`,
  );
  t.deepEqual(server.errors, []);
});

test('hidden refs are neither shown nor moved, and a repository cannot unhide them', async (t) => {
  const server = await startPushServer(t);
  const { repository } = server;
  await repository.git(['update-ref', 'refs/gitfaas/applied/1', 'HEAD']);
  await repository.git(['config', 'transfer.hideRefs', '!refs/gitfaas']);
  await repository.git(['config', 'receive.hideRefs', '!refs/gitfaas']);
  for (const version of ['0', '2']) {
    const listing = await runClient(repository.directory, ['-c', `protocol.version=${version}`, 'ls-remote', server.url]);
    t.regex(listing.stdout, /refs\/heads\/main/);
    t.notRegex(listing.stdout, /gitfaas/, `protocol ${version}`);
  }
  const push = await runClient(repository.directory, [
    'push',
    server.url,
    'HEAD:refs/gitfaas/applied/2',
    ':refs/gitfaas/applied/1',
  ]);
  t.is(push.code, 1);
  t.is(await repository.git(['for-each-ref', '--format=%(refname)', 'refs/gitfaas']), 'refs/gitfaas/applied/1');
});

test('programs named in the repository configuration are not run by a push or a fetch', async (t) => {
  const server = await startPushServer(t);
  const { repository } = server;
  const evil = `${repository.directory}/evil`;
  await repository.write({ 'evil.sh': { executable: `#!/bin/sh\necho ran "$0" "$@" >> ${evil}\nexit 1\n` } });
  const program = `${repository.directory}/evil.sh`;
  await repository.write({
    '.git/hooks/pre-receive': { executable: `#!/bin/sh\nexec ${program}\n` },
    '.git/hooks/update': { executable: `#!/bin/sh\nexec ${program}\n` },
    '.git/hooks/post-update': { executable: `#!/bin/sh\nexec ${program}\n` },
    '.git/hooks/reference-transaction': { executable: `#!/bin/sh\nexec ${program}\n` },
  });
  for (const key of [
    'core.fsmonitor',
    'core.alternateRefsCommand',
    'uploadpack.packObjectsHook',
    'gpg.program',
    'core.sshCommand',
  ])
    await repository.git(['config', key, program]);
  await repository.git(['config', 'core.hooksPath', `${repository.directory}/.git/hooks`]);
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'new' });
  await clone.git(['push', '-q', 'origin', 'main']);
  await t.throwsAsync(access(evil), { code: 'ENOENT' });
  t.is(server.post.length, 1);
  t.deepEqual(server.stderr, []);
});

test('ref names that no client would send are refused and shown harmless', async (t) => {
  const server: PushServer = await startPushServer(t, { handler: judging(() => server) });
  const oid = await server.repository.git(['rev-parse', 'main']);
  const none = '0'.repeat(40);
  const before = await server.repository.git(['for-each-ref']);
  const rows = [
    'refs/heads/\xff\xfe',
    'refs/heads/a\u001b[31m',
    'refs/heads/../../config',
    'refs/heads/.git',
    'refs/heads/a\\b',
    'refs/heads/--output=x',
    'refs/../heads/a',
    'HEAD',
    'config',
    '/etc/passwd',
    // Two lines for the hook out of one for git.
    `refs/heads/fine\n${oid} ${none} refs/heads/main`,
    `refs/heads/fine\nrubbish`,
  ];
  for (const ref of rows) {
    const body = rawPushBody([`${none} ${oid} ${ref}`]);
    const answer = await fetch(`${server.url}/git-receive-pack`, {
      method: 'POST',
      headers: { 'Content-Type': PUSH_CONTENT_TYPE },
      body,
    });
    const text = await answer.text();
    t.notRegex(text, /^.{0,9}ok refs/m, JSON.stringify(ref));
    t.is(await server.repository.git(['for-each-ref']), before, JSON.stringify(ref));
  }
  const aliased = await server.repository.git(['symbolic-ref', 'refs/heads/alias', 'refs/heads/main']);
  t.is(aliased, '');
  const child = await server.repository.git(['commit-tree', '-m', 'x', '-p', oid, `${oid}^{tree}`]);
  const body = rawPushBody([`${oid} ${child} refs/heads/alias`]);
  await fetch(`${server.url}/git-receive-pack`, { method: 'POST', headers: { 'Content-Type': PUSH_CONTENT_TYPE }, body });
  t.is(await server.repository.git(['rev-parse', 'main']), oid);
  t.is(server.post.length, 0);
});
