import test from 'ava';
import fc from 'fast-check';
import { findJsonMistake } from '../../src/gateway/json-mistake.ts';

const rows: readonly [string, number][] = [
  ['', 0],
  ['  ', 2],
  ['{', 1],
  ['{"a"', 4],
  ['{"a" 1}', 5],
  ['{"a": x}', 6],
  ['{"a": 1,}', 8],
  ['[1,]', 3],
  ['[1 2]', 3],
  ['{"a": 01}', 6],
  ['{"a": "b\nc"}', 8],
  ['{"a": "\\x"}', 7],
  ['{"a": "open', 11],
  ['{} {}', 3],
  ['{a: 1}', 1],
  ["{'a': 1}", 1],
  ['{"a": 1 // why\n}', 8],
  ['[}', 1],
  ['{]', 1],
  ['nul', 0],
  ['1.', 0],
];
for (const [text, offset] of rows) {
  test(`the mistake in ${JSON.stringify(text)} is found at ${offset}`, (t) => {
    t.is(findJsonMistake(text), offset);
  });
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

test('it agrees with JSON.parse about what is JSON', (t) => {
  const characters = fc.constantFrom(...'{}[],:"\\/ \n019-+.eEtrufalsn\u0000x');
  fc.assert(fc.property(fc.json(), (text) => findJsonMistake(text) === undefined));
  fc.assert(
    fc.property(
      fc.array(characters, { maxLength: 12 }),
      (parts) => (findJsonMistake(parts.join('')) === undefined) === isJson(parts.join('')),
    ),
    { numRuns: 5000 },
  );
  fc.assert(
    fc.property(fc.json(), fc.nat(), characters, (text, at, character) => {
      const place = at % (text.length + 1);
      const changed = text.slice(0, place) + character + text.slice(place + 1);
      return (findJsonMistake(changed) === undefined) === isJson(changed);
    }),
    { numRuns: 2000 },
  );
  t.pass();
});
