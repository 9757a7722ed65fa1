import test from 'ava';
import { chooseResolvers } from '../../../../src/runtimes/process/network/resolvers.ts';

const HOST = '/etc/resolv.conf';
const SYSTEMD = '/run/systemd/resolve/resolv.conf';
const NETWORK_MANAGER = '/run/NetworkManager/no-stub-resolv.conf';

const choose = (files: Readonly<Record<string, string>>, configured: readonly string[] = []) =>
  chooseResolvers(configured, (path) => files[path] ?? '');

test('the resolvers of the host are asked, with its search list', (t) => {
  const { addresses, text } = choose({
    [HOST]: '# by hand\nsearch lan example.com\nnameserver 10.0.0.53\nnameserver  9.9.9.9\noptions ndots:2\n',
  });
  t.deepEqual(addresses, ['10.0.0.53', '9.9.9.9']);
  t.is(text, 'nameserver 10.0.0.53\nnameserver 9.9.9.9\nsearch lan example.com\noptions ndots:2\n');
});

test('behind a stub on loopback those are asked whom the stub asks', (t) => {
  const stub = 'nameserver 127.0.0.53\noptions edns0\n';
  const { addresses, text } = choose({ [HOST]: stub, [SYSTEMD]: 'nameserver 192.168.1.1\nnameserver fe80::1\n' });
  t.deepEqual(addresses, ['192.168.1.1']);
  t.is(text, 'nameserver 192.168.1.1\noptions edns0\n');
  t.deepEqual(choose({ [HOST]: 'nameserver ::1\n', [NETWORK_MANAGER]: 'nameserver 10.0.0.1\n' }).addresses, ['10.0.0.1']);
  t.deepEqual(choose({ [HOST]: stub }).addresses, [], 'nobody can be asked');
});

test('what is reached over IPv6 only, and more than the C library asks, is left out', (t) => {
  t.deepEqual(choose({ [HOST]: 'nameserver fd00::53\nnameserver 10.0.0.53\n' }).addresses, ['10.0.0.53']);
  const many = [1, 2, 3, 4, 5].map((last) => `nameserver 10.0.0.${last}\n`).join('');
  t.is(choose({ [HOST]: many }).addresses.length, 3);
});

test('the configuration comes before the host', (t) => {
  const { addresses, text } = choose({ [HOST]: 'nameserver 10.0.0.53\nsearch lan\n' }, ['1.1.1.1']);
  t.deepEqual(addresses, ['1.1.1.1']);
  t.is(text, 'nameserver 1.1.1.1\nsearch lan\n');
});

test('nothing but addresses and printable settings reaches an instance', (t) => {
  const { addresses, text } = choose({
    [HOST]: 'nameserver 10.0.0.1; flush\nnameserver $(x)\nsearch a\u0000b\nsortlist 1.2.3.4\n',
  });
  t.deepEqual(addresses, []);
  t.is(text, '');
});
