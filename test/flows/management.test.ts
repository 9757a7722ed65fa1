import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER } from '../support/daemon-process.ts';
import { statusWhen } from '../support/daemon-view.ts';
import { waitUntil } from '../support/wait-until.ts';

const saying = (word: string): string => `def handle(request):\n    return {"says": "${word}"}\n`;

interface Written {
  readonly version: string;
  readonly commit: string;
  readonly etag: string;
  readonly changed: boolean;
}

test('preconditions hold against the ETag of the function, and a failed one answers with both tags', async (t) => {
  const workspace = await makeWorkspace(t, { hello: saying('one') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const tip = await workspace.git(['rev-parse', 'main']);
  const etag = (await daemon.call('/functions/hello')).headers.etag ?? '';
  t.regex(etag, /^"[^"]+"$/);
  t.is((await daemon.call('/functions/hello', { headers: { 'If-None-Match': etag } })).status, 304);

  const put = { method: 'PUT', json: { code: saying('two') } };
  const failing: [string, Parameters<typeof daemon.call>[1]][] = [
    ['/functions/hello', { ...put, headers: { 'If-Match': '"stale"' } }],
    ['/functions/hello', { ...put, headers: { 'If-None-Match': '*' } }],
    ['/functions/hello', { method: 'DELETE', headers: { 'If-Match': '"stale", "older"' } }],
    ['/functions', { json: { name: 'hello', code: saying('two') }, headers: { 'If-None-Match': '*' } }],
    ['/functions', { json: { name: 'fresh', code: saying('two') }, headers: { 'If-Match': '"stale"' } }],
  ];
  for (const [path, options] of failing) {
    const reply = await daemon.call(path, options);
    const what = `${options?.method ?? 'POST'} ${JSON.stringify(options?.headers)}`;
    t.deepEqual([reply.status, reply.json()['code']], [412, 'precondition_failed'], what);
    t.is(reply.json()['current'], path === '/functions/hello' || what.includes('None') ? etag.slice(1, -1) : null, what);
    t.true(Array.isArray(reply.json()['expected']), what);
  }
  t.is(await workspace.git(['rev-parse', 'main']), tip);

  const updated = await daemon.call('/functions/hello', { ...put, headers: { 'If-Match': etag } });
  t.is(updated.status, 200, updated.text);
  t.not(updated.headers.etag, etag);
  t.is((await daemon.call('/functions/hello', { ...put, headers: { 'If-Match': etag } })).status, 412, 'the tag is used up');
  const created = await daemon.call('/functions', {
    json: { name: 'fresh', code: saying('f') },
    headers: { 'If-None-Match': '*' },
  });
  t.is(created.status, 201, created.text);
  t.is(created.headers.location, '/functions/fresh');
  t.is(
    (await daemon.call('/functions/fresh', { method: 'DELETE', headers: { 'If-Match': created.headers.etag ?? '' } })).status,
    200,
  );
});

test('writes that cannot be done are refused by name and leave no commit', async (t) => {
  const config = 'functions:\n  hello: {timeout: 5, environment: {A: one, B: two}}\n';
  const workspace = await makeWorkspace(t, { hello: saying('one') }, config);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const tip = await workspace.git(['rev-parse', 'main']);
  const refused: [string, string, unknown, number, string][] = [
    ['POST', '/functions', { name: 'hello', code: saying('x') }, 409, 'already_exists'],
    ['PUT', '/functions/nobody', { code: saying('x') }, 404, 'unknown_function'],
    ['DELETE', '/functions/nobody', undefined, 404, 'unknown_function'],
    ['GET', '/functions/nobody', undefined, 404, 'unknown_function'],
    ['POST', '/functions', { name: 'x', code: 'def handle(:\n' }, 422, 'invalid_revision'],
    ['POST', '/functions', { name: 'x', code: saying('x'), config: { execution_mode: 'container' } }, 422, 'invalid_revision'],
    ['POST', '/functions', { name: 'x', code: saying('x'), config: { dependencies: ['-r x'] } }, 422, 'invalid_revision'],
    [
      'POST',
      '/functions',
      { name: 'x', code: 'import nothing_like_this\ndef handle(r):\n    return 1\n' },
      422,
      'invalid_revision',
    ],
    ['PUT', '/functions/hello', { files: { 'handler.py': null } }, 422, 'invalid_revision'],
    ['PUT', '/functions/hello', { files: { '../other/handler.py': 'x' } }, 400, 'bad_request'],
    ['PUT', '/functions/hello', { files: { '.git/config': 'x' } }, 400, 'bad_request'],
    ['PUT', '/functions/hello', { files: { 'a/../../b': 'x' } }, 400, 'bad_request'],
    ['PUT', '/functions/hello', { files: { 'data.bin': { base64: '***' } } }, 400, 'bad_request'],
    ['PUT', '/functions/hello', { code: `# \ud800\n${saying('x')}` }, 400, 'bad_request'],
    ['PUT', '/functions/hello', { files: { 'data.txt': 'x\udc00' } }, 400, 'bad_request'],
    ['PUT', '/functions/hello', { config: { timout: 3 } }, 400, 'bad_request'],
    ['PUT', '/functions/hello', { config: { timeout: 'soon' } }, 400, 'bad_request'],
  ];
  for (const [method, path, json, status, code] of refused) {
    const reply = await daemon.call(path, { method, json });
    const what = `${method} ${path} ${JSON.stringify(json)}: ${reply.text}`;
    t.deepEqual([reply.status, reply.json()['code']], [status, code], what);
    t.is(reply.headers['content-type'], 'application/problem+json', what);
    t.is(typeof reply.json()['fix'], 'string', what);
    if (status === 422) t.true((reply.json()['problems'] as unknown[]).length > 0, what);
  }
  const typo = await daemon.call('/functions/hello', { method: 'PUT', json: { config: { timout: 3 } } });
  t.regex(typo.json()['detail'] as string, /config\.timout.*did you mean timeout/);
  const config3 = { dependencies: ['git+https://x/y'], execution_mode: 'container' };
  const thrice = await daemon.call('/functions', { json: { name: 'x', code: 'def handel(r): pass\n', config: config3 } });
  const problems = thrice.json()['problems'] as { file: string; line: number; column: number }[];
  t.deepEqual(
    problems.map(({ file, line, column }) => [file, line > 0, column > 0].join()).toSorted(),
    ['faas_config.yaml,true,true', 'faas_config.yaml,true,true', 'functions/x/handler.py,true,true'],
    'all problems at once',
  );
  t.is(await workspace.git(['rev-parse', 'main']), tip);
  t.is(await workspace.git(['status', '--porcelain']), '');
  t.deepEqual((await daemon.call('/invoke/hello')).json(), { says: 'one' });
});

test('a write that changes nothing makes no commit, and a patch changes what it names', async (t) => {
  const config = '# Ours.\nfunctions:\n  hello: # friendly\n    timeout: 5\n    environment: {A: one, B: two}\n';
  const workspace = await makeWorkspace(t, { hello: saying('one') }, config);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const tip = await workspace.git(['rev-parse', 'main']);
  const put = async (json: unknown): Promise<Written> => await daemon.json<Written>('/functions/hello', { method: 'PUT', json });
  for (const same of [{ code: saying('one') }, { config: { timeout: 5 } }, { files: {} }, {}]) {
    t.like(await put(same), { changed: false, commit: tip }, JSON.stringify(same));
  }
  const patched = await put({ config: { timeout: null, environment: { A: null, C: 'three' }, max_instances: 3 } });
  t.true(patched.changed);
  t.is(
    await readFile(join(workspace.directory, 'faas_config.yaml'), 'utf8'),
    '# Ours.\nfunctions:\n  hello: # friendly\n    environment: {B: two, C: three}\n    max_instances: 3\n',
  );
  t.like((await daemon.json('/functions/hello'))['config'], { environment: { B: 'two', C: 'three' }, max_instances: 3 });
});

test('`files` adds, replaces and deletes files, binary ones in base64', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const code = `import pathlib
HERE = pathlib.Path(__file__).parent
def handle(request):
    return {str(p.relative_to(HERE)): p.read_bytes().hex() for p in sorted(HERE.rglob("*")) if p.is_file() and p.suffix != ".pyc"}
`;
  const hex = (text: string): string => Buffer.from(text).toString('hex');
  const files = {
    'handler.py': code,
    'data/raw.bin': { base64: Buffer.from([0, 255, 13, 10]).toString('base64') },
    'a.txt': 'old',
  };
  t.is((await daemon.call('/functions', { json: { name: 'kept', files } })).status, 201);
  t.deepEqual((await daemon.call('/invoke/kept')).json(), {
    'a.txt': hex('old'),
    'data/raw.bin': '00ff0d0a',
    'handler.py': hex(code),
  });
  const edit = { 'a.txt': 'new', 'data/raw.bin': null, 'sub/dir/b.txt': 'ü' };
  const updated = await daemon.json<Written>('/functions/kept', { method: 'PUT', json: { files: edit } });
  t.deepEqual((await daemon.call('/invoke/kept')).json(), {
    'a.txt': hex('new'),
    'handler.py': hex(code),
    'sub/dir/b.txt': hex('ü'),
  });
  const { files: listed } = await daemon.json<{ files: { path: string }[] }>('/functions/kept');
  t.deepEqual(
    listed.map(({ path }) => path),
    ['a.txt', 'handler.py', 'sub/dir/b.txt'],
  );
  t.is(await workspace.git(['log', '-1', '--format=%H %an %s']), `${updated.commit} demo-key update function kept`);
  await t.throwsAsync(stat(join(workspace.directory, 'functions/kept/data')), { code: 'ENOENT' }, 'no empty directory is left');
});

test('an uncommitted edit in the way of a write is named and kept; other writes go through', async (t) => {
  const workspace = await makeWorkspace(t, { hello: saying('one'), other: saying('other') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.write({ 'functions/hello/handler.py': saying('edited'), 'functions/new/notes.txt': 'mine' });
  await statusWhen(daemon, ({ dirty_paths: paths }) => paths.length === 2);
  const inTheWay: [string, string, unknown, string][] = [
    ['PUT', '/functions/hello', { code: saying('written') }, 'functions/hello/handler.py'],
    ['DELETE', '/functions/hello', undefined, 'functions/hello/handler.py'],
    [
      'POST',
      '/functions',
      { name: 'new', files: { 'handler.py': saying('n'), 'notes.txt': 'theirs' } },
      'functions/new/notes.txt',
    ],
  ];
  for (const [method, path, json, file] of inTheWay) {
    const reply = await daemon.call(path, { method, json });
    t.deepEqual([reply.status, reply.json()['code']], [409, 'edit_in_the_way'], reply.text);
    t.true((reply.json()['detail'] as string).includes(file), reply.text);
  }
  t.is(await readFile(join(workspace.directory, 'functions/new/notes.txt'), 'utf8'), 'mine');
  await workspace.write({ 'functions/new': null });
  await waitUntil(async () => (await daemon.call('/invoke/hello')).json()['says'] === 'edited');
  t.is((await daemon.call('/functions/other', { method: 'PUT', json: { code: saying('written') } })).status, 200);
  t.deepEqual((await daemon.call('/invoke/other')).json(), { says: 'written' });
  t.deepEqual((await daemon.call('/invoke/hello')).json(), { says: 'edited' });
  t.is(await workspace.git(['status', '--porcelain']), ' M functions/hello/handler.py');
});

test('a write beside an uncommitted edit of the same function is live at once, and answers with the version that runs', async (t) => {
  const workspace = await makeWorkspace(t, { hello: saying('one') });
  await workspace.commit({ 'functions/hello/words.txt': 'old\n' }, 'words');
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.write({ 'functions/hello/words.txt': 'edited\n' });
  await statusWhen(daemon, (status) => status.dirty && status.state === 'applied');

  const reply = await daemon.call('/functions/hello', { method: 'PUT', json: { code: saying('two') } });
  t.is(reply.status, 200, reply.text);
  const answer = await daemon.call('/invoke/hello', { method: 'POST' });
  t.deepEqual(answer.json(), { says: 'two' });
  t.is(reply.json()['version'], answer.headers['x-function-version']);
  t.is(reply.json()['commit'], await workspace.git(['rev-parse', 'main']));
  t.is(await workspace.git(['status', '--porcelain']), ' M functions/hello/words.txt');
  const next = { method: 'PUT', json: { code: saying('three') }, headers: { 'If-Match': reply.headers.etag ?? '' } };
  t.is((await daemon.call('/functions/hello', next)).status, 200, 'the ETag is good for the next write');
});
