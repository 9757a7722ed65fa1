/** Finds and imports the handler; every way this can fail has its own reason (INIT_FAILED in docs/PROTOCOL.md). */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, nameOf, placeOf } from './failure.mjs';
import { findRegistered } from './framework-registry.mjs';
import { limitsOf } from './limit-hints.mjs';

const EXTENSIONS = ['.mjs', '.js', '.ts'];
/** The name a handler has when the configuration gives none. */
const DEFAULT_CALLABLE = 'handle';
const CHECK_TIMEOUT_MS = 5000;
const CHECKED_FILES_MAX = 20;
/** Node's own frames above a failed `require` are more than the ten that are kept by default. */
const STACK_LINES = 50;

export class InitFailed extends Error {
  /** `facts`: {reason, exception, file, line, detail}; the file relative to the function's directory. */
  constructor(reason, detail, { exception = null, file = null, line = null, limits = [] } = {}) {
    super(detail);
    this.facts = { reason, exception, file, line, detail, ...(limits.length > 0 && { limits }) };
  }
}

/**
 * Gives {handler, signature, isStreaming}: the function, how it is registered with the functions framework (or null), and whether
 * it asked for its bodies in pieces. Throws InitFailed for whatever the code does.
 */
export async function load(codeRoot, moduleName, callable) {
  const file = findFile(codeRoot, moduleName);
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = STACK_LINES;
  const namespace = await import(pathToFileURL(join(codeRoot, file)).href);
  Error.stackTraceLimit = stackTraceLimit;
  modules = null;
  const exported = 'module.exports' in namespace ? namespace['module.exports'] : namespace;
  const registered = findRegistered(callable, callable === DEFAULT_CALLABLE && find(exported, callable) === undefined);
  const handler = registered?.handler ?? find(exported, callable);
  if (handler === undefined)
    throw new InitFailed('missing_callable', `${file} defines no ${callable}${known(exported)}`, { file });
  if (typeof handler !== 'function')
    throw new InitFailed('not_callable', `${callable} in ${file} is ${article(handler)}, not a function`, { file });
  const isStreaming = handler.streaming === true || (typeof exported === 'object' && exported?.streaming === true);
  return { handler, signature: registered?.signature ?? null, isStreaming };
}

/** URLs of the modules that were found so far, while the handler is loaded. */
let modules = [];

/** What `hookImports` tells. */
export function noteModule(url) {
  modules?.push(url);
}

/** The failure of an `import`, with the place in the function's code. */
export function importFailed(error, codeRoot) {
  let place = placeOf(error, codeRoot);
  // For a mistake in the syntax of an ES module Node keeps the place to itself.
  if (place.file === null && nameOf(error) === 'SyntaxError') place = checkSyntax(codeRoot) ?? place;
  return new InitFailed('import_error', describe(error), { exception: nameOf(error), ...place, limits: limitsOf(error) });
}

function findFile(codeRoot, moduleName) {
  const known = EXTENSIONS.some((extension) => moduleName.endsWith(extension));
  const base = moduleName.replaceAll('.', '/');
  for (const candidate of known
    ? [moduleName]
    : EXTENSIONS.flatMap((extension) => [`${base}${extension}`, `${base}/index${extension}`]))
    if (statSync(join(codeRoot, candidate), { throwIfNoEntry: false })?.isFile()) return candidate;
  const file = known ? moduleName : `${base}.mjs`;
  throw new InitFailed('missing_module', `the function has no file ${known ? file : `${base}.mjs, .js or .ts`}`, { file });
}

/** By its name, else the default export, or its member of that name. */
function find(exported, callable) {
  if (isObject(exported) && callable in exported) return exported[callable];
  if (callable === DEFAULT_CALLABLE && typeof exported === 'function') return exported;
  const main = isObject(exported) ? exported.default : undefined;
  if (isObject(main) && callable in main) return main[callable];
  if (callable !== DEFAULT_CALLABLE) return undefined;
  // What compilers from ES modules to CommonJS leave: `exports.default` below the default.
  return typeof main === 'object' && typeof main?.default === 'function' ? main.default : main;
}

function isObject(value) {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

function known(exported) {
  const names = isObject(exported) ? Object.keys(exported).filter((name) => typeof exported[name] === 'function') : [];
  return names.length === 0 ? '' : `; it exports ${names.sort().slice(0, 10).join(', ')}`;
}

function article(value) {
  const type = value === null ? 'null' : typeof value;
  return type === 'object' ? 'an object' : type === 'null' ? type : `a ${type}`;
}

function checkSyntax(codeRoot) {
  const { spawnSync } = process.getBuiltinModule('node:child_process');
  const root = pathToFileURL(`${codeRoot}/`).href;
  for (const url of (modules ?? []).filter((each) => each.startsWith(root)).slice(0, CHECKED_FILES_MAX)) {
    const args = ['--check', fileURLToPath(url)];
    const { stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: CHECK_TIMEOUT_MS, env: {} });
    const found = placeOf({ stack: stderr ?? '' }, codeRoot);
    if (found.file !== null) return found;
  }
  return undefined;
}
