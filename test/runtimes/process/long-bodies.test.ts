import { once } from 'node:events';
import { Readable } from 'node:stream';
import test from 'ava';
import { FaasError } from '../../../src/errors.ts';
import { call, RuntimeFixture, text } from '../../support/process-runtime.ts';

const MEBI = 1024 * 1024;
const DIGEST = `
import hashlib
def handle(request):
    return {"bytes": len(request.body), "sha256": hashlib.sha256(request.body).hexdigest()}
`;

test.serial('a body in pieces reaches the handler whole, in any cut', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start(DIGEST);
  const { createHash } = await import('node:crypto');
  for (const [beginningBytes, pieceBytes] of [
    [MEBI, 64 * 1024],
    [0, 1],
    [3, 3 * MEBI],
  ] as const) {
    const whole = Buffer.alloc(pieceBytes === 1 ? 5000 : 5 * MEBI + 7, `${pieceBytes} bytes `);
    const rest = Readable.from(cut(whole.subarray(beginningBytes), pieceBytes), { objectMode: false });
    const answer = await call(instance, { method: 'POST', body: whole.subarray(0, beginningBytes), rest });
    const sha256 = createHash('sha256').update(whole).digest('hex');
    t.deepEqual(JSON.parse(await text(answer)), { bytes: whole.length, sha256 });
    t.true(rest.destroyed);
  }
});

for (const [code, words] of [
  ['body_too_large', 'larger'],
  ['request_timeout', 'stopped'],
  ['cancelled', 'left'],
] as const) {
  test.serial(
    `a body that fails with ${code} raises in the handler, and the call ends with it; the instance goes on`,
    async (t) => {
      await using fixture = await RuntimeFixture.open();
      const instance = await fixture.start(DIGEST);
      const rest = new Readable({ read: () => undefined });
      const pending = call(instance, { body: Buffer.from('x'), rest });
      rest.push('y');
      rest.destroy(new FaasError(code, { detail: 'as the gateway says' }));
      const error = await t.throwsAsync(pending, { instanceOf: FaasError });
      t.is(error?.code, code);
      t.is(error?.detail, 'as the gateway says');
      t.true(fixture.lines.some((line) => line.text.includes(words)));
      t.is(JSON.parse(await text(await call(instance, { body: Buffer.from('abc') }))).bytes, 3);
    },
  );
}

test.serial('the end of an instance drops the body that it was sent', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start(DIGEST);
  const rest = new Readable({ read: () => undefined });
  const closed = once(rest, 'close');
  const pending = t.throwsAsync(call(instance, { body: Buffer.from('x'), rest }), { instanceOf: FaasError });
  await instance.kill();
  await closed;
  t.is((await pending)?.code, 'crash');
});

function* cut(whole: Buffer, pieceBytes: number): Generator<Buffer> {
  for (let start = 0; start < whole.length; start += pieceBytes) yield whole.subarray(start, start + pieceBytes);
}
