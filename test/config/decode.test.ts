import test from 'ava';
import { decodeFile } from '../../src/config/decode.ts';

test('text comes back as it is, byte order mark and replacement characters included', (t) => {
  for (const text of ['', 'a: ü 😀\n', '\uFEFFa: 1\n', 'a: \uFFFD\r\n']) {
    t.deepEqual(decodeFile(Buffer.from(text), 'f.yaml'), { text });
  }
});

test('the first byte that is not UTF-8 is a problem at its place', (t) => {
  const cases: [string, number, number][] = [
    ['\xff', 1, 1],
    ['a: 1\n# \xe4\n', 2, 3],
    ['\xc3\xbc\xf0\x9f\x98\x80 \xc3\x28', 1, 4],
    ['ok\n\xed\xa0\x80', 2, 1],
    ['cut \xe2\x82', 1, 5],
  ];
  for (const [latin1, line, column] of cases) {
    t.like(decodeFile(Buffer.from(latin1, 'latin1'), 'f.yaml').problem, { file: 'f.yaml', line, column }, JSON.stringify(latin1));
  }
});
