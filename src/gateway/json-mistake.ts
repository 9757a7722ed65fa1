/** What may come next: a value, the same or `]`, a key or `}`, a key, a colon, a comma or the end of the container, nothing. */
type Expected = 'value' | 'element' | 'first-key' | 'key' | 'colon' | 'next' | 'end';

const BLANK = /[ \t\n\r]*/y;
const LITERAL = /(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?![0-9A-Za-z_.+-])/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})/y;

/**
 * Offset of the first character that JSON (RFC 8259) does not allow where it stands; the length when the text ends too
 * early, undefined when it is JSON. For messages only: `JSON.parse` decides, but names the place of some mistakes only.
 */
export function findJsonMistake(text: string): number | undefined {
  const open: ('}' | ']')[] = [];
  let expected: Expected = 'value';
  let index = 0;
  for (;;) {
    index = matchEnd(BLANK, text, index) ?? index;
    if (index >= text.length) return expected === 'end' ? undefined : index;
    const character = text[index] as string;
    const afterValue: Expected = open.length === 0 ? 'end' : 'next';
    const isClosing =
      character === open.at(-1) && (expected === 'next' || expected === (character === '}' ? 'first-key' : 'element'));
    if (isClosing) {
      open.pop();
      expected = open.length === 0 ? 'end' : 'next';
      index += 1;
    } else if (expected === 'next' && character === ',') {
      expected = open.at(-1) === '}' ? 'key' : 'value';
      index += 1;
    } else if (expected === 'colon' && character === ':') {
      expected = 'value';
      index += 1;
    } else if (expected === 'key' || expected === 'first-key') {
      const string = readString(text, index);
      if (!string.isWhole) return string.end;
      index = string.end;
      expected = 'colon';
    } else if (expected !== 'value' && expected !== 'element') {
      return index;
    } else if (character === '{' || character === '[') {
      open.push(character === '{' ? '}' : ']');
      expected = character === '{' ? 'first-key' : 'element';
      index += 1;
    } else if (character === '"') {
      const string = readString(text, index);
      if (!string.isWhole) return string.end;
      index = string.end;
      expected = afterValue;
    } else {
      const end = matchEnd(LITERAL, text, index);
      if (end === undefined) return index;
      index = end;
      expected = afterValue;
    }
  }
}

/** `end` is behind the closing quote, or where the string goes wrong. */
function readString(text: string, start: number): { readonly end: number; readonly isWhole: boolean } {
  if (text[start] !== '"') return { end: start, isWhole: false };
  let index = start + 1;
  while (index < text.length) {
    const code = text.charCodeAt(index);
    if (code === 34) return { end: index + 1, isWhole: true };
    if (code < 32) return { end: index, isWhole: false };
    const next = code === 92 ? matchEnd(ESCAPE, text, index) : index + 1;
    if (next === undefined) return { end: index, isWhole: false };
    index = next;
  }
  return { end: index, isWhole: false };
}

function matchEnd(pattern: RegExp, text: string, index: number): number | undefined {
  pattern.lastIndex = index;
  return pattern.test(text) ? pattern.lastIndex : undefined;
}
