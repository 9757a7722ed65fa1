/** What is told about a value that was thrown. It is foreign: each look at it may throw, and anything may be thrown. */
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const RUNNER_DIRECTORY = dirname(fileURLToPath(import.meta.url));
const DETAIL_MAX_CHARACTERS = 2000;
const TRACEBACK_MAX_CHARACTERS = 8000;
const CAUSES_MAX = 5;

/** The type: `TypeError`, or `string` when no object was thrown. */
export function nameOf(error) {
  try {
    if (typeof error !== 'object' || error === null) return error === null ? 'null' : typeof error;
    const name = error.constructor?.name || error.name;
    return typeof name === 'string' && name !== '' ? name.slice(0, 200) : 'object';
  } catch {
    return 'object';
  }
}

/** `TypeError: text`, at most 2,000 characters. */
export function describe(error) {
  if (error === null || error === undefined) return nameOf(error);
  let message;
  try {
    message = typeof error === 'object' ? error.message : error;
    message = typeof message === 'symbol' ? message.toString() : message === undefined ? '' : String(message);
  } catch {
    message = '';
  }
  const name = nameOf(error);
  return (message === '' ? name : `${name}: ${message}`).slice(0, DETAIL_MAX_CHARACTERS);
}

/** The stack without the runner's own lines and Node's below it, then those of its causes. */
export function traceback(error) {
  const parts = [];
  for (let cause = error; parts.length < CAUSES_MAX;) {
    parts.push(stackOf(cause));
    try {
      cause = cause.cause;
    } catch {
      break;
    }
    if (cause === undefined || cause === null) break;
  }
  return parts.join('\nCaused by: ').slice(0, TRACEBACK_MAX_CHARACTERS);
}

function stackOf(error) {
  const stack = rawStack(error);
  if (stack === '') return describe(error);
  const lines = stack.split('\n').filter((line) => !line.includes(RUNNER_DIRECTORY));
  while (lines.length > 1 && /^\s+at .*\(?node:internal/.test(lines.at(-1))) lines.pop();
  return lines.join('\n');
}

function rawStack(error) {
  try {
    return typeof error === 'object' && error !== null && typeof error.stack === 'string' ? error.stack : '';
  } catch {
    return '';
  }
}

/** The innermost line of the function's own code, its file relative to `codeRoot`: a host path stays a secret. */
export function placeOf(error, codeRoot) {
  const root = `${codeRoot}/`;
  for (const line of rawStack(error).split('\n')) {
    const at = line.indexOf(root);
    const found = at === -1 ? null : /^(.+?):(\d+)(:\d+)?\)?$/.exec(line.slice(at + root.length));
    if (found !== null) return { file: decodePath(found[1], line), line: Number(found[2]) };
  }
  return importPlace(error, root);
}

/** A module that isn't there is told with who imported it, without a line. */
function importPlace(error, root) {
  const { importer, wanted } = readMissing(error);
  if (!importer?.startsWith(root)) return { file: null, line: null };
  const file = importer.slice(root.length);
  try {
    const quoted = new RegExp(`['"\`/]${RegExp.escape(wanted)}['"\`]`);
    const line =
      readFileSync(importer, 'utf8')
        .split('\n')
        .findIndex((text) => quoted.test(text)) + 1;
    return { file, line: line === 0 ? null : line };
  } catch {
    return { file, line: null };
  }
}

function readMissing(error) {
  try {
    const [, wanted, importer] = /^Cannot find (?:module|package) '(.+)' imported from (?:file:\/\/)?(.+)$/m.exec(error.message);
    return { importer, wanted: wanted.slice(wanted.lastIndexOf('/') + 1) };
  } catch {
    return {};
  }
}

function decodePath(path, line) {
  return line.includes('file://') ? decodeURI(path) : path;
}
