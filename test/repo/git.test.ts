import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { openWorkspace } from '../../src/repo/workspace.ts';
import { makeRepository } from '../support/git-repository.ts';

test('an exit code is a result of try and an error of run', async (t) => {
  const { git } = await openWorkspace((await makeRepository(t)).directory);
  t.is((await git.try(['rev-parse', '--verify', '-q', 'nope'])).code, 1);
  const error = await t.throwsAsync(git.run(['rev-parse', '--verify', '-q', 'nope']), { instanceOf: FaasError });
  t.is(error.code, 'git_failed');
});

test('output beyond the limit, silence beyond the time and an abort end git and reject', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  const oid = await repository.git(['hash-object', '-w', '--stdin'], { input: 'x'.repeat(100_000) });
  const tooMuch = await t.throwsAsync(git.run(['cat-file', 'blob', oid], { maxOutputBytes: 1000 }), { instanceOf: FaasError });
  t.is(tooMuch.context['outputTooLarge'], true);

  // git opens the pipe and waits for a writer that never comes.
  await promisify(execFile)('mkfifo', [join(repository.directory, 'pipe')]);
  const endless = ['hash-object', 'pipe'];
  const slow = await t.throwsAsync(git.run(endless, { timeoutMs: 100 }), { instanceOf: FaasError });
  t.is(slow.code, 'git_failed');
  const reason = new Error('no longer wanted');
  await t.throwsAsync(git.run(endless, { signal: AbortSignal.abort(reason) }), { is: reason });
  const abort = new AbortController();
  const running = t.throwsAsync(git.run(endless, { signal: abort.signal }), { is: reason });
  abort.abort(reason);
  await running;
});

test('a git that reads nothing of a large input is judged by its exit code', async (t) => {
  const { git } = await openWorkspace((await makeRepository(t)).directory);
  const result = await git.try(['rev-parse', '--is-inside-work-tree'], { input: Buffer.alloc(4 * 1024 * 1024) });
  t.is(result.stdout.toString(), 'true\n');
});
