/** Functions written for Google's functions framework: what they import, and what they have registered. */
import { registerHooks, createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { registeredByName } from './framework.mjs';

const PACKAGE = '@google-cloud/functions-framework';
const STAND_IN = new URL('framework.mjs', import.meta.url).href;
/** Where the real package keeps what was registered; its own loader asks there, too. */
const REAL_REGISTRY = /\/@google-cloud\/functions-framework\/build\/src\/function_registry\.js$/;
const { cache } = createRequire(import.meta.url);

/**
 * What can't be found in the ordinary way is looked for among the dependencies (for level `none`, where they lie on no path
 * that is walked), and the framework then is ours. `onResolved` gets the URL of every module.
 */
export function hookImports(dependencies, onResolved) {
  // Resolution starts beside this file, which needn't exist.
  const beside = dependencies === null ? null : pathToFileURL(join(dependencies, '..', '-')).href;
  const besideRequire = beside === null ? null : createRequire(beside);
  const fromDependencies = (specifier, context, next) =>
    context.conditions.includes('require')
      ? next(besideRequire.resolve(specifier), context)
      : next(specifier, { ...context, parentURL: beside });
  registerHooks({
    resolve(specifier, context, next) {
      try {
        const found = next(specifier, context);
        onResolved(found.url);
        return found;
      } catch (error) {
        if (!isBare(specifier) || !isNotFound(error)) throw error;
        if (beside !== null && context.parentURL !== beside) {
          try {
            return fromDependencies(specifier, context, next);
          } catch (second) {
            if (!isNotFound(second)) throw second;
          }
        }
        if (specifier !== PACKAGE) throw error;
        return { url: STAND_IN, format: 'module', shortCircuit: true };
      }
    },
  });
}

/** {handler, signature} of what is registered by that name or, with `isOnlyOne`, of the only one there is. */
export function findRegistered(name, isOnlyOne) {
  for (const file in cache) {
    if (!REAL_REGISTRY.test(file)) continue;
    const real = cache[file].exports.getRegisteredFunction?.(name);
    if (real !== undefined && real !== null) return { handler: real.userFunction, signature: real.signatureType };
  }
  if (isOnlyOne && registeredByName.size === 1) return registeredByName.values().next().value;
  return registeredByName.get(name);
}

function isBare(specifier) {
  return !/^(?:[./]|[a-z]+:)/.test(specifier);
}

function isNotFound(error) {
  return error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND';
}
