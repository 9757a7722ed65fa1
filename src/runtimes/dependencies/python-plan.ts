import { createHash } from 'node:crypto';
import { findInterpreter } from '../process/interpreters.ts';
import { identifyPython } from './interpreter-identity.ts';
import type { InstallPlan, PythonWish } from './install-plan.ts';
import { readPipSettings } from './pip-settings.ts';
import { orderPython } from './python-order.ts';
import { findUv } from './uv.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** A change of anything that makes installations of the same wish differ gets another number. */
const FORMAT = 1;
const NOBODY = 65_534;

/** The plan for a Python function. Rejects with FaasError `init_failed` when the interpreter is missing. */
export async function planPython(wish: PythonWish, environment: Environment): Promise<InstallPlan> {
  const uid = process.getuid?.() === 0 ? NOBODY : (process.getuid?.() ?? 0);
  const identity = await identifyPython(findInterpreter(wish.runtime, uid));
  const wanted = wish.requirements.map(({ text, hashes }) => [text, hashes]);
  return {
    key: createHash('sha256')
      .update(JSON.stringify([FORMAT, 'python', identity.text, wanted, wish.allowBuild]))
      .digest('hex'),
    what: wish.requirements.map(({ text }) => text),
    runtime: wish.runtime,
    kind: wish.allowBuild ? 'builds' : 'wheels',
    networkAllow: wish.networkAllow,
    makeOrder(places, resolvedBefore) {
      const settings = readPipSettings(environment, identity.prefix);
      const found = findUv(environment['PATH']);
      // Below /usr the installer sees what the host has.
      const isCopied = found !== undefined && !found.startsWith('/usr/');
      const uv = isCopied ? `${places.input}/uv` : found;
      const order = orderPython(wish, resolvedBefore, { settings, environment, python: identity.path, uv }, places);
      return isCopied ? { ...order, input: { ...order.input, uv: { copyOf: found } } } : order;
    },
  };
}
