import test from 'ava';
import { readPreconditions } from '../../src/gateway/preconditions.ts';

const rows: readonly [string, readonly string[] | '*', readonly string[] | '*'][] = [
  // Header, as If-Match (strong), as If-None-Match (weak).
  ['*', '*', '*'],
  [' * ', '*', '*'],
  ['"a"', ['a'], ['a']],
  ['"a", "b"', ['a', 'b'], ['a', 'b']],
  ['"a","b"', ['a', 'b'], ['a', 'b']],
  ['W/"a", "b"', ['b'], ['a', 'b']],
  ['W/"a"', [], ['a']],
  [', "a" ,, "b",', ['a', 'b'], ['a', 'b']],
  ['"a,b"', ['a,b'], ['a,b']],
  ['""', [''], ['']],
];
for (const [header, strong, weak] of rows) {
  test(`the tags of ${JSON.stringify(header)} are read`, (t) => {
    t.deepEqual(readPreconditions({ 'if-match': header, 'if-none-match': header }), { ifMatch: strong, ifNoneMatch: weak });
  });
}

for (const header of ['a', '"a', 'a"', '"a" "b"', '"a" b', 'w/"a"', '', ',', '*, "a"', '"a"; "b"', '"a b"']) {
  test(`${JSON.stringify(header)} is refused as a list of tags`, (t) => {
    for (const name of ['if-match', 'if-none-match'])
      t.throws(() => readPreconditions({ [name]: header }), { message: /bad_request/ });
  });
}

test('without the headers there are no conditions', (t) => {
  t.deepEqual(readPreconditions({}), { ifMatch: undefined, ifNoneMatch: undefined });
});
