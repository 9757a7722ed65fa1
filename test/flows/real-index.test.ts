import { rmSync } from 'node:fs';
import test from 'ava';
import { makeWorkspace, startDaemonProcess } from '../support/daemon-process.ts';
import { HOST_ENVIRONMENT, installFromIndex } from '../support/real-index.ts';

const probe = await installFromIndex('idna==3.4');
if ('directory' in probe) rmSync(probe.directory, { recursive: true, force: true });
const title = 'requests==2.28.0 comes from the real index with the settings of this host, and can be imported';

if ('reason' in probe) test.skip(`${title} (${probe.reason})`, () => {});
else
  test(title, async (t) => {
    t.timeout(120_000);
    const handler = 'import requests\ndef handle(request):\n    return {"version": requests.__version__}\n';
    const config = 'functions:\n  fetch: {dependencies: [requests==2.28.0]}\n';
    const workspace = await makeWorkspace(t, { fetch: handler }, config);
    const env = Object.fromEntries(
      Object.entries(HOST_ENVIRONMENT).flatMap(([name, value]) =>
        value === undefined || name.startsWith('FAAS_') ? [] : [[name, value]],
      ),
    );
    const daemon = await startDaemonProcess(t, workspace.directory, { env });
    await daemon.call('/sync', { method: 'POST' });
    t.deepEqual((await daemon.call('/invoke/fetch')).json(), { version: '2.28.0' });
  });
