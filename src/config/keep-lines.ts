/**
 * Printing YAML's model normalises what nobody asked to change: comments in columns, blank lines, padding, breaks in
 * flow collections. This puts the original lines back wherever the edit left the printed lines as they were.
 *
 * `before` is the unedited document as the printer writes it, `after` the edited one. Original and `before` hold the
 * same characters but for white space, so lines that start after the same number of those characters correspond; the
 * text between two such places is one block. A block of `before` that `after` still has is taken from the original.
 * When the printer changed more than white space there is no such correspondence, and `after` is the answer.
 */
export function keepLines(original: string, before: string, after: string): string {
  const lineEnd = original.includes('\r\n') ? '\r\n' : '\n';
  const blocks = correspondingBlocks(splitLines(original), splitLines(before));
  const afterLines = splitLines(after);
  if (blocks === undefined) return afterLines.map((line) => line + lineEnd).join('');

  const has = (block: Block, at: number) => at >= 0 && block.printed.every((line, index) => afterLines[at + index] === line);
  let head = 0;
  let from = 0;
  for (let block = blocks[head]; block !== undefined && has(block, from); block = blocks[head]) {
    from += block.printed.length;
    head += 1;
  }
  let tail = blocks.length;
  let to = afterLines.length;
  for (let block = blocks[tail - 1]; block !== undefined && tail > head; block = blocks[tail - 1]) {
    const start = to - block.printed.length;
    if (start < from || !has(block, start)) break;
    to = start;
    tail -= 1;
  }

  const lines = blocks.slice(0, head).flatMap(({ original: own }) => own);
  let next = head;
  while (from < to) {
    const at = from;
    const kept = blocks.findIndex(
      (block, index) => index >= next && index < tail && at + block.printed.length <= to && has(block, at),
    );
    const block = blocks[kept];
    // An empty block would be found for ever.
    if (block === undefined || block.printed.length === 0) {
      const line = afterLines[from] ?? '';
      // The printer indents blank lines before comments.
      lines.push(line.trim() === '' ? '' : line);
      from += 1;
    } else {
      lines.push(...block.original);
      from += block.printed.length;
      next = kept + 1;
    }
  }
  lines.push(...blocks.slice(tail).flatMap(({ original: own }) => own));
  return lines.map((line) => line + lineEnd).join('');
}

interface Block {
  readonly original: readonly string[];
  readonly printed: readonly string[];
}

function correspondingBlocks(original: readonly string[], printed: readonly string[]): Block[] | undefined {
  if (original.map(squeeze).join('') !== printed.map(squeeze).join('')) return undefined;
  const originalStarts = starts(original);
  const printedStarts = starts(printed);
  const shared = new Set(printedStarts);
  // Blank lines start where the next line starts, and so belong to it.
  const bounds = [...new Set(originalStarts.filter((start) => shared.has(start)))];
  return bounds.map((bound, index): Block => {
    const end = bounds[index + 1] ?? Number.POSITIVE_INFINITY;
    const within = (offsets: readonly number[]) => (_line: string, line: number) =>
      (offsets[line] ?? 0) >= bound && (offsets[line] ?? 0) < end;
    return { original: original.filter(within(originalStarts)), printed: printed.filter(within(printedStarts)) };
  });
}

/** For each line, how many characters other than white space stand before it. */
function starts(lines: readonly string[]): number[] {
  let count = 0;
  return lines.map((line) => {
    const start = count;
    count += squeeze(line).length;
    return start;
  });
}

function squeeze(line: string): string {
  return line.replaceAll(/\s+/g, '');
}

function splitLines(text: string): string[] {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === '') lines.pop();
  return lines;
}
