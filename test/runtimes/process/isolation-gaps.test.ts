import { readFileSync } from 'node:fs';
import test from 'ava';

const CODE = new URL('../../../src/runtimes/process/isolation.ts', import.meta.url);
const PAGE = new URL('../../../docs/SECURITY.md', import.meta.url);

/** The list items behind "Does not block" by the line `<level>...:` above them, up to the end of the comment or section. */
function gaps(text: string): Record<string, string[]> {
  const found: Record<string, string[]> = {};
  let items: string[] = [];
  const lines = text.slice(text.lastIndexOf('Does not block')).split('\n');
  for (const line of lines.map((raw) => raw.replace(/^ \*( |\/|$)/, '').trim())) {
    const level = /^\**(strict|standard|none)(?:, besides)?:\**$/.exec(line)?.[1];
    if (level !== undefined) found[level] = items = [];
    else if (line.startsWith('- ')) items.push(line.slice(2));
    else if (line.startsWith('## ')) break;
  }
  return found;
}

test('what the isolation does not block is told to users as it stands in the code', (t) => {
  const code = gaps(readFileSync(CODE, 'utf8'));
  t.deepEqual(Object.keys(code), ['strict', 'standard', 'none']);
  t.true(Object.values(code).every((items) => items.length > 0));
  t.deepEqual(gaps(readFileSync(PAGE, 'utf8')), code);
});
