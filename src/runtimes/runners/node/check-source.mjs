/**
 * Checks handlers without running anything of them: read on standard input as `u32 length | JSON {file, callable} | u32 length | source`,
 * answered line by line with null or `{line, column, message}`. Compiles only: an ES module as `vm.SourceTextModule`, which links and
 * evaluates nothing, a CommonJS one as the body of a function. Node 24 and later; needs `--experimental-vm-modules`.
 *
 * Whether the callable is there is decided leniently, by the text: the start of an instance says it for certain.
 */
import { readSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import vm from 'node:vm';

const COMMONJS_PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];
const ESM_SYNTAX =
  /^\s*(?:import\s*(?:[\w*{'"]|\.meta)|export\s+(?:default|async|function|class|const|let|var|type|interface|\{|\*)|export\s*[{*])/m;

for (let request = readFrame(); request !== null; request = readFrame()) {
  const { file, callable } = JSON.parse(request.toString('utf8'));
  const source = readFrame();
  if (source === null) break;
  process.stdout.write(`${JSON.stringify(check(source.toString('utf8'), file, callable))}\n`);
}

function check(source, file, callable) {
  let code = source;
  try {
    // The places stay: types are replaced by blanks.
    if (file.endsWith('.ts')) code = stripTypeScriptTypes(source, { mode: 'strip' });
    compile(code, file);
  } catch (error) {
    return problemOf(placedError(error, code), source);
  }
  if (callable === '' || mayGive(code, callable)) return null;
  return { line: 1, column: 1, message: `the file exports no ${callable} and has no default export` };
}

function compile(code, file) {
  if (file.endsWith('.mjs')) return void new vm.SourceTextModule(code, { identifier: file });
  if (file.endsWith('.ts') || ESM_SYNTAX.test(code)) {
    try {
      return void new vm.SourceTextModule(code, { identifier: file });
    } catch (error) {
      // Without any import or export it may be the other kind, where `return` and `arguments` mean something.
      if (ESM_SYNTAX.test(code)) throw error;
    }
  }
  vm.compileFunction(code, COMMONJS_PARAMETERS, { filename: file });
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
  const prefix = '(async function () {';
  try {
    new vm.Script(`${prefix}${body}\n})`, { filename: 'handler', columnOffset: -prefix.length });
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

/** Lenient: a file that may give it in a way that text does not show is not refused. */
function mayGive(code, callable) {
  if (/\bmodule\s*\.\s*exports\b|\bexport\s+default\b|\bexport\s*\*|functions-framework/.test(code)) return true;
  const name = callable.replaceAll('$', '\\$');
  return new RegExp(
    `\\bexports\\s*(?:\\.\\s*|\\[\\s*['"])${name}(?![\\w$])|\\bexport\\b[^;=]*?(?<![\\w$])${name}(?![\\w$])`,
  ).test(code);
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
