import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { statusWhen } from '../support/daemon-view.ts';
import { asOrdinaryUser, giveAway } from '../support/foreign-hosts.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import { testNeeding } from '../support/requirements.ts';
import { waitUntil } from '../support/wait-until.ts';
import { makeWheel, servePackages } from '../support/wheels.ts';

const USING = 'import greeting\ndef handle(request):\n    return {"says": greeting.TEXT}\n';
const wheel = (version: string, text: string) => makeWheel('greeting', version, { 'greeting.py': `TEXT = "${text}"\n` });
const gitUrl = (daemon: DaemonProcess): string => `http://git:demo-key@127.0.0.1:${daemon.port}/git`;

// One after the other: each runs a daemon or three and several installers.
test.serial('a pushed function with a dependency is installed in sight of the pusher and answers', async (t) => {
  await using index = await servePackages(wheel('1.0', 'one'), wheel('2.0', 'two'));
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory, { env: { PIP_INDEX_URL: index.url } });
  const clone = await cloneRepository(t, gitUrl(daemon));
  const config = 'functions:\n  greet:\n    dependencies: [greeting==1.0]\n';
  await clone.commit({ 'functions/greet/handler.py': USING, 'faas_config.yaml': config }, 'greet');
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(push.code, 0, push.stderr);
  t.regex(push.stderr, /installing the dependencies of greet/);
  t.regex(push.stderr, /Collecting greeting==1\.0/);
  t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'one' });

  // Two versions of a package beside each other; equal wishes share one installation.
  const requested = index.requests.length;
  await clone.commit(
    {
      'functions/other/handler.py': USING,
      'functions/other/requirements.txt': 'greeting==2.0\n',
      'functions/same/handler.py': USING,
      'functions/same/requirements.txt': '# as greet\nGreeting == 1.0\n',
    },
    'more',
  );
  const second = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(second.code, 0, second.stderr);
  t.false(/dependencies of same/.test(second.stderr), second.stderr);
  for (const [name, says] of [
    ['greet', 'one'],
    ['same', 'one'],
    ['other', 'two'],
  ] as const) {
    t.deepEqual((await daemon.call(`/invoke/${name}`)).json(), { says }, name);
  }
  t.true(index.requests.length > requested);
  t.false(index.requests.slice(requested).some((path) => path.includes('greeting-1.0')));
});

test.serial('a dependency that does not exist refuses the push with the last lines of the installer and its place', async (t) => {
  await using index = await servePackages(wheel('1.0', 'one'));
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory, { env: { PIP_INDEX_URL: index.url } });
  const clone = await cloneRepository(t, gitUrl(daemon));
  const files = { 'functions/greet/handler.py': USING, 'functions/greet/requirements.txt': 'greeting\nno-such-package==9\n' };
  await clone.commit(files, 'greet');
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.not(push.code, 0);
  t.regex(push.stderr, /functions\/greet\/requirements\.txt:2:1: the dependencies of greet cannot be installed/);
  t.regex(push.stderr, /No matching distribution found for no-such-package==9/);
  t.is((await daemon.call('/invoke/hello')).status, 200);
  t.is((await daemon.call('/invoke/greet')).status, 404);

  const write = await daemon.call('/functions', {
    json: { name: 'made', code: USING, config: { dependencies: ['greeting==7'] } },
  });
  t.is(write.status, 422, write.text);
  const { problems } = write.json() as { problems: { message: string }[] };
  t.regex(problems[0]?.message ?? '', /made cannot be installed[^]*greeting==7/);
  await daemon.json('/functions', { json: { name: 'made', code: USING, config: { dependencies: ['greeting==1.0'] } } });
  t.deepEqual((await daemon.call('/invoke/made')).json(), { says: 'one' });
});

test.serial('while the index is down, what runs goes on and others may deploy; it is tried again by itself', async (t) => {
  await using index = await servePackages(wheel('1.0', 'one'), wheel('2.0', 'two'));
  const workspace = await makeWorkspace(t);
  const env = { PIP_INDEX_URL: index.url, PIP_RETRIES: '0' };
  const daemon = await startDaemonProcess(t, workspace.directory, { env });
  const files = { 'functions/greet/handler.py': USING, 'functions/greet/requirements.txt': 'greeting==1.0\n' };
  const commit = await workspace.commit(files, 'greet');
  await statusWhen(daemon, ({ state, applied }) => state === 'applied' && applied?.commit === commit);
  t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'one' });

  index.status = 503;
  await workspace.write({ 'functions/greet/requirements.txt': 'greeting==2.0\n' });
  const retrying = await statusWhen(daemon, ({ state }) => state === 'retrying');
  t.regex(retrying.message, /index cannot be reached/);
  t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'one' });

  // A write beside the edit goes live, and a push that needs the index is refused for the time being.
  await daemon.json('/functions', { json: { name: 'made', code: SIMPLE_HANDLER } });
  t.is((await daemon.call('/invoke/made')).status, 200);
  const refused = await daemon.call('/functions', {
    json: { name: 'wants', code: USING, config: { dependencies: ['greeting==2.0'] } },
  });
  t.deepEqual([refused.status, refused.json()['code']], [503, 'dependencies_unavailable'], refused.text);

  index.status = undefined;
  await statusWhen(daemon, ({ state }) => state === 'applied');
  t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'two' });
});

