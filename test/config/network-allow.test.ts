import test from 'ava';
import { loadConfig } from '../../src/config/load.ts';
import { parseNetworkAllow, parseNetworkRange, parseResolver } from '../../src/config/network-allow.ts';

const entries: readonly (readonly [string, string])[] = [
  ['10.1.2.3', '10.1.2.3/32'],
  ['10.1.2.3:5432', '10.1.2.3/32:5432'],
  ['10.0.0.0/8', '10.0.0.0/8'],
  ['10.1.0.0/16:443', '10.1.0.0/16:443'],
  ['169.254.169.254:80', '169.254.169.254/32:80'],
  ['203.0.113.7', '203.0.113.7/32'],
];

test('an address, a range, and either with a port have one canonical form each', (t) => {
  for (const [text, value] of entries) t.deepEqual(parseNetworkAllow(text), { value });
  for (const [, value] of entries) t.deepEqual(parseNetworkAllow(value), { value }, 'the form itself is read back');
});

const refusals: readonly (readonly [string, RegExp])[] = [
  ['db.internal', /is a name/],
  ['localhost', /is a name/],
  ['127.0.0.1', /loopback/],
  ['127.8.0.0/16', /loopback/],
  ['0.0.0.0/0', /from \/8 to \/32/],
  ['0.0.0.0/8', /cannot be allowed/],
  ['10.0.0.0/7', /from \/8 to \/32/],
  ['10.0.0.0/33', /from \/8 to \/32/],
  ['10.1.2.3/8', /did you mean 10\.0\.0\.0\/8\?/],
  ['224.0.0.1', /no address of a single host/],
  ['255.255.255.255', /no address of a single host/],
  ['167772161', /no address/],
  ['0x0a000001', /is a name/],
  ['010.0.0.1', /no address/],
  ['10.1', /no address/],
  ['10.0.0.256', /no address/],
  ['10.0.0.1:0', /a port is a number/],
  ['10.0.0.1:65536', /a port is a number/],
  ['10.0.0.1:080', /a port is a number/],
  ['10.0.0.1:http', /is a name/],
  ['fd00::1', /IPv6 is off/],
  ['::ffff:10.0.0.1', /IPv6 is off/],
  ['[fd00::1]:443', /IPv6 is off/],
  ['10.0.0.1\n10.0.0.2', /no address/],
  ['10.0.0.1 }; flush ruleset', /is a name/],
  ['', /no address/],
];

test('names, other spellings, IPv6, the host itself and rubbish are refused, with advice', (t) => {
  for (const [text, problem] of refusals) t.regex(parseNetworkAllow(text).problem ?? '', problem, JSON.stringify(text));
});

test('a range of the daemon is at least a /24, and a resolver is one address', (t) => {
  t.deepEqual(parseNetworkRange(''), { value: '' });
  t.deepEqual(parseNetworkRange('10.77.0.0/16'), { value: '10.77.0.0/16' });
  for (const text of ['10.77.0.0/25', '10.77.0.1', '10.77.0.0/16:80', '10.77.0.1/16'])
    t.truthy(parseNetworkRange(text).problem, text);
  t.deepEqual(parseResolver('9.9.9.9'), { value: '9.9.9.9' });
  for (const text of ['127.0.0.53', '9.9.9.9/32', '9.9.9.9:53', 'dns.example', '']) t.truthy(parseResolver(text).problem, text);
});

const load = (functions: string) =>
  loadConfig(`functions:\n  a: ${functions}\n`, 'f', { flags: {}, environment: {}, workspaceRoot: '/w' });

test('network follows auto when it is not set, and network_allow is sorted and counts once', (t) => {
  t.is(load('{}').config?.specFor('a').network, 'auto');
  for (const network of ['egress', 'none', 'host', 'auto'] as const)
    t.is(load(`{network: ${network}}`).config?.specFor('a').network, network);
  const { config } = load('{network_allow: [10.2.0.0/16, 10.1.2.3, 10.1.2.3/32]}');
  t.deepEqual(config?.specFor('a').networkAllow, ['10.1.2.3/32', '10.2.0.0/16']);
});

test('network_allow is refused where it could not change anything', (t) => {
  for (const network of ['host', 'none']) {
    const { problems } = load(`{network: ${network}, network_allow: [10.0.0.0/8]}`);
    t.regex(
      problems.map(({ line, column, message }) => `${line}:${column} ${message}`).join(),
      /^2:\d+ network_allow counts with egress only/,
    );
  }
});

test('what is wrong is told at the entry it is about', (t) => {
  const { problems } = loadConfig(
    'system: {network_range: 10.0.0.1, network_resolvers: [127.0.0.53]}\nfunctions:\n  a:\n    network_allow:\n      - 10.0.0.0/8\n      - 10.0.0.1/8\n',
    'f',
    { flags: {}, environment: {}, workspaceRoot: '/w' },
  );
  t.deepEqual(
    problems.map(({ line, column }) => [line, column]),
    [
      [1, 25],
      [1, 55],
      [6, 9],
    ],
  );
});
