import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { call, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';

const LEVELS = process.getuid?.() === 0 ? (['strict', 'none'] as const) : (['standard', 'none'] as const);

/** Writes packages beside the functions of the fixture, as the installer would leave them. */
function addDependencies(codeDirectory: string, name: string, files: Readonly<Record<string, string>>): string {
  const directory = join(dirname(codeDirectory), name);
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, path)), { recursive: true, mode: 0o755 });
    writeFileSync(join(directory, path), content);
  }
  return directory;
}

async function answerOf(fixture: RuntimeFixture, code: string, files: Readonly<Record<string, string>>): Promise<unknown> {
  const request = fixture.request(code);
  writeFileSync(join(request.codeDirectory, 'mine.py'), 'WHO = "the function"\n');
  const dependenciesDirectory = addDependencies(request.codeDirectory, `deps-${fixture.lines.length}-${Math.random()}`, files);
  const instance = await fixture.runtime.start({ ...request, dependenciesDirectory }, AbortSignal.timeout(30_000));
  try {
    return JSON.parse(await text(await call(instance)));
  } finally {
    await instance.kill();
  }
}

const needs = testNeeding('isolation');

for (const isolation of LEVELS) {
  needs(
    `what was installed can be imported, after the function's own files and the standard library (${isolation})`,
    async (t) => {
      await using fixture = await RuntimeFixture.open({ isolation });
      const code = `
import mine, json, leftpad, sys
def handle(request):
    return {"mine": mine.WHO, "json": hasattr(json, "dumps"), "leftpad": leftpad.VERSION, "last": sys.path[-1] != sys.path[0]}
`;
      const files = { 'leftpad.py': 'VERSION = 3\n', 'mine.py': 'WHO = "a package"\n', 'json.py': 'raise SystemExit\n' };
      t.deepEqual(await answerOf(fixture, code, files), { mine: 'the function', json: true, leftpad: 3, last: true });
    },
  );

  needs(`files of the kind .pth count, and sitecustomize of a package is not run (${isolation})`, async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation });
    const code =
      'import inner, sys\ndef handle(request):\n    return {"inner": inner.X, "ran": hasattr(sys, "customised"), "pth": sys.pth}\n';
    const files = {
      'some.pth': 'nested\nimport sys; sys.pth = 1\n',
      'nested/inner.py': 'X = 1\n',
      'sitecustomize.py': 'import sys\nsys.customised = True\n',
    };
    t.deepEqual(await answerOf(fixture, code, files), { inner: 1, ran: false, pth: 1 });
  });

  needs(`a .pth file that ends the process is a start that failed, and says why (${isolation})`, async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation });
    const answer = answerOf(fixture, 'def handle(request):\n    return 1\n', { 'bad.pth': 'import sys; sys.exit(3)\n' });
    const error = await t.throwsAsync(answer);
    t.like(error, { code: 'init_failed' });
    t.regex(error?.message ?? '', /dependencies/);
  });
}

const sandboxed = testNeeding('isolation', 'root');

sandboxed('what was installed cannot be changed from inside, and other packages are out of reach', async (t) => {
  await using fixture = await RuntimeFixture.open({ isolation: 'strict' });
  const code = `
import os
def attempt(path):
    try:
        open(path, "w").close()
        return "written"
    except OSError as error:
        return error.errno
def handle(request):
    return {"change": attempt("/dependencies/a.py"), "add": attempt("/dependencies/new"), "seen": os.listdir("/dependencies"),
            "store": os.listdir("/.store")}
`;
  addDependencies(fixture.request(code).codeDirectory, 'deps-of-others', { 'secret.py': '' });
  const answer = (await answerOf(fixture, code, { 'a.py': '' })) as Record<string, unknown>;
  t.deepEqual([answer['change'], answer['add'], answer['seen'], answer['store']], [30, 30, ['a.py'], []]);
});

sandboxed('only an installer may write where packages go, and it cannot execute what it wrote', async (t) => {
  await using fixture = await RuntimeFixture.open({ isolation: 'strict' });
  const code = `
import os, subprocess
def handle(request):
    with open("/dependencies/program", "w") as file:
        file.write("#!/bin/sh\\necho ran\\n")
    os.chmod("/dependencies/program", 0o755)
    try:
        return subprocess.run(["/dependencies/program"], capture_output=True, text=True).stdout
    except OSError as error:
        return str(error.errno)
`;
  for (const [kind, expected] of [
    ['wheels', '13'],
    ['builds', 'ran\n'],
  ] as const) {
    const request = fixture.request(code);
    writeFileSync(join(request.codeDirectory, 'hosts'), '127.0.0.1 localhost\n');
    const target = addDependencies(request.codeDirectory, `tmp-${kind}`, { '.keep': '' });
    chmodSync(target, 0o777);
    const installer = await fixture.runtime.startInstaller(
      { ...request, dependenciesDirectory: target },
      kind,
      AbortSignal.timeout(30_000),
    );
    t.is(await text(await call(installer)), expected, kind);
    await installer.kill();
  }
});
