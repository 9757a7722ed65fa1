import test from 'ava';
import { makeWorkspace, startDaemonProcess } from '../support/daemon-process.ts';

test('a workspace is served, an answer carries its version, and the stop is clean', async (t) => {
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const reply = await daemon.call('/invoke/hello', { method: 'POST' });
  t.is(reply.status, 200);
  t.deepEqual(reply.json(), { ok: true });
  const { version } = await daemon.json('/functions/hello');
  t.is(reply.headers['x-function-version'], version as string);
  t.is(await daemon.stop(), 0);
});
