import test from 'ava';
import { reportError } from '../../src/cli/report.ts';

test('a file that the user may not touch is named and is not called our mistake; anything else is, with its origin', (t) => {
  const reported = (thrown: unknown): [number, string] => {
    let text = '';
    const code = reportError(thrown, { stderr: (part) => void (text += part) });
    return [code, text];
  };
  const [code, text] = reported(Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES', path: '/srv/x' }));
  t.is(code, 1);
  t.regex(text, /^gitfaas: \/srv\/x cannot be used \(EACCES\).* \[storage_failed\]\n {2}fix: /);
  t.regex(reported(new TypeError('unheard of'))[1], /\[internal\][^]*TypeError: unheard of/);
});
