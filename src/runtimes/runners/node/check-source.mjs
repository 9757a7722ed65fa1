/**
 * Checks handlers without running anything of them: read on standard input as `u32 length | JSON {file, callable} | u32 length | source`,
 * answered line by line with null or `{line, column, message}`. Compiles only: an ES module as `vm.SourceTextModule`, which links and
 * evaluates nothing, a CommonJS one as the body of a function. Node 24 and later; needs `--experimental-vm-modules`.
 *
 * What a file exports is refused only when it is certain: the start of an instance says the rest.
 */
import { isUtf8 } from 'node:buffer';
import { readSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import vm from 'node:vm';

const COMMONJS_PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
/** Functions of this framework may be registered by a call instead of an export. */
const REGISTERS = '@google-cloud/functions-framework';
/** Each round of linking finds one more name that is imported. */
const ROUNDS_MAX = 500;
const MISSING_IMPORT = /^The requested module '(.*)' does not provide an export named '(.*)'$/s;
const CLAUSE = /\b(?:import|export)\b([^;'"`=]*?)\bfrom\b/g;
const ESM_SYNTAX =
  /^\s*(?:import\s*(?:[\w*{'"]|\.meta)|export\s+(?:default|async|function|class|const|let|var|type|interface|\{|\*)|export\s*[{*])/m;

for (let request = readFrame(); request !== null; request = readFrame()) {
  const { file, callable } = JSON.parse(request.toString('utf8'));
  const source = readFrame();
  if (source === null) break;
  process.stdout.write(`${JSON.stringify(await check(source, file, callable))}\n`);
}

async function check(bytes, file, callable) {
  if (!isUtf8(bytes)) return { line: 1, column: 1, message: 'the file is not UTF-8' };
  const source = bytes.toString('utf8');
  let code = source;
  let isModule;
  try {
    // The places stay: types are replaced by blanks.
    if (file.endsWith('.ts')) code = stripTypeScriptTypes(source, { mode: 'strip' });
    isModule = compile(code, file);
  } catch (error) {
    // Whatever else is thrown leaves what strips types broken: the daemon starts another process for the files to come.
    if (!(error instanceof SyntaxError || error instanceof RangeError)) process.exit(0);
    return problemOf(placedError(error, code), source);
  }
  const message = callable === '' ? undefined : await whyMissing(code, file, isModule, callable);
  return message === undefined ? null : { line: 1, column: 1, message };
}

/** Whether it is an ES module. Throws what is wrong with it. What is valid as both exports nothing as a module, and Node takes it for a script. */
function compile(code, file) {
  let scriptError;
  if (!file.endsWith('.mjs')) {
    try {
      vm.compileFunction(code, COMMONJS_PARAMETERS, { filename: file });
      return false;
    } catch (error) {
      scriptError = error;
    }
  }
  try {
    new vm.SourceTextModule(code, { identifier: file });
    return true;
  } catch (error) {
    throw scriptError === undefined || ESM_SYNTAX.test(code) ? error : scriptError;
  }
}

/**
 * For a mistake in an ES module Node keeps the place to itself. So the same text is compiled once more as the body of an async function,
 * with blanks where imports and exports stood; when that fails for the same reason, the place is this error's.
 */
function placedError(error, code) {
  if (/^[^\n]*:\d+\n/.test(String(error.stack)) || error.code !== undefined) return error;
  const blank = (text) => text.replace(/[^\n]/g, ' ');
  const body = code
    .replace(/^\s*(?:import|export)\s[^;()]*?\sfrom\s*(['"])[^'"\n]*\1\s*;?|^\s*import\s*(['"])[^'"\n]*\2\s*;?/gm, blank)
    .replace(/\bexport\s+(?=async|function|class|const|let|var)/g, blank)
    .replace(/\bexport\s+default\b/g, (text) => `void 0,${blank(text).slice(7)}`)
    .replace(/\bexport\s*\{[^}]*\}/g, blank);
  try {
    new vm.Script(`(async function () {\n${body}\n})`, { filename: 'handler', lineOffset: -1 });
  } catch (again) {
    if (again.message === error.message) return again;
  }
  return error;
}

/** `Name:LINE` begins the stack of a compile error, a line of carets ends its excerpt. */
function problemOf(error, source) {
  const stack = String(error.stack ?? '');
  const message = `${error.name ?? 'SyntaxError'}: ${
    String(error.message)
      .split('\n')
      .find((line) => line.trim() !== '') ?? ''
  }`;
  // What is missing is missing at the end.
  if (error.message === 'Unexpected end of input') return { line: source.trimEnd().split('\n').length, column: 1, message };
  const line = Number(/^[^\n]*:(\d+)\n/.exec(stack)?.[1] ?? placeInMessage(error, source));
  const column = (/\n( *)\^+/.exec(stack)?.[1]?.length ?? 0) + 1;
  return { line: Math.max(1, line), column, message };
}

/** Of TypeScript's own errors, which carry the place as offsets. */
function placeInMessage(error, source) {
  const offset = Number(error.startColumn ?? error.start ?? Number.NaN);
  if (Number.isSafeInteger(error.startLine)) return error.startLine;
  return Number.isNaN(offset) ? 1 : source.slice(0, offset).split('\n').length;
}

/** Why the callable is not there; undefined when it is, or when only running the file can tell. */
async function whyMissing(code, file, isModule, callable) {
  if (code.includes(REGISTERS)) return undefined;
  // What a script exports is known only when it runs; without the word it exports nothing.
  if (!isModule) return /\bexports\b/.test(code) ? undefined : `the file exports no ${callable}, and nothing else`;
  const names = await exportsOf(code, file, callable);
  // A default export may be an object that has it.
  if (names === undefined || names.includes(callable) || names.includes('default')) return undefined;
  const known = names.length === 0 ? '' : `; it exports ${names.toSorted().slice(0, 10).join(', ')}`;
  return `the file exports no ${callable} and has no default export${known}`;
}

/** Names that a module exports, found by linking it with stand-ins for all that it imports; undefined when that does not tell. */
async function exportsOf(code, file, callable) {
  /** By specifier: what the stand-in for it must export. */
  const imported = new Map();
  const likely = likelyNames(code, callable);
  for (let round = 0; round < ROUNDS_MAX; round++) {
    try {
      const names = await linkedNames(code, file, imported, likely);
      if (names.includes(callable)) return names;
      // `export * from` one of them may bring it.
      for (const [specifier, given] of imported) {
        const more = new Map(imported).set(specifier, new Set([...given, callable]));
        if ((await linkedNames(code, file, more, likely)).includes(callable)) return undefined;
      }
      return names;
    } catch (error) {
      const [, specifier, name] = MISSING_IMPORT.exec(error.message) ?? [];
      if (name === undefined || !imported.has(specifier)) return undefined;
      imported.get(specifier).add(name);
    }
  }
  return undefined;
}

/** Every word of its import clauses, so that most modules are linked once: a stand-in may export too much. */
function likelyNames(code, callable) {
  const words = Array.from(code.matchAll(CLAUSE), ([, clause]) => clause.match(/[\w$]+/g) ?? []).flat();
  return new Set(['default', ...words].filter((word) => word !== callable));
}

async function linkedNames(code, identifier, imported, likely) {
  const module = new vm.SourceTextModule(code, { identifier });
  await module.link((specifier) => {
    if (!imported.has(specifier)) imported.set(specifier, new Set(likely));
    return new vm.SyntheticModule([...imported.get(specifier)], () => {}, { identifier: specifier });
  });
  // Not `Object.keys`, which looks at the values, and there are none yet.
  return Reflect.ownKeys(module.namespace).filter((key) => typeof key === 'string');
}

function readFrame() {
  const length = readExactly(4);
  return length === null ? null : readExactly(length.readUInt32BE(0));
}

function readExactly(count) {
  const bytes = Buffer.allocUnsafe(count);
  for (let at = 0; at < count;) {
    const read = readSync(0, bytes, at, count - at, null);
    if (read === 0) return null;
    at += read;
  }
  return bytes;
}
