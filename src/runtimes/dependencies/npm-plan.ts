import { createHash } from 'node:crypto';
import { existsSync, realpathSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { FaasError } from '../../errors.ts';
import { findNode } from '../process/node-executables.ts';
import { identifyNode } from './interpreter-identity.ts';
import type { InstallPlan, NodeWish } from './install-plan.ts';
import { orderNpm } from './npm-order.ts';
import { readNpmSettings } from './npm-settings.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** A change of anything that makes installations of the same wish differ gets another number. */
const FORMAT = 1;
/** Whose launcher starts what is not Python. */
const LAUNCHER_RUNTIME = 'python3';
const NOBODY = 65_534;

/** The plan for a Node function. Rejects with FaasError `init_failed` when its Node is missing. */
export async function planNode(wish: NodeWish, environment: Environment): Promise<InstallPlan> {
  const uid = process.getuid?.() === 0 ? NOBODY : (process.getuid?.() ?? 0);
  const identity = await identifyNode(findNode(wish.runtime, uid).path);
  return {
    key: createHash('sha256')
      .update(JSON.stringify([FORMAT, 'node', identity.text, wish.packageJson, wish.packageLock, wish.allowBuild]))
      .digest('hex'),
    what: wish.requirements.map(({ text }) => text),
    runtime: LAUNCHER_RUNTIME,
    kind: wish.allowBuild ? 'builds' : 'wheels',
    networkAllow: wish.networkAllow,
    makeOrder(places) {
      const npmDirectory = findNpm(identity.path, environment['PATH']);
      // <prefix>/lib/node_modules/npm
      const settings = readNpmSettings(environment, npmDirectory, join(npmDirectory, '../../..'));
      return orderNpm(wish, { settings, environment, node: identity.path, npmDirectory }, places);
    },
  };
}

/** The npm beside this Node, else the one that the daemon's own `PATH` finds. Throws FaasError `dependencies_unavailable`. */
export function findNpm(node: string, path: string | undefined): string {
  const beside = join(dirname(dirname(node)), 'lib/node_modules/npm');
  const others = (path ?? '').split(':').filter((entry) => isAbsolute(entry));
  for (const program of [join(beside, 'bin/npm-cli.js'), ...others.map((directory) => join(directory, 'npm'))]) {
    if (!existsSync(program)) continue;
    const directory = dirname(dirname(realpathSync(program)));
    if (existsSync(join(directory, 'bin/npm-cli.js'))) return directory;
  }
  throw new FaasError('dependencies_unavailable', {
    detail: `There is no npm on the host, neither beside ${node} nor in the daemon's PATH: install the package npm.`,
  });
}
