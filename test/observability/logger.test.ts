import { execFileSync } from 'node:child_process';
import test from 'ava';
import { createLogger, FUNCTION_LINE_MAX_CHARACTERS } from '../../src/observability/logger.ts';
import type { RootLogger } from '../../src/observability/logger.ts';
import { LOGGING_LEVELS } from '../../src/config/spec.ts';
import type { LoggingLevel } from '../../src/config/spec.ts';

function collect(level: LoggingLevel): { logger: RootLogger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) };
  return { logger: createLogger({ level, destination }), lines };
}

for (const [index, level] of LOGGING_LEVELS.entries()) {
  test(`at ${level} exactly the lines of that level and above are written, under the configuration's names`, (t) => {
    const { logger, lines } = collect(level);
    for (const write of ['debug', 'info', 'warn', 'error', 'critical'] as const) logger[write]({}, write);
    t.deepEqual(
      lines.map((line) => line['level']),
      LOGGING_LEVELS.slice(index),
    );
  });
}

test('a change of the level reaches children that exist already', (t) => {
  const { logger, lines } = collect('ERROR');
  const child = logger.child({ function: 'hello' });
  child.info({}, 'unseen');
  logger.setLevel('DEBUG');
  child.debug({ step: 1 }, 'seen');
  t.true(child.isDebug);
  t.is(lines.length, 1);
  t.like(lines[0], { function: 'hello', step: 1, message: 'seen' });
});

test('authorization and cookies never reach the log', (t) => {
  const { logger, lines } = collect('DEBUG');
  const authorization = 'Bearer very-secret';
  logger.error({ authorization, headers: { authorization, cookie: 'very-secret' }, key: 'very-secret' }, 'request');
  t.false(JSON.stringify(lines).includes('very-secret'));
});

test('an error is written with its causes', (t) => {
  const { logger, lines } = collect('INFO');
  logger.error({ error: new Error('outer', { cause: new Error('inner') }) }, 'failed');
  const text = JSON.stringify(lines[0]);
  t.true(text.includes('outer') && text.includes('inner'));
});

test('a line of a function carries function, version, instance, call and stream, and is cut when it is very long', (t) => {
  const { logger, lines } = collect('INFO');
  const line = {
    functionName: 'hello',
    version: 'v1',
    instanceId: 'i-1',
    callId: 'c-1',
    stream: 'stderr',
    text: 'printed',
  } as const;
  logger.logFunctionLine(line);
  logger.logFunctionLine({ ...line, text: 'x'.repeat(FUNCTION_LINE_MAX_CHARACTERS + 5) });
  t.like(lines[0], { function: 'hello', version: 'v1', instance: 'i-1', call_id: 'c-1', stream: 'stderr', message: 'printed' });
  t.is((lines[1]?.['message'] as string).length, FUNCTION_LINE_MAX_CHARACTERS);
  t.is(lines[1]?.['cut_characters'], 5);
});

test('what was logged right before the exit is written', (t) => {
  const module = new URL('../../src/observability/logger.ts', import.meta.url).href;
  const program = `const { createLogger } = await import(${JSON.stringify(module)});
    const logger = createLogger({ level: 'INFO' }); logger.info({}, 'last words'); logger.flush(); process.exit(0);`;
  const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  t.regex(output, /last words/);
});
