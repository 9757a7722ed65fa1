import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { FaasError } from '../../../src/errors.ts';
import { cloneRepository, runClient } from '../../support/git-client.ts';
import { startPushServer } from '../../support/push-server.ts';

test('a clone, a fetch and a push of the checked-out branch work, and both hooks speak to the pusher', async (t) => {
  const server = await startPushServer(t, {
    handler: {
      preReceive: async (_push, say) => {
        say('checked echo\nchecked two lines');
        return true;
      },
      postReceive: async (_push, say) => say('live: echo'),
    },
  });
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ 'functions/echo/handler.py': 'two\n' });
  const push = await runClient(clone.directory, ['push', '-o', 'plan', '-o', 'two words', 'origin', 'main']);

  t.is(push.code, 0, push.stderr);
  t.regex(push.stderr, /remote: checked echo\s*\nremote: checked two lines\s*\nremote: live: echo/);
  t.is(await server.repository.git(['rev-parse', 'refs/heads/main']), tip);
  const [update] = server.pre[0]?.updates ?? [];
  t.is(update?.ref, 'refs/heads/main');
  t.is(update?.newOid, tip);
  t.deepEqual(server.pre[0]?.options, ['plan', 'two words']);
  t.is(server.pre[0]?.keyName, 'ada');
  t.true(server.pre[0]?.environment['GIT_OBJECT_DIRECTORY']?.startsWith(join(server.repository.directory, '.git')));
  t.deepEqual(server.post[0]?.updates, server.pre[0]?.updates);
  t.deepEqual(server.post[0]?.environment, {});
  t.is(server.post[0]?.callId, server.pre[0]?.callId);
  t.deepEqual(server.errors, []);

  const other = await cloneRepository(t, server.url);
  t.is(await other.git(['rev-parse', 'HEAD']), tip);
  await clone.commit({ 'functions/echo/handler.py': 'three\n' });
  await clone.git(['push', '-q', 'origin', 'main']);
  t.is((await runClient(other.directory, ['pull', '-q', '--ff-only'])).code, 0);
});

test('a refused push shows every line, moves nothing and leaves no quarantine', async (t) => {
  const server = await startPushServer(t, {
    handler: {
      preReceive: async (_push, say) => {
        say('functions/a/handler.py:1:1: bad \u001b[31m');
        say('faas_config.yaml:2:3: worse');
        return false;
      },
    },
  });
  const before = await server.repository.git(['rev-parse', 'main']);
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ 'functions/echo/handler.py': 'two\n' });
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(push.code, 1);
  t.regex(push.stderr, /remote: functions\/a\/handler\.py:1:1: bad \\u\{1b\}\[31m\s*\nremote: faas_config\.yaml:2:3: worse/);
  t.regex(push.stderr, /pre-receive hook declined/);
  t.is(await server.repository.git(['rev-parse', 'main']), before);
  t.is(server.post.length, 0);
  t.deepEqual(
    (await readdir(join(server.repository.directory, '.git/objects'))).filter((name) => name.startsWith('tmp')),
    [],
  );
});

test('an error of the handler refuses the push with its problems, detail and fix', async (t) => {
  const server = await startPushServer(t, {
    handler: {
      preReceive: async () => {
        throw new FaasError('invalid_revision', {
          detail: 'There is one problem.',
          problems: [{ file: 'faas_config.yaml', line: 4, column: 2, message: 'unknown key' }],
        });
      },
    },
  });
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(push.code, 1);
  t.regex(push.stderr, /faas_config\.yaml:4:2: unknown key/);
  t.regex(push.stderr, /There is one problem\./);
  t.regex(push.stderr, /Correct every listed problem; nothing was changed\./);
});

test('an error after the refs moved is shown loudly, and the push stands', async (t) => {
  const server = await startPushServer(t, {
    handler: {
      postReceive: async () => {
        throw new Error('secret inner text');
      },
    },
  });
  const clone = await cloneRepository(t, server.url);
  const tip = await clone.commit({ a: 'b' });
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(push.code, 0);
  t.regex(push.stderr, /YOUR PUSH IS STORED, BUT IT IS NOT LIVE/);
  t.notRegex(push.stderr, /secret inner text/);
  t.is(await server.repository.git(['rev-parse', 'main']), tip);
  t.is(server.errors[0]?.code, 'internal');
});
