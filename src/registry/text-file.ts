/** A file of a function. */
export interface TextFile {
  /** Path from the top of the workspace. */
  readonly file: string;
  readonly text: string;
}

/** Where a key of JSON stands: the first one after the start of its section. */
export function placeOf(file: TextFile, key: string, section?: string): { file: string; line: number; column: number } {
  const from = section === undefined ? 0 : Math.max(0, file.text.indexOf(JSON.stringify(section)));
  const at = file.text.indexOf(JSON.stringify(key), from);
  if (at < 0) return { file: file.file, line: 1, column: 1 };
  const before = file.text.slice(0, at).split('\n');
  return { file: file.file, line: before.length, column: [...(before.at(-1) ?? '')].length + 1 };
}
