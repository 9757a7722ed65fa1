/**
 * Attributes that make files on disk differ from the committed bytes, run programs or hide files. What we run are the
 * committed bytes, so below `functions/` they would only mislead.
 */
const REFUSED = new Set(['filter', 'ident', 'working-tree-encoding', 'export-ignore', 'export-subst']);

export interface RefusedAttribute {
  readonly name: string;
  /** 1-based. */
  readonly line: number;
}

/** Attributes that a `.gitattributes` file sets and that are refused below `functions/` (gitattributes(5)). */
export function refusedAttributes(text: string): RefusedAttribute[] {
  const refused: RefusedAttribute[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) continue;
    // A pattern with blanks stands in double quotes, with C escapes.
    const rest = trimmed.replace(/^(?:"(?:[^"\\]|\\.)*"|\S+)/, '');
    for (const word of rest.split(/[ \t\r]+/)) {
      // `-name` and `!name` switch an attribute off, which is harmless.
      const name = word.split('=')[0] ?? '';
      if (REFUSED.has(name)) refused.push({ name, line: index + 1 });
    }
  }
  return refused;
}
