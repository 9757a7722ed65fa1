import type { Problem } from '../errors.ts';

/**
 * A file's bytes as text, with a problem at the first byte that is not UTF-8: the next change of the file would write the
 * replacement characters of a lossy reading over what stands there.
 */
export function decodeFile(
  bytes: Uint8Array,
  file: string,
): { readonly text: string; readonly problem?: undefined } | { readonly text?: undefined; readonly problem: Problem } {
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    const { line, column } = firstDifference(Buffer.from(bytes));
    return { problem: { file, line, column, message: 'the file is not valid UTF-8 here' } };
  }
}

/** Where the bytes stop being what their lossy reading says. */
function firstDifference(bytes: Buffer): { line: number; column: number } {
  const reread = Buffer.from(bytes.toString('utf8'), 'utf8');
  let at = 0;
  while (at < bytes.length && bytes[at] === reread[at]) at += 1;
  const before = bytes.subarray(0, at).toString('utf8').split('\n');
  return { line: before.length, column: [...(before.at(-1) ?? '')].length + 1 };
}
