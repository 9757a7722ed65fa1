import type { Attempt } from './attempt.ts';

const WAITS = 'time.sleep(60)';

/** Breaks the frames between runner and daemon on purpose: each is the end of the instance, and of nothing else. */
const BROKEN: readonly (readonly [title: string, python: string, javascript: string])[] = [
  ['writes garbage', 'say(os.urandom(100000))', 'say(Buffer.alloc(100000, 0xa5))'],
  [
    'writes log frames past the runner',
    'lines = fact(26, 0, {"stream": "stdout", "text": "x"}) * 1000\nwhile True: say(lines)',
    "const lines = Buffer.concat(Array(1000).fill(fact(26, 0, { stream: 'stdout', text: 'x' }))); for (;;) say(lines)",
  ],
  [
    'announces a giant frame',
    'say(struct.pack(">IBQ", 0x7fffffff, 20, calls))',
    "say(Buffer.from('7fffffff140000000000000001', 'hex'))",
  ],
  ['answers another call', 'say(answer(calls + 1, PLAIN))', 'say(answer(calls + 1, PLAIN))'],
  ['answers a call that cannot be', 'say(answer((1 << 64) - 1, PLAIN))', 'say(answer((1n << 64n) - 1n, PLAIN))'],
  ['says it is ready again', 'say(fact(18, 0, {}))', 'say(fact(18, 0, {}))'],
  [
    'says its sandbox failed while it serves',
    'say(fact(27, 0, {"step": "x", "errno": 0, "detail": "y"}))',
    "say(fact(27, 0, { step: 'x', errno: 0, detail: 'y' }))",
  ],
  [
    'gives credit for a body that is none',
    'say(fact(28, calls, {"bytes": 1 << 40}))',
    'say(fact(28, calls, { bytes: 2 ** 40 }))',
  ],
  ['closes its channel', 'os.close(channel)', 'fs.closeSync(channel)'],
  [
    'nests JSON deeply',
    'say(answer(calls, b"[" * 100000 + b"]" * 100000))',
    "say(answer(calls, '['.repeat(100000) + ']'.repeat(100000)))",
  ],
  [
    'splits the answer by a header',
    'say(answer(calls, {"status": 200, "headers": ["X-A", "b\\r\\nX-C: d"], "exec_us": 1}))',
    "say(answer(calls, { status: 200, headers: ['X-A', 'b\\r\\nX-C: d'], exec_us: 1 }))",
  ],
  [
    'switches protocols',
    'say(answer(calls, {"status": 101, "headers": ["Upgrade", "x"], "exec_us": 1}))',
    "say(answer(calls, { status: 101, headers: ['Upgrade', 'x'], exec_us: 1 }))",
  ],
  ['streams empty pieces without end', 'say(frame(22, calls, b""))', 'say(frame(22, calls))'],
];

export const PROTOCOL: readonly Attempt[] = BROKEN.map(([title, python, javascript]) => ({
  title,
  code: `${python}\n${WAITS}`,
  failure: 'bad_response',
  node: { code: `${javascript}; block();` },
}));
