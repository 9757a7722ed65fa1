/**
 * Sizes, CPU shares and durations as people write them. A parser reads the whole value or says what is wrong with it;
 * zero is never "unlimited". What a printer prints, its parser reads back as the same number.
 */
export type Parsed<Value> =
  | { readonly value: Value; readonly problem?: undefined }
  | { readonly value?: undefined; readonly problem: string };

const BYTE_UNITS = [
  ['Ti', 1024 ** 4],
  ['Gi', 1024 ** 3],
  ['Mi', 1024 ** 2],
  ['Ki', 1024],
] as const;
const MS_UNITS = [
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
] as const;

const DECIMAL = /^(\d+(?:\.\d+)?)([A-Za-z]*)$/;

/** `256Mi`, `1.5Gi` -> bytes; a unit is demanded. */
export function parseBytes(raw: unknown): Parsed<number> {
  if (typeof raw === 'number') return refuse(raw, 'a size', `it has no unit${didYouMean(raw > 0 ? `${raw}Mi` : undefined)}`);
  if (typeof raw !== 'string') return refuse(raw, 'a size', 'write it like 256Mi or 1Gi');
  const match = DECIMAL.exec(raw);
  if (match === null) return refuse(raw, 'a size', 'write it like 256Mi or 1Gi');
  const [, digits = '', unit = ''] = match;
  const factor = BYTE_UNITS.find(([name]) => name === unit)?.[1];
  if (factor === undefined) return refuse(raw, 'a size', unitAdvice(digits, unit));
  return whole(raw, Number(digits) * factor, 'a size', 'a whole number of bytes');
}

/** In the largest unit that gives a whole number, else in (fractional) Ki. */
export function printBytes(bytes: number): string {
  const [unit, factor] = BYTE_UNITS.find(([, size]) => bytes % size === 0) ?? BYTE_UNITS[3];
  return `${bytes / factor}${unit}`;
}

/** `100m`, `0.5`, `1` (number or text) -> thousandths of one CPU. */
export function parseCpuMillis(raw: unknown): Parsed<number> {
  const advice = 'write thousandths like 100m, or CPUs like 0.5';
  if (typeof raw === 'number') return whole(raw, scale(raw, 1000), 'a CPU share', 'a whole number of thousandths');
  if (typeof raw !== 'string') return refuse(raw, 'a CPU share', advice);
  const match = DECIMAL.exec(raw);
  const [, digits = '', unit = ''] = match ?? [];
  if (match === null || (unit !== '' && unit !== 'm')) {
    return refuse(raw, 'a CPU share', match === null || unit.toLowerCase() !== 'm' ? advice : `did you mean ${digits}m?`);
  }
  const millis = unit === 'm' ? Number(digits) : scale(Number(digits), 1000);
  return whole(raw, millis, 'a CPU share', 'a whole number of thousandths');
}

/** Whole CPUs as `2`, all else as `100m`. */
export function printCpuMillis(millis: number): string {
  return millis % 1000 === 0 ? String(millis / 1000) : `${millis}m`;
}

/** Seconds as a number (`30`, `0.5`, also as text), or `500ms`, `30s`, `5m`, `1h` -> milliseconds. */
export function parseDurationMs(raw: unknown): Parsed<number> {
  const advice = 'write seconds as a number, or a text like 500ms, 30s or 5m';
  if (typeof raw === 'number') return whole(raw, scale(raw, 1000), 'a duration', 'a whole number of milliseconds');
  if (typeof raw !== 'string') return refuse(raw, 'a duration', advice);
  const match = DECIMAL.exec(raw);
  if (match === null) return refuse(raw, 'a duration', advice);
  const [, digits = '', unit = ''] = match;
  const factor = unit === '' ? 1000 : MS_UNITS.find(([name]) => name === unit)?.[1];
  if (factor === undefined) {
    const meant = MS_UNITS.find(([name]) => unit.toLowerCase().startsWith(name) && name !== 'ms')?.[0];
    return refuse(
      raw,
      'a duration',
      meant === undefined ? advice : `did you mean ${digits}${/^(ms|milli)/i.test(unit) ? 'ms' : meant}?`,
    );
  }
  return whole(raw, scale(Number(digits), factor), 'a duration', 'a whole number of milliseconds');
}

/** In the largest unit that gives a whole number. */
export function printDurationMs(durationMs: number): string {
  const [unit, factor] = MS_UNITS.find(([, size]) => durationMs % size === 0) ?? MS_UNITS[3];
  return `${durationMs / factor}${unit}`;
}

/** `value * factor`, without the error that binary fractions bring: 1.001 s are 1001 ms, not 1000.9999999999999. */
function scale(value: number, factor: number): number {
  const product = value * factor;
  const rounded = Math.round(product);
  return Math.abs(product - rounded) <= Math.abs(product) * 1e-12 ? rounded : product;
}

function whole(raw: unknown, value: number, what: string, grain: string): Parsed<number> {
  if (value === 0) return refuse(raw, what, '0 does not mean unlimited; give a limit or remove the line');
  if (!Number.isSafeInteger(value) || value < 0) return refuse(raw, what, `it must be ${grain}, more than 0`);
  return { value };
}

function refuse(raw: unknown, what: string, advice: string): Parsed<never> {
  const shown = raw === null ? 'an empty value' : (JSON.stringify(raw) ?? String(raw));
  return { problem: `${shown.length > 60 ? `${shown.slice(0, 60)}…` : shown} is not ${what}: ${advice}` };
}

function unitAdvice(digits: string, unit: string): string {
  if (unit === '') return `it has no unit${didYouMean(Number(digits) > 0 ? `${digits}Mi` : undefined)}`;
  const meant = BYTE_UNITS.find(([name]) => name[0]?.toLowerCase() === unit[0]?.toLowerCase())?.[0];
  if (meant === undefined || !/^[kmgt]i?b?$/i.test(unit)) return 'the units are Ki, Mi, Gi and Ti';
  return `the units are Ki, Mi, Gi and Ti${didYouMean(`${digits}${meant}`)}`;
}

function didYouMean(meant: string | undefined): string {
  return meant === undefined ? '' : `; did you mean ${meant}?`;
}
