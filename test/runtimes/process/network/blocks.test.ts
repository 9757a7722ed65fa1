import test from 'ava';
import { freeBlocks, slotsOf } from '../../../../src/runtimes/process/network/blocks.ts';

test('without a range of the configuration the free parts of 198.18.0.0/15 are taken, its upper half first', (t) => {
  const blocks = freeBlocks(undefined, ['10.0.0.0/8', '192.168.1.0/24']);
  t.is(blocks.length, 128);
  t.deepEqual([blocks[0], blocks[1], blocks[64]], ['198.19.0.0/22', '198.19.4.0/22', '198.18.0.0/22']);
});

test('a block that a route of the host touches is left alone', (t) => {
  const taken = ['198.19.0.0/22', '198.19.5.7/32', '198.18.0.0/16'];
  const blocks = freeBlocks(undefined, taken);
  t.is(blocks[0], '198.19.8.0/22');
  t.is(blocks.length, 62);
  t.deepEqual(freeBlocks(undefined, ['198.18.0.0/15']), [], 'a route to all of it leaves nothing');
  t.deepEqual(freeBlocks('10.77.0.0/24', ['10.0.0.0/8']), []);
});

test('a default route in two halves, as VPNs set it, says nothing of who uses the addresses', (t) => {
  t.is(freeBlocks(undefined, ['0.0.0.0/1', '128.0.0.0/1']).length, 128);
});

test('a configured range is used, in blocks of 256 instances or as it is', (t) => {
  t.deepEqual(freeBlocks('10.77.0.0/21', []), ['10.77.0.0/22', '10.77.4.0/22']);
  t.deepEqual(freeBlocks('10.77.0.0/24', []), ['10.77.0.0/24']);
});

test('every slot has four addresses of its own and a name that fits an interface', (t) => {
  const slots = slotsOf('198.19.4.0/22', 'gf0a1b2c', 3840);
  t.is(slots.length, 256);
  t.deepEqual(slots[0], { name: 'gf0a1b2cf00', gateway: '198.19.4.1', inner: '198.19.4.2' });
  t.deepEqual(slots.at(-1), { name: 'gf0a1b2cfff', gateway: '198.19.7.253', inner: '198.19.7.254' });
  t.true(slots.every(({ name }) => name.length <= 15));
  t.is(new Set(slots.flatMap(({ gateway, inner }) => [gateway, inner])).size, 512);
});