test.serial('a restart needs no index when the store is whole, and installs anew what was damaged', async (t) => {
  await using index = await servePackages(wheel('1.0', 'one'));
  const workspace = await makeWorkspace(t);
  await workspace.commit({ 'functions/greet/handler.py': USING, 'functions/greet/requirements.txt': 'greeting\n' }, 'greet');
  const env = { PIP_INDEX_URL: index.url, PIP_RETRIES: '0' };
  const first = await startDaemonProcess(t, workspace.directory, { env });
  await statusWhen(first, ({ state }) => state === 'applied');
  t.deepEqual((await first.call('/invoke/greet')).json(), { says: 'one' });
  await first.stop();

  index.status = 503;
  const second = await startDaemonProcess(t, workspace.directory, { env });
  await statusWhen(second, ({ state }) => state === 'applied');
  t.deepEqual((await second.call('/invoke/greet')).json(), { says: 'one' });
  await second.stop();

  // Damaged, and the index is down: nothing of it runs. What else there is waits with it, since a revision is applied whole.
  const store = join(workspace.directory, '.gitfaas/content');
  const [name = ''] = (await readdir(store)).filter((entry) => /^deps-[0-9a-f]+$/.test(entry));
  await rm(join(store, name, 'greeting.py'));
  await writeFile(join(store, name, 'greeting.py'), 'TEXT = "damaged"\n', { mode: 0o444 });
  const third = await startDaemonProcess(t, workspace.directory, { env });
  await statusWhen(third, ({ state }) => state === 'retrying');
  t.is((await third.call('/invoke/greet')).status, 503);
  index.status = undefined;
  await statusWhen(third, ({ state }) => state === 'applied');
  t.deepEqual((await third.call('/invoke/greet')).json(), { says: 'one' });
});

test.serial('an edit that takes long to install holds up neither writes nor pushes, and is seen in the status', async (t) => {
  await using index = await servePackages(wheel('1.0', 'one'));
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory, { env: { PIP_INDEX_URL: index.url, PIP_RETRIES: '0' } });
  index.isSilent = true;
  await workspace.write({ 'functions/hello/requirements.txt': 'greeting==1.0\n' });
  await waitUntil(() => index.requests.length > 0);
  const { installing, state } = await daemon.json<{ state: string; installing: Record<string, unknown>[] }>('/status');
  t.is(state, 'reconciling');
  t.like(installing[0], { functions: ['hello'], what: 'greeting==1.0' });
  t.regex(String(installing[0]?.['since']), /^\d{4}-/);

  await daemon.json('/functions', { json: { name: 'made', code: SIMPLE_HANDLER } });
  const clone = await cloneRepository(t, gitUrl(daemon));
  await clone.commit({ 'functions/pushed/handler.py': SIMPLE_HANDLER }, 'pushed');
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(push.code, 0, push.stderr);
  t.regex(push.stderr, /live as/);
  for (const name of ['hello', 'made', 'pushed']) t.is((await daemon.call(`/invoke/${name}`)).status, 200, name);
  t.is(await daemon.stop(), 0, 'an installation does not hold the stop up');
});

const asUser = testNeeding('root', 'isolation');

asUser('an ordinary user installs dependencies too', async (t) => {
  await using index = await servePackages(wheel('1.0', 'one'));
  const workspace = await makeWorkspace(t);
  const files = { 'functions/greet/handler.py': USING, 'functions/greet/requirements.txt': 'greeting==1.0\n' };
  await workspace.commit(files, 'greet');
  await giveAway(workspace.directory);
  const daemon = await startDaemonProcess(t, workspace.directory, {
    ...(await asOrdinaryUser(t)),
    env: { PIP_INDEX_URL: index.url },
  });
  await statusWhen(daemon, ({ state }) => state === 'applied');
  t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'one' });
  const builds = { name: 'builds', code: USING, config: { dependencies: ['greeting==1.0'], allow_build: true } };
  const refused = await daemon.call('/functions', { json: builds });
  t.is(refused.status, 422, refused.text);
  t.regex(refused.text, /`allow_build` needs network egress, which this host cannot give: .*root/);
});
