import test from 'ava';
import fc from 'fast-check';
import {
  parseBytes,
  parseCpuMillis,
  parseDurationMs,
  printBytes,
  printCpuMillis,
  printDurationMs,
  type Parsed,
} from '../../src/config/units.ts';

const UNITS = [
  { what: 'a size', parse: parseBytes, print: printBytes, highest: Number.MAX_SAFE_INTEGER },
  { what: 'a CPU share', parse: parseCpuMillis, print: printCpuMillis, highest: Number.MAX_SAFE_INTEGER },
  { what: 'a duration', parse: parseDurationMs, print: printDurationMs, highest: Number.MAX_SAFE_INTEGER },
];

for (const { what, parse, print, highest } of UNITS) {
  test(`${what} reads back what it printed`, (t) => {
    fc.assert(fc.property(fc.integer({ min: 1, max: highest }), (value) => parse(print(value)).value === value));
    t.pass();
  });

  test(`${what} is a positive whole number or a problem, whatever the text`, (t) => {
    const text = fc.oneof(fc.string(), fc.stringMatching(/^-?\d{0,20}(\.\d{0,4})?[a-zA-Z]{0,3}$/), fc.double(), fc.jsonValue());
    fc.assert(
      fc.property(text, (raw) => {
        const { value, problem } = parse(raw);
        return problem === undefined ? Number.isSafeInteger(value) && value > 0 : value === undefined && problem.length > 0;
      }),
    );
    t.pass();
  });
}

const READ: readonly (readonly [(raw: unknown) => Parsed<number>, unknown, number])[] = [
  [parseBytes, '256Mi', 256 * 1024 ** 2],
  [parseBytes, '1.5Gi', 1.5 * 1024 ** 3],
  [parseBytes, '1Ki', 1024],
  [parseCpuMillis, '100m', 100],
  [parseCpuMillis, '0.5', 500],
  [parseCpuMillis, 1, 1000],
  [parseCpuMillis, 0.1, 100],
  [parseDurationMs, 30, 30_000],
  [parseDurationMs, 1.001, 1001],
  [parseDurationMs, '30', 30_000],
  [parseDurationMs, '500ms', 500],
  [parseDurationMs, '0.5s', 500],
  [parseDurationMs, '5m', 300_000],
  [parseDurationMs, '1h', 3_600_000],
];

for (const [parse, raw, value] of READ) {
  test(`${parse.name} reads ${JSON.stringify(raw)}`, (t) => t.deepEqual(parse(raw), { value }));
}

const REFUSED: readonly (readonly [(raw: unknown) => Parsed<number>, unknown, RegExp])[] = [
  [parseBytes, '100m', /did you mean 100Mi\?/],
  [parseBytes, '10MB', /did you mean 10Mi\?/],
  [parseBytes, '128', /no unit; did you mean 128Mi\?/],
  [parseBytes, 128, /no unit; did you mean 128Mi\?/],
  [parseBytes, '0Mi', /0 does not mean unlimited/],
  [parseBytes, '-1Mi', /write it like 256Mi/],
  [parseBytes, '1 Gi', /write it like 256Mi/],
  [parseBytes, '1Mi ', /write it like 256Mi/],
  [parseBytes, '0.0001Ki', /whole number of bytes/],
  [parseBytes, null, /an empty value is not a size/],
  [parseCpuMillis, 0, /0 does not mean unlimited/],
  [parseCpuMillis, '100M', /did you mean 100m\?/],
  [parseCpuMillis, '0.0001', /whole number of thousandths/],
  [parseCpuMillis, Number.NaN, /whole number/],
  [parseDurationMs, 0, /0 does not mean unlimited/],
  [parseDurationMs, '0s', /0 does not mean unlimited/],
  [parseDurationMs, '5 min', /write seconds as a number/],
  [parseDurationMs, '5min', /did you mean 5m\?/],
  [parseDurationMs, '5sec', /did you mean 5s\?/],
  [parseDurationMs, '500msec', /did you mean 500ms\?/],
  [parseDurationMs, '1m30s', /write seconds as a number/],
  [parseDurationMs, '0.1ms', /whole number of milliseconds/],
  [parseDurationMs, Number.POSITIVE_INFINITY, /whole number/],
];

for (const [parse, raw, problem] of REFUSED) {
  test(`${parse.name} refuses ${typeof raw === 'number' ? raw : JSON.stringify(raw)} with advice`, (t) =>
    t.regex(parse(raw).problem ?? '', problem));
}
