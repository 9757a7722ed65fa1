import test from 'ava';
import fc from 'fast-check';
import {
  cutLine,
  LINE_MAX_BYTES,
  LineGate,
  LINES_PER_SECOND_MAX,
  LineSplitter,
  type PrintedLine,
} from '../../../src/runtimes/process/log-lines.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function split(chunks: readonly Buffer[]): string[] {
  const lines: string[] = [];
  const splitter = new LineSplitter((text) => lines.push(text));
  for (const chunk of chunks) splitter.push(chunk);
  splitter.flush();
  return lines;
}

test('lines survive any chunking', (t) => {
  const line = fc.string({ unit: 'grapheme', maxLength: 50 }).map((text) => text.replaceAll('\n', ' '));
  fc.assert(
    fc.property(
      fc.array(line, { maxLength: 10 }),
      fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 20 }),
      (lines, sizes) => {
        const bytes = Buffer.from(lines.map((text) => `${text}\n`).join(''));
        const chunks: Buffer[] = [];
        let at = 0;
        for (const size of sizes) chunks.push(bytes.subarray(at, (at += size)));
        chunks.push(bytes.subarray(at));
        t.deepEqual(split(chunks), lines);
      },
    ),
  );
  t.pass();
});

test('a line without end is cut, says by how much, and the next line is whole', (t) => {
  const [long, next] = split([Buffer.alloc(LINE_MAX_BYTES - 1, 'a'), Buffer.alloc(100_000, 'a'), Buffer.from('\nnext')]);
  t.is(long, `${'a'.repeat(LINE_MAX_BYTES)} [gitfaas: ${100_000 - 1} more bytes]`);
  t.is(next, 'next');
});

test('bytes that are no UTF-8 are replaced', (t) => {
  t.deepEqual(split([Buffer.from([0x61, 0xff, 0x62, 0x0a])]), ['a\ufffdb']);
});

test('a long line of the handler is cut', (t) => {
  t.is(cutLine('short'), 'short');
  t.regex(cutLine('x'.repeat(LINE_MAX_BYTES + 7)), /\[gitfaas: 7 more characters\]$/);
  const cutBefore = `${'x'.repeat(LINE_MAX_BYTES)} [line cut]`;
  t.is(cutLine(cutBefore), cutBefore, 'what the runner cut is not cut again');
});

test('lines beyond the rate are dropped, and their number is told when the second is over', async (t) => {
  const clock = new FakeClock();
  const out: PrintedLine[] = [];
  const gate = new LineGate(clock, (line) => out.push(line));
  for (let count = 0; count < LINES_PER_SECOND_MAX + 25; count++) gate.pass({ stream: 'stdout', text: 'x', callId: 'c' });
  t.is(out.length, LINES_PER_SECOND_MAX);
  await clock.advance(1001);
  t.is(out.length, LINES_PER_SECOND_MAX + 1);
  t.like(out.at(-1), { stream: 'stderr', callId: undefined });
  t.regex(out.at(-1)?.text ?? '', /dropped 25 lines/);
  gate.pass({ stream: 'stdout', text: 'again', callId: undefined });
  t.is(out.at(-1)?.text, 'again');
  gate.close();
  t.is(out.length, LINES_PER_SECOND_MAX + 2);
});

test('after a line that was not taken the rest of a chunk is only counted, and a line across chunks stays whole', (t) => {
  const lines: string[] = [];
  let skipped = 0;
  const splitter = new LineSplitter(
    (line) => lines.push(line) < 2,
    (count) => (skipped += count),
  );
  splitter.push(Buffer.from('a\nb\nc\n\nd\ne'));
  t.deepEqual([lines, skipped], [['a', 'b'], 3]);
  splitter.push(Buffer.from('f\ng'));
  t.deepEqual([lines, skipped], [['a', 'b', 'ef'], 3]);
});
