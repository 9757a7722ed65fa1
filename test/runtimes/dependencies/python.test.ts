import { readdirSync } from 'node:fs';
import { DependencyFixture } from '../../support/dependencies.ts';
import { call, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { makeWheel, servePackages } from '../../support/wheels.ts';

const LEVELS = process.getuid?.() === 0 ? (['strict', 'none'] as const) : (['standard', 'none'] as const);
const needs = testNeeding('isolation');

for (const isolation of LEVELS) {
  needs(`a package and what it needs are installed from the index and can be imported (${isolation})`, async (t) => {
    await using index = await servePackages(
      makeWheel(
        'greeting',
        '1.2',
        { 'greeting/__init__.py': 'import word\nTEXT = "hi " + word.WORD\n' },
        { requires: ['word>=2'] },
      ),
      makeWheel('word', '1', { 'word.py': 'WORD = "old"\n' }),
      makeWheel('word', '2', { 'word.py': 'WORD = "new"\n' }),
    );
    await using fixture = await DependencyFixture.open({ isolation, environment: { PIP_INDEX_URL: index.url } });
    const lines: string[] = [];
    const directory = await fixture.install(['greeting==1.2'], { onLine: (line) => lines.push(line) });
    t.log(lines);
    t.log(readdirSync(directory));
    const request = fixture.runtime.request(
      'import greeting\ndef handle(request):\n    return greeting.TEXT + greeting.__cached__\n',
    );
    const instance = await fixture.runtime.runtime.start(
      { ...request, dependenciesDirectory: directory },
      AbortSignal.timeout(30_000),
    );
    t.regex(await text(await call(instance)), /^hi new.*pyc$/);
    await instance.kill();
  });
}
