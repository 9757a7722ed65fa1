import { Agent } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { cloneRepository } from '../support/git-client.ts';
import type { TestRepository } from '../support/git-repository.ts';
import { waitUntil } from '../support/wait-until.ts';

const DEPLOYS = 100;
const CONNECTIONS = 6;
/** Between two requests of one connection: the load stays constant and leaves the machine room for the deploys. */
const PAUSE_MS = 4;
const PATH = 'functions/changing/handler.py';

interface Answer {
  readonly version: string;
  readonly marker: string;
}

test('a hundred deploys under constant load: no request fails, and each answer comes from the version it names', async (t) => {
  t.timeout(300_000);
  const workspace = await makeWorkspace(t, { changing: handlerFor('start'), steady: handlerFor('steady') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const clone = await cloneRepository(t, `${daemon.url.replace('://', '://git:demo-key@')}/git`);
  const markers = new Map<string, string>([[await liveVersion(daemon), 'start']]);
  const steadyVersion = (await daemon.json<{ version: string }>('/functions/steady')).version;

  const load = startLoad(t, daemon);
  const startedMs = performance.now();
  for (let number = 0; number < DEPLOYS; number += 1) {
    const marker = `deploy-${number}`;
    const before = await liveVersion(daemon);
    await ([push, put, edit] as const)[number % 3]?.({ workspace, clone, daemon, marker });
    await waitUntil(async () => (await liveVersion(daemon)) !== before);
    markers.set(await liveVersion(daemon), marker);
  }
  const tookMs = performance.now() - startedMs;
  const { answers, failures, steadyAnswers } = await load.stop();

  t.log(`${answers.length + steadyAnswers.length} requests during ${DEPLOYS} deploys in ${(tookMs / 1000).toFixed(1)} s`);
  t.deepEqual(failures, []);
  t.is(markers.size, DEPLOYS + 1);
  const mixed = answers.filter(({ version, marker }) => markers.get(version) !== marker);
  t.deepEqual(mixed, []);
  const seen = new Set(answers.map(({ version }) => version));
  t.true(seen.size > DEPLOYS / 2, `only ${seen.size} versions answered`);
  t.true(steadyAnswers.length > 0);
  t.true(steadyAnswers.every(({ version, marker }) => version === steadyVersion && marker === 'steady'));
  // A function that no deploy touched keeps its instance.
  const { instances } = await daemon.json<{ instances: { function: string; invocations: number }[] }>('/instances');
  const steady = instances.filter((instance) => instance.function === 'steady');
  t.is(
    steady.reduce((sum, { invocations }) => sum + invocations, 0),
    steadyAnswers.length,
  );
});

interface Deploy {
  readonly workspace: TestRepository;
  readonly clone: TestRepository;
  readonly daemon: DaemonProcess;
  readonly marker: string;
}

async function push({ clone, marker }: Deploy): Promise<void> {
  await clone.git(['pull', '-q', '--rebase']);
  await clone.commit({ [PATH]: handlerFor(marker) }, marker);
  await clone.git(['push', '-q']);
}

async function put({ daemon, marker }: Deploy): Promise<void> {
  await daemon.json('/functions/changing', { method: 'PUT', json: { code: handlerFor(marker) } });
}

/** Live first, committed afterwards: the commit is the same tree and must change nothing. */
async function edit({ workspace, daemon, marker }: Deploy): Promise<void> {
  const before = await liveVersion(daemon);
  await workspace.write({ [PATH]: handlerFor(marker) });
  await waitUntil(async () => (await liveVersion(daemon)) !== before);
  await workspace.git(['commit', '-q', '-a', '-m', marker]);
}

async function liveVersion(daemon: DaemonProcess): Promise<string> {
  const { functions } = await daemon.json<{ functions: { name: string; version: string }[] }>('/functions');
  return functions.find(({ name }) => name === 'changing')?.version ?? '';
}

interface LoadReport {
  readonly answers: readonly Answer[];
  readonly steadyAnswers: readonly Answer[];
  readonly failures: readonly string[];
}

/** Requests without and with bodies, one after the other on each of several kept connections. */
function startLoad(t: ExecutionContext, daemon: DaemonProcess): { stop(): Promise<LoadReport> } {
  const answers: Answer[] = [];
  const steadyAnswers: Answer[] = [];
  const failures: string[] = [];
  let isOver = false;
  const agents = Array.from({ length: CONNECTIONS }, () => new Agent({ keepAlive: true, maxSockets: 1 }));
  t.teardown(() => {
    isOver = true;
    for (const agent of agents) agent.destroy();
  });
  const connections = agents.map(async (agent, connection) => {
    for (let number = 0; !isOver; number += 1) {
      const name = connection === 0 ? 'steady' : 'changing';
      const body = number % 2 === 0 ? '' : ['first half,', 'second half'];
      try {
        const reply = await daemon.call(`/invoke/${name}`, { method: 'POST', agent, body });
        const version = String(reply.headers['x-function-version']);
        if (reply.status === 200) (name === 'steady' ? steadyAnswers : answers).push({ version, marker: reply.text });
        else failures.push(`${reply.status} ${reply.text}`);
      } catch (error) {
        failures.push(String(error));
      }
      await setTimeout(PAUSE_MS);
    }
  });
  return {
    async stop() {
      isOver = true;
      await Promise.all(connections);
      return { answers, steadyAnswers, failures };
    },
  };
}

function handlerFor(marker: string): string {
  return `MARKER = ${JSON.stringify(marker)}\n\n\ndef handle(request):\n    return MARKER\n`;
}
