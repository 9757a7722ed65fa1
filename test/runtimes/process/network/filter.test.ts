import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test from 'ava';
import {
  FORBIDDEN_RANGES,
  renderAllowed,
  renderFilter,
  renderResolvers,
} from '../../../../src/runtimes/process/network/filter.ts';
import { testNeeding } from '../../../support/requirements.ts';

const OPTIONS = { table: 'gitfaas-t', prefix: 'gf0a1b2c', ownRange: undefined, resolvers: ['10.0.0.53'] };

test('every packet of an instance meets the forbidden ranges last, and nothing before them accepts by its past', (t) => {
  const text = renderFilter(OPTIONS);
  const [, chain = ''] = /chain from_instance \{(.*?)\n {2}\}/s.exec(text) ?? [];
  const rules = chain
    .trim()
    .split('\n')
    .map((rule) => rule.trim());
  t.is(rules.at(-1), 'ip daddr @forbidden reject with icmpx admin-prohibited');
  t.deepEqual(
    rules.filter((rule) => rule.endsWith('accept')).map((rule) => /@\w+/.exec(rule)?.[0]),
    ['@allowed', '@allowed_ports', '@resolvers'],
  );
  t.false(rules.some((rule) => rule.includes('established')));
  t.true(rules.findIndex((rule) => rule.startsWith('fib saddr')) < rules.findIndex((rule) => rule.endsWith('accept')));
});

test('the page about security lists exactly the ranges that are forbidden', (t) => {
  const page = readFileSync(new URL('../../../../docs/SECURITY.md', import.meta.url), 'utf8');
  const row = page.split('\n').find((line) => line.startsWith('| private, link-local and metadata addresses:')) ?? '';
  const listed = [...(row.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)].map((match) => match[1]);
  t.deepEqual(listed.toSorted(), FORBIDDEN_RANGES.toSorted());
});

test('a range of the configuration is forbidden like the others, once', (t) => {
  const elements = (ownRange: string) =>
    /set forbidden .*elements = \{ (.*?) \}/.exec(renderFilter({ ...OPTIONS, ownRange }))?.[1]?.split(', ') ?? [];
  t.true(elements('11.0.0.0/16').includes('11.0.0.0/16'));
  t.deepEqual(elements('10.77.0.0/16').toSorted(), FORBIDDEN_RANGES.toSorted(), 'it lies in another');
});

test('a list becomes entries that do not overlap', (t) => {
  const lists: readonly (readonly [readonly string[], readonly string[]])[] = [
    [['10.1.2.3/32'], ['allowed { 7 . 10.1.2.3/32 }']],
    [['10.0.0.0/8', '10.1.0.0/16', '10.1.2.3/32'], ['allowed { 7 . 10.0.0.0/8 }']],
    [
      ['10.0.0.0/8:443', '10.1.0.0/16'],
      ['allowed { 7 . 10.1.0.0/16 }', 'allowed_ports { 7 . 10.0.0.0/8 . 443 }'],
    ],
    [
      ['10.0.0.0/8:443', '10.1.0.0/16:443', '10.1.0.0/16:80'],
      ['allowed_ports { 7 . 10.0.0.0/8 . 443 }', 'allowed_ports { 7 . 10.1.0.0/16 . 80 }'],
    ],
  ];
  for (const [allowed, entries] of lists) {
    for (const verb of ['add', 'delete'] as const) {
      const lines = renderAllowed(verb, 't', 7, allowed).trim().split('\n');
      t.deepEqual(lines.toSorted(), entries.map((entry) => `${verb} element inet t ${entry}`).toSorted());
    }
  }
});

testNeeding('root', 'nftables')('nft takes all of it, twice, and takes back what was added', (t) => {
  const allowed = ['10.0.0.0/8:443', '10.1.0.0/16', '192.168.7.7/32:80', '172.16.0.0/12', '10.1.2.3/32'];
  const text = [
    renderFilter({ ...OPTIONS, ownRange: '11.0.0.0/16' }),
    renderFilter({ ...OPTIONS, resolvers: [] }),
    ...[1_734_737_921, 1_734_737_922].map((group) => renderAllowed('add', 'gitfaas-t', group, allowed)),
    renderAllowed('delete', 'gitfaas-t', 1_734_737_921, allowed),
    renderResolvers('gitfaas-t', ['10.0.0.1', '9.9.9.9']),
    renderResolvers('gitfaas-t', []),
  ];
  const { status, stderr } = spawnSync('unshare', [
    '--net',
    'sh',
    '-ec',
    'for part; do printf %s "$part" | /usr/sbin/nft -f -; done',
    'sh',
    ...text,
  ]);
  t.is(String(stderr), '');
  t.is(status, 0);
});
