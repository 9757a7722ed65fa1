import { isReached, type Row } from './benchmark.ts';

const HEADER = ['', 'n', 'p50', 'p95', 'p99', 'unit', 'level', ''];

/** The rows of one benchmark as text, columns aligned. */
export function formatRows(rows: readonly Row[]): string {
  const cells = [HEADER, ...rows.map(cellsOf)];
  const widths = HEADER.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? '').length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) =>
        column === 0 || column >= 5 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd();
  return cells.map((row) => `  ${line(row)}`).join('\n');
}

function cellsOf(row: Row): string[] {
  const { what, unit, count, p50, p95, p99, level } = row;
  const reached = isReached(row);
  const levels = [level?.p50, level?.p99].flatMap((wanted, at) =>
    wanted === undefined ? [] : [`${at === 1 ? 'p99 ' : ''}${figure(wanted)}`],
  );
  return [
    what,
    String(count),
    figure(p50),
    p95 === undefined ? '' : figure(p95),
    p99 === undefined ? '' : figure(p99),
    unit,
    level === undefined ? '' : `${level.isAtLeast === true ? '>=' : '<='} ${levels.join(', ')}`,
    reached === undefined ? '' : reached ? 'reached' : 'MISSED',
  ];
}

/** Three significant figures. */
function figure(value: number): string {
  if (value >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(value >= 1 ? 2 : 3);
}
