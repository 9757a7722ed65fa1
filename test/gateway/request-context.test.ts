import test from 'ava';
import fc from 'fast-check';
import { formatMs, formatSeconds, formatTime, isCallId, RequestContext } from '../../src/gateway/request-context.ts';

test('a time is written as Date writes it, whatever was written before', (t) => {
  const epochMs = fc.double({ min: 0, max: 4e12, noNaN: true });
  fc.assert(fc.property(epochMs, (ms) => formatTime(ms) === new Date(Math.floor(ms)).toISOString()));
  t.pass();
});

test('a call id is kept exactly when it fits its pattern', (t) => {
  fc.assert(fc.property(fc.string({ maxLength: 140 }), (text) => isCallId(text) === /^[A-Za-z0-9._-]{1,128}$/.test(text)));
  t.true(isCallId('a'.repeat(128)));
  t.is(new RequestContext(['a', 'b'], 0, false).callId.length, 36);
});

test('call ids made here carry the time and do not repeat', (t) => {
  const ids = Array.from({ length: 1000 }, () => new RequestContext(undefined, 1_700_000_000_000.9, false).callId);
  t.is(new Set(ids).size, ids.length);
  for (const id of ids) t.is(Number.parseInt(id.replace('-', '').slice(0, 12), 16), 1_700_000_000_000);
});

for (const [ms, seconds, text] of [
  [0, '0.000000', '0'],
  [-1, '0.000000', '0'],
  [1234.5678, '1.234568', '1234.568'],
  [0.0001, '0.000000', '0'],
  [86_400_000, '86400.000000', '86400000'],
] as const) {
  test(`${ms} ms is ${seconds} in X-Duration-Seconds and ${text} in Server-Timing`, (t) => {
    t.is(formatSeconds(ms), seconds);
    t.is(formatMs(ms), text);
  });
}
