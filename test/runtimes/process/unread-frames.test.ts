import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { answerPayload, PUPPET } from '../../support/puppet.ts';
import { call, RuntimeFixture } from '../../support/process-runtime.ts';

/** Answers each call that a file in its directory tells of, and reads none. */
const DEAF = `
import time
for number in range(1, 1000):
    while not os.path.exists(f"call-{number}"):
        time.sleep(0.001)
    send(20, number, ${JSON.stringify(answerPayload('deaf'))}.encode("latin1"))
`;
const BODY = Buffer.alloc(1024 * 1024);
/** Far fewer bodies than these may wait in the daemon. */
const CALLS = 40;

test('an instance that answers without reading is ended before the daemon holds much for it', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const request = fixture.request(PUPPET.replace(/while True:\n {4}length[^]*/, DEAF));
  const instance = await fixture.runtime.start(request, AbortSignal.timeout(30_000));
  let answered = 0;
  const error = await t.throwsAsync(async () => {
    for (; answered < CALLS; answered += 1) {
      const answer = call(instance, { body: BODY });
      writeFileSync(join(request.codeDirectory, `call-${answered + 1}`), '');
      await answer;
    }
  });
  t.like(error, { code: 'bad_response' });
  t.regex(error?.message ?? '', /does not read what it is sent/);
  t.true(answered > 2, `${answered}`);
  t.is((await instance.exited).cause, 'bad_response');
});
