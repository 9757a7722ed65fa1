import test from 'ava';
import { NodeRunner, bodyText } from '../../../support/node-runner-harness.ts';
import { waitUntil } from '../../../support/wait-until.ts';

const EVALUATE = `
import fs from 'node:fs';
import { execFileSync, spawnSync } from 'node:child_process';
export const handle = async (request) => { await eval('(async () => {' + request.getText() + '})()'); return ''; };
`;
const PRINTED: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
  ['console.log("a %s", "b", { c: 1 })', [['stdout', 'a b { c: 1 }']]],
  [
    'console.error(new Error("x").message); console.warn("w"); console.info("i"); console.debug("d")',
    [
      ['stderr', 'x'],
      ['stderr', 'w'],
      ['stdout', 'i'],
      ['stdout', 'd'],
    ],
  ],
  [
    'console.log("one\\ntwo\\n")',
    [
      ['stdout', 'one'],
      ['stdout', 'two'],
      ['stdout', ''],
    ],
  ],
  [
    'process.stdout.write("a"); process.stderr.write("b"); process.stdout.write("c\\nd")',
    [
      ['stdout', 'ac'],
      ['stdout', 'd'],
      ['stderr', 'b'],
    ],
  ],
  ['process.stdout.write(Buffer.from([0xc3])); process.stdout.write(Buffer.from([0xa9, 0x0a]))', [['stdout', 'é']]],
  ['process.stdout.write(Buffer.from([0x61, 0xff]))', [['stdout', 'a\ufffd']]],
  ['process.stdout.write("6869", "hex")', [['stdout', 'hi']]],
  ['process.stdout.end("a"); process.stdout.end(); process.stdout.destroy(); process.stdout.write("b")', [['stdout', 'ab']]],
  ['await new Promise((done) => process.stdout.end("bye\\n", done))', [['stdout', 'bye']]],
  ['await new Promise((done) => process.stdout.write("x\\n", done))', [['stdout', 'x']]],
  ['console.log("x".repeat(20000))', [['stdout', `${'x'.repeat(8192)} [line cut]`]]],
  ['process.stdout.write("é".repeat(5000) + "\\n")', [['stdout', `${'é'.repeat(4096)} [line cut]`]]],
  ['console.log("\\ud800")', [['stdout', '\ufffd']]],
  ['setTimeout(() => console.log("timer"), 1); await new Promise((r) => setTimeout(r, 20))', [['stdout', 'timer']]],
];

test('what a handler prints arrives as lines of its call, and before the answer', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  for (const [source, expected] of PRINTED) {
    runner.lines.length = 0;
    const call = runner.invoke({ body: source });
    const frame = await runner.next();
    t.is(frame?.name, 'ANSWER', `${source} ${JSON.stringify(frame?.json)}`);
    t.deepEqual(
      runner.lines,
      expected.map(([stream, text]) => ({ stream, text, call })),
      source,
    );
  }
});

test('a flood of lines is cut to a rate, and says how many are missing', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  await runner.call({ body: 'for (let i = 0; i < 200000; i++) console.log("line")' });
  t.true(runner.lines.length < 5000, String(runner.lines.length));
  const dropped = runner.lines.map(({ text }) => Number(/^dropped (\d+) lines$/.exec(text)?.[1] ?? 0)).reduce((a, b) => a + b);
  t.is(runner.lines.filter(({ text }) => text === 'line').length + dropped, 200_000);
  t.is(runner.lines.at(-1)?.call, 1);
});

test('a gigabyte in one line costs a line', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  await runner.call({ body: 'const mebi = "x".repeat(1 << 20); for (let i = 0; i < 1024; i++) process.stdout.write(mebi)' });
  t.is(runner.lines.length, 1);
  t.true((runner.lines[0]?.text.length ?? 0) < 9000);
});

test('lines of calls that run beside each other stay with their calls', async (t) => {
  const source = `
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export async function handle(request) {
  for (let line = 0; line < 5; line++) {
    process.stdout.write(request.callId);
    await wait(Math.random() * 5);
    process.nextTick(() => console.log(' ' + line));
    await new Promise(setImmediate);
  }
  return '';
}`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source }, { concurrent: true });
  const calls = Array.from({ length: 50 }, (_, index) => runner.invoke({ callId: `id-${index + 1}` }));
  for (const _ of calls) t.is((await runner.next())?.name, 'ANSWER');
  t.is(runner.lines.length, 250);
  for (const { text, call } of runner.lines) t.regex(text, new RegExp(`^id-${call} \\d$`));
});

test('what is printed after the answer belongs to the instance', async (t) => {
  const source = `export function handle() {
    setTimeout(() => console.log('late'), 10);
    process.stdout.write('no end');
    return '';
  }`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  await runner.call();
  await waitUntil(async () => {
    await runner.call();
    return runner.lines.some(({ text }) => text === 'late');
  });
  t.deepEqual(runner.lines[0], { stream: 'stdout', text: 'no end', call: 1 });
  t.deepEqual(new Set(runner.lines.filter(({ text }) => text === 'late').map(({ call }) => call)), new Set([0]));
});

test('subprocesses and raw writes go to the log connection', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  const source =
    'fs.writeSync(2, "raw "); spawnSync("/bin/echo", ["sub"], { stdio: "inherit" }); console.log(String(execFileSync("/bin/echo", ["piped"])).trim())';
  t.is(bodyText(await runner.call({ body: source })), '');
  t.deepEqual(runner.lines, [{ stream: 'stdout', text: 'piped', call: 1 }]);
  await waitUntil(() => runner.raw.includes('raw ') && runner.raw.includes('sub\n'));
});
