import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import type { TestRepository } from '../support/git-repository.ts';
import { tipVersions } from '../support/tip-versions.ts';
import { waitUntil } from '../support/wait-until.ts';

const WRITERS = 8;
const FUNCTIONS_EACH = 20;
/** A person's, shortened; the two sides get about the same share. */
const PUSH_PAUSE_MS = 500;

interface Acknowledged {
  readonly callId: string;
  readonly commit: string;
}

test('what eight writers and a pushing client were told is in the log exactly once, live, and all there is', async (t) => {
  t.timeout(300_000);
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const markers = new Map<string, string>();
  const acknowledged: Acknowledged[] = [];
  const tookMs: number[] = [];

  const write = async (method: 'POST' | 'PUT', name: string, marker: string): Promise<void> => {
    const callId = `${name}-${marker}`;
    const code = handlerReturning(marker);
    const startedMs = performance.now();
    const reply = await daemon.call(method === 'POST' ? '/functions' : `/functions/${name}`, {
      method,
      headers: { 'X-Call-Id': callId },
      json: method === 'POST' ? { name, code } : { code },
    });
    tookMs.push(performance.now() - startedMs);
    if (reply.status >= 300) throw new Error(`${method} ${name}: ${reply.status} ${reply.text}`);
    acknowledged.push({ callId, commit: String(reply.json()['commit']) });
    markers.set(name, marker);
  };
  let isWriting = true;
  const startedMs = performance.now();
  const pushing = keepPushing(t, daemon, () => isWriting);
  await Promise.all(
    Array.from({ length: WRITERS }, async (_, writer) => {
      for (let number = 0; number < FUNCTIONS_EACH; number += 1) {
        const name = `w${writer}-${number}`;
        await write('POST', name, 'created');
        await write('PUT', name, 'updated');
      }
    }),
  );
  const writingMs = performance.now() - startedMs;
  isWriting = false;
  const pushed = await pushing;
  tookMs.sort((a, b) => a - b);
  t.log(
    `${acknowledged.length} writes in ${(writingMs / 1000).toFixed(1)} s, ${(writingMs / acknowledged.length).toFixed(0)} ms each; ` +
      `median ${tookMs[tookMs.length >> 1]?.toFixed(0)} ms, slowest ${tookMs.at(-1)?.toFixed(0)} ms; ` +
      `${pushed.accepted.length} pushes accepted, ${pushed.rejections} rejected`,
  );

  t.is(acknowledged.length, 2 * WRITERS * FUNCTIONS_EACH);
  t.true(pushed.accepted.length > 0);
  await assertLogHolds(t, workspace, acknowledged);
  for (const { commit, name } of pushed.accepted) {
    await t.notThrowsAsync(workspace.git(['merge-base', '--is-ancestor', commit, 'main']));
    markers.set(name, 'pushed');
  }
  await assertLiveIsTip(t, workspace, daemon);
  for (const [name, marker] of markers) {
    const reply = await daemon.call(`/invoke/${name}`, { method: 'POST' });
    t.is(reply.text, marker, name);
  }
  await assertSound(t, workspace);
});

