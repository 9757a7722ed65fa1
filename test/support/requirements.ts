import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';

const REQUIREMENTS = {
  root: () => process.getuid?.() === 0,
  /** The program that loads the packet filter of `network: egress`. */
  nftables: () => existsSync('/usr/sbin/nft'),
  /** Mount and user namespaces can be made here. */
  isolation: () => spawnSync('unshare', ['--user', '--map-root-user', '--mount', 'true']).status === 0,
  'the npm registry': () =>
    spawnSync('npm', ['view', 'express', 'version', '--fetch-retries=1'], { timeout: 20_000 }).status === 0,
} as const satisfies Record<string, () => boolean>;

export type Requirement = keyof typeof REQUIREMENTS;

type Body = (t: ExecutionContext) => void | Promise<void>;

/**
 * A serial test for hosts that meet the requirements. Elsewhere it is skipped, which the report counts, under a title that
 * says why; `FAAS_TEST_REQUIRE=root,isolation` turns such a skip into a failure.
 */
export function testNeeding(...requirements: readonly Requirement[]): (title: string, body: Body) => void {
  const missing = requirements.filter((requirement) => !REQUIREMENTS[requirement]());
  if (missing.length === 0) return (title, body) => test.serial(title, body);
  const demanded = (process.env['FAAS_TEST_REQUIRE'] ?? '').split(',');
  const reason = `needs ${missing.join(' and ')}`;
  return (title, body) => {
    if (missing.some((requirement) => demanded.includes(requirement))) test(`${title} (${reason})`, (t) => t.fail(reason));
    else test.skip(`${title} (${reason})`, body);
  };
}
