import { rmSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { makeWorkspace, startDaemonProcess } from '../support/daemon-process.ts';
import { HOST_ENVIRONMENT, installFromIndex } from '../support/real-index.ts';
import { testNeeding } from '../support/requirements.ts';

const probe = await installFromIndex('idna==3.4');
if ('directory' in probe) rmSync(probe.directory, { recursive: true, force: true });
const reason = 'reason' in probe ? probe.reason : undefined;

/** What a function says whose packages come from the real index, with the settings of this host. */
async function answerOf(t: ExecutionContext, config: string, expression: string): Promise<unknown> {
  t.timeout(120_000);
  const [module = ''] = expression.split('.');
  const handler = `import ${module}\ndef handle(request):\n    return {"value": ${expression}}\n`;
  const workspace = await makeWorkspace(t, { fetch: handler }, `functions:\n  fetch: ${config}\n`);
  const settings = Object.entries(HOST_ENVIRONMENT).filter(([name, value]) => value !== undefined && !name.startsWith('FAAS_'));
  const daemon = await startDaemonProcess(t, workspace.directory, {
    env: Object.fromEntries(settings) as Record<string, string>,
  });
  const status = await daemon.call('/sync', { method: 'POST' });
  const reply = await daemon.call('/invoke/fetch');
  t.is(reply.status, 200, status.text);
  return reply.json()['value'];
}

function withIndex(
  title: string,
  run: typeof test.serial | ReturnType<typeof testNeeding>,
  body: (t: ExecutionContext) => Promise<void>,
): void {
  if (reason === undefined) run(title, body);
  else test.skip(`${title} (${reason})`, () => {});
}

withIndex('requests==2.28.0 comes from the real index and can be imported', test.serial, async (t) => {
  t.is(await answerOf(t, '{dependencies: [requests==2.28.0]}', 'requests.__version__'), '2.28.0');
});

withIndex('a package without a wheel is built on egress', testNeeding('root', 'isolation', 'nftables'), async (t) => {
  t.is(await answerOf(t, '{dependencies: [docopt==0.6.2], allow_build: true}', 'docopt.__version__'), '0.6.2');
});