test('of writes to one function at the same time none is lost: each is a commit or told 409', async (t) => {
  const workspace = await makeWorkspace(t, { shared: handlerReturning('start') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const acknowledged: Acknowledged[] = [];
  let refusals = 0;
  for (let round = 0; round < 5; round += 1) {
    const replies = await Promise.all(
      ['a', 'b', 'c'].map(async (writer) => {
        const marker = `${writer}${round}`;
        const reply = await daemon.call('/functions/shared', {
          method: 'PUT',
          headers: { 'X-Call-Id': `shared-${marker}` },
          json: { code: handlerReturning(marker) },
        });
        return { reply, marker };
      }),
    );
    const winners = replies.filter(({ reply }) => reply.status === 200);
    const losers = replies.filter(({ reply }) => reply.status !== 200);
    t.true(winners.length > 0);
    for (const { reply } of losers) {
      t.is(reply.status, 409, reply.text);
      t.is(reply.json()['code'], 'concurrent_edit');
    }
    refusals += losers.length;
    for (const { reply, marker } of winners)
      acknowledged.push({ callId: `shared-${marker}`, commit: String(reply.json()['commit']) });
    const answer = await daemon.call('/invoke/shared', { method: 'POST' });
    t.true(winners.some(({ marker }) => marker === answer.text));
  }
  t.log(`${acknowledged.length} accepted, ${refusals} refused`);
  await assertLogHolds(t, workspace, acknowledged);
  await assertLiveIsTip(t, workspace, daemon);
  await assertSound(t, workspace);
});

test('of writers that name the same ETag exactly one wins, and so of those that create one name', async (t) => {
  const workspace = await makeWorkspace(t, { shared: handlerReturning('start') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const acknowledged: Acknowledged[] = [];
  for (let round = 0; round < 5; round += 1) {
    const etag = (await daemon.call('/functions/shared')).headers.etag ?? '';
    const updates = ['a', 'b', 'c', 'd'].map(async (writer) => {
      const callId = `update-${writer}${round}`;
      const reply = await daemon.call('/functions/shared', {
        method: 'PUT',
        headers: { 'X-Call-Id': callId, 'If-Match': etag },
        json: { code: handlerReturning(`${writer}${round}`) },
      });
      return { callId, reply };
    });
    const creations = ['a', 'b', 'c'].map(async (writer) => {
      const callId = `create-${writer}${round}`;
      const reply = await daemon.call('/functions', {
        method: 'POST',
        headers: { 'X-Call-Id': callId },
        json: { name: `new-${round}`, code: handlerReturning(writer) },
      });
      return { callId, reply };
    });
    const rivalries = [
      { replies: await Promise.all(updates), won: 200, lost: [409, 412] },
      { replies: await Promise.all(creations), won: 201, lost: [409] },
    ];
    for (const { replies, won, lost } of rivalries) {
      const winners = replies.filter(({ reply }) => reply.status === won);
      t.is(winners.length, 1, replies.map(({ reply }) => reply.text).join('\n'));
      for (const { reply } of replies) t.true(reply.status === won || lost.includes(reply.status), reply.text);
      for (const { callId, reply } of winners) acknowledged.push({ callId, commit: String(reply.json()['commit']) });
    }
  }
  await assertLogHolds(t, workspace, acknowledged);
  await assertLiveIsTip(t, workspace, daemon);
  await assertSound(t, workspace);
});

function handlerReturning(marker: string): string {
  return `def handle(request):\n    return ${JSON.stringify(marker)}\n`;
}

interface Pushed {
  readonly accepted: readonly { readonly name: string; readonly commit: string }[];
  readonly rejections: number;
}

/** A person who adds functions with git as long as others write: rebases and merges in turns when somebody was faster. */
async function keepPushing(t: ExecutionContext, daemon: DaemonProcess, isWriting: () => boolean): Promise<Pushed> {
  const clone = await cloneRepository(t, `${daemon.url.replace('://', '://git:demo-key@')}/git`);
  const accepted: { name: string; commit: string }[] = [];
  let rejections = 0;
  for (let number = 0; isWriting(); number += 1) {
    const name = `pushed-${number}`;
    await clone.commit({ [`functions/${name}/handler.py`]: handlerReturning('pushed') }, `push ${name}`);
    for (let attempt = 0; ; attempt += 1) {
      const push = await runClient(clone.directory, ['push', '-q', 'origin', 'main']);
      if (push.code === 0) break;
      if (attempt === 50) throw new Error(`push: ${push.stderr}`);
      rejections += 1;
      const pull = await runClient(clone.directory, [
        'pull',
        '-q',
        attempt % 2 === 0 ? '--rebase' : '--no-rebase',
        'origin',
        'main',
      ]);
      if (pull.code !== 0) throw new Error(`pull: ${pull.stderr}`);
    }
    accepted.push({ name, commit: await clone.git(['rev-parse', 'HEAD']) });
    await setTimeout(PUSH_PAUSE_MS);
  }
  return { accepted, rejections };
}

/** Every acknowledged write is one commit of the served branch, and no other commit came from a management call. */
async function assertLogHolds(
  t: ExecutionContext,
  workspace: TestRepository,
  acknowledged: readonly Acknowledged[],
): Promise<void> {
  const format = '--format=%H %(trailers:key=Call-Id,valueonly,separator=%x2C)';
  const lines = (await workspace.git(['log', format, 'main'])).split('\n').map((line) => line.trim().split(' '));
  const logged = lines.flatMap(([commit, callId]) => (callId === undefined ? [] : [`${callId} ${commit}`]));
  t.deepEqual(logged.toSorted(), acknowledged.map(({ callId, commit }) => `${callId} ${commit}`).toSorted());
}

async function assertLiveIsTip(t: ExecutionContext, workspace: TestRepository, daemon: DaemonProcess): Promise<void> {
  const tip = await workspace.git(['rev-parse', 'main']);
  await waitUntil(async () => (await daemon.json<{ applied: { commit: string } }>('/status')).applied.commit === tip);
  const { functions } = await daemon.json<{ functions: { name: string; version: string }[] }>('/functions');
  t.deepEqual(Object.fromEntries(functions.map(({ name, version }) => [name, version])), await tipVersions(workspace.directory));
}

async function assertSound(t: ExecutionContext, workspace: TestRepository): Promise<void> {
  t.is(await workspace.git(['status', '--porcelain']), '');
  await t.notThrowsAsync(workspace.git(['fsck', '--full', '--strict']));
}
