import test from 'ava';
import fc from 'fast-check';
import {
  decodeJson,
  decodeMeta,
  encodeFrame,
  encodeJson,
  encodeMeta,
  FRAME,
  FrameDecoder,
  MAX_META_BYTES,
  ProtocolError,
  type FrameType,
} from '../../src/runtimes/protocol.ts';

const limits = new Map<number, number>(Object.values(FRAME).map((type) => [type, 1 << 20]));

interface Seen {
  type: FrameType;
  call: number;
  payload: string;
}

function decodeChunks(chunks: readonly Buffer[], frameLimits = limits): Seen[] {
  const seen: Seen[] = [];
  const decoder = new FrameDecoder(frameLimits, (type, call, payload) =>
    seen.push({ type, call, payload: payload.toString('hex') }),
  );
  for (const chunk of chunks) decoder.push(chunk);
  return seen;
}

function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let at = 0;
  for (const size of sizes) {
    chunks.push(Buffer.from(bytes.subarray(at, at + size)));
    at += size;
  }
  chunks.push(Buffer.from(bytes.subarray(at)));
  return chunks;
}

const anyFrame = fc.record({
  type: fc.constantFrom(...Object.values(FRAME)),
  call: fc.maxSafeNat(),
  payload: fc.uint8Array({ maxLength: 300 }),
});

test('frames survive any chunking', (t) => {
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 8 }),
      fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 60 }),
      (frames, sizes) => {
        const bytes = Buffer.concat(frames.map((frame) => encodeFrame(frame.type, frame.call, frame.payload)));
        const wanted = frames.map((frame) => ({ ...frame, payload: Buffer.from(frame.payload).toString('hex') }));
        t.deepEqual(decodeChunks(cut(bytes, sizes)), wanted);
      },
    ),
  );
  t.pass();
});

test('head and body of a META frame come back as they were', (t) => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.string()), fc.uint8Array({ maxLength: 2000 }), (members, bytes) => {
      const wanted = JSON.parse(JSON.stringify(members)) as object;
      const decoder = new FrameDecoder(limits, (_type, _call, payload) => {
        const { meta, body } = decodeMeta(payload);
        t.deepEqual({ ...meta }, wanted);
        t.true(body.equals(bytes));
      });
      decoder.push(encodeMeta(FRAME.ANSWER, 7, members, bytes));
    }),
  );
  t.pass();
});

const header = (length: number, type: number, call = 0n): Buffer => {
  const bytes = Buffer.alloc(13);
  bytes.writeUInt32BE(length, 0);
  bytes.writeUInt8(type, 4);
  bytes.writeBigUInt64BE(call, 5);
  return bytes;
};

const violations: readonly (readonly [string, Buffer, RegExp])[] = [
  ['an unknown type', header(9, 99), /unknown type 99/],
  ['a length below its own header', header(8, FRAME.LOG), /shorter than its header/],
  ['a length above the limit of its type', header(0xffff_ffff, FRAME.LOG), /bytes, 1048576 are allowed/],
  ['a call number that is no safe integer', header(9, FRAME.LOG, 1n << 60n), /out of range/],
];

for (const [name, bytes, message] of violations) {
  test(`the decoder throws on ${name} as soon as the header is there, whole or byte by byte`, (t) => {
    t.throws(() => decodeChunks([bytes]), { instanceOf: ProtocolError, message });
    t.throws(() => decodeChunks([...bytes].map((byte) => Buffer.of(byte))), { instanceOf: ProtocolError, message });
  });
}

test('a type that the receiver does not list is refused', (t) => {
  t.throws(() => decodeChunks([encodeFrame(FRAME.INVOKE, 1)], new Map([[FRAME.LOG, 10]])), { instanceOf: ProtocolError });
});

test('a huge announced frame takes no memory before it is refused', (t) => {
  const before = process.memoryUsage().arrayBuffers;
  t.throws(() => decodeChunks([header(2_000_000_000, FRAME.ANSWER)]), { instanceOf: ProtocolError });
  t.true(process.memoryUsage().arrayBuffers - before < 1 << 24);
});

for (const text of ['', '[]', 'null', '"a"', '{', '{"a":1}x']) {
  test(`JSON payload ${JSON.stringify(text)} is a protocol error`, (t) => {
    t.throws(() => decodeJson(Buffer.from(text)), { instanceOf: ProtocolError });
  });
}

test('a META payload whose head is longer than the frame or the limit is a protocol error', (t) => {
  const tooLong = Buffer.alloc(8);
  tooLong.writeUInt32BE(5, 0);
  t.throws(() => decodeMeta(tooLong), { instanceOf: ProtocolError });
  t.throws(() => decodeMeta(Buffer.alloc(3)), { instanceOf: ProtocolError });
  const overLimit = Buffer.alloc(MAX_META_BYTES + 100);
  overLimit.writeUInt32BE(MAX_META_BYTES + 1, 0);
  t.throws(() => decodeMeta(overLimit), { instanceOf: ProtocolError });
});

test('JSON frames carry text of any script', (t) => {
  const seen: unknown[] = [];
  new FrameDecoder(limits, (_type, _call, payload) => seen.push(decodeJson(payload))).push(
    encodeJson(FRAME.LOG, 2, { text: 'Grüße, 世界 🚀' }),
  );
  t.deepEqual(seen, [{ text: 'Grüße, 世界 🚀' }]);
});
