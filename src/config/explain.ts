import type { ErrorObject } from 'ajv/dist/2020.js';
import { parseNetworkAllow, parseNetworkRange, parseResolver } from './network-allow.ts';
import type { Fault } from './parse.ts';
import { didYouMean } from './suggest.ts';
import { parseBytes, parseCpuMillis, parseDurationMs, type Parsed } from './units.ts';

/** The formats of our schemas: what is wrong with a text, or what it means. */
export const FORMATS: Readonly<Record<string, (raw: unknown) => Parsed<unknown>>> = {
  'faas-duration': parseDurationMs,
  'faas-bytes': parseBytes,
  'faas-cpu': parseCpuMillis,
  'faas-branch': parseBranch,
  'faas-network-allow': parseNetworkAllow,
  'faas-network-range': parseNetworkRange,
  'faas-resolver': parseResolver,
};

const TYPE_NAMES: Readonly<Record<string, string>> = {
  object: 'a map',
  array: 'a list',
  string: 'a text',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
};

/** One AJV error in words, at the node it is about. `typeErrors`: the type errors of the same value, from all alternatives. */
export function explain(error: ErrorObject, typeErrors: readonly ErrorObject[]): Fault {
  const path = pointerPath(error.instancePath);
  const params = error.params as Record<string, unknown>;
  const schema = (error.parentSchema ?? {}) as Record<string, unknown>;
  const at = (message: string): Fault => ({ path, at: 'value', message });
  const isSecret = mayBeSecret(path);
  const shown = isSecret ? 'the value' : quote(error.data);
  if (error.propertyName !== undefined) return nameFault(path, error.propertyName, schema);

  switch (error.keyword) {
    case 'additionalProperties': {
      const key = String(params['additionalProperty']);
      const known = Object.keys(schema['properties'] ?? {});
      return { path: [...path, key], at: 'key', message: `unknown key ${quote(key)}${didYouMean(key, known)}` };
    }
    case 'required': {
      const message = error.schemaPath.includes('/else/')
        ? 'give the code: `code` or `files`'
        : `the key ${String(params['missingProperty'])} is missing`;
      return at(message);
    }
    case 'not':
      return at('`code` and `files` cannot be given together');
    case 'type':
      return at(typeMessage(error, typeErrors, schema, isSecret));
    case 'format':
      return at(FORMATS[String(schema['format'])]?.(error.data).problem ?? `${shown} is not readable`);
    case 'enum': {
      const allowed = schema['enum'] as readonly string[];
      const hint = typeof error.data === 'string' ? didYouMean(error.data, allowed) : '';
      return at(`${shown} is not one of ${allowed.join(', ')}${hint}`);
    }
    case 'pattern':
      return at(`${shown} is not allowed here${advice(schema)}`);
    case 'minimum':
    case 'minItems':
    case 'minLength':
    case 'minProperties':
      return at(
        `must be at least ${counted(error.keyword, params['limit'])}${error.data === 0 ? '; 0 does not mean unlimited' : ''}`,
      );
    case 'maximum':
    case 'maxItems':
    case 'maxLength':
    case 'maxProperties':
      return at(`must be at most ${counted(error.keyword, params['limit'])}`);
    case 'uniqueItems':
      return at('holds the same value twice');
    default:
      return at(error.message ?? error.keyword);
  }
}

/** Problems are logged and shown to everybody who may call: a variable's value, or a key in the place of its hash, is not for them. */
function mayBeSecret(path: readonly string[]): boolean {
  return path.at(-2) === 'environment' || path.at(-1) === 'sha256';
}

/** As AJV writes it (RFC 6901); numbers stay texts, which is how both maps and lists are found. */
function pointerPath(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function nameFault(path: readonly string[], name: string, schema: Record<string, unknown>): Fault {
  const owner = path.at(-1);
  const rule =
    owner === 'functions'
      ? ': a function name is 1 to 63 of a-z, 0-9 and -, starting with a letter and not ending with -'
      : owner === 'environment'
        ? ': a variable name is letters, digits and _, not starting with a digit'
        : advice(schema);
  return { path: [...path, name], at: 'key', message: `the name ${quote(name)} is not allowed${rule}` };
}

function typeMessage(
  error: ErrorObject,
  typeErrors: readonly ErrorObject[],
  schema: Record<string, unknown>,
  isSecret: boolean,
): string {
  if (error.data === null) return 'has no value; give one, or leave it out';
  const format = FORMATS[String(schema['format'])];
  const problem = format?.(error.data).problem;
  if (problem !== undefined) return problem;
  // 3.10 is the number 3.1 in YAML, so what was meant cannot be told any more.
  if (error.instancePath.endsWith('/runtime') && typeof error.data === 'number')
    return `${quote(error.data)} is not a runtime; write python3.N, such as python3.11`;
  const types = new Set(typeErrors.flatMap(({ schema: type }) => type as string | string[]));
  types.delete('null');
  const wanted = [...types].map((type) => TYPE_NAMES[type] ?? type).join(' or ');
  const isPlain = typeof error.data === 'number' || typeof error.data === 'boolean';
  const hint = types.has('string') && isPlain ? `; write it in quotes${isSecret ? '' : `: "${String(error.data)}"`}` : '';
  return `${isSecret ? 'the value' : quote(error.data)} must be ${wanted}${hint}`;
}

function counted(keyword: string, limit: unknown): string {
  const unit = keyword.endsWith('Items')
    ? ' entries'
    : keyword.endsWith('Length')
      ? ' characters'
      : keyword.endsWith('Properties')
        ? ' keys'
        : '';
  return `${String(limit)}${unit}`;
}

function advice(schema: Record<string, unknown>): string {
  const description = schema['description'];
  return typeof description === 'string' ? `: ${description.split(/\.(?:\s|$)/)[0]}` : '';
}

function quote(value: unknown): string {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'a map';
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** git-check-ref-format(1), for the short name of a branch. */
function parseBranch(raw: unknown): Parsed<string> {
  const name = String(raw);
  const parts = name.split('/');
  const isBad =
    name.startsWith('-') ||
    name === '@' ||
    /[\u0000-\u0020\u007F~^:?*[\\]|\.\.|@\{|\.$/u.test(name) ||
    parts.some((part) => part === '' || part.startsWith('.') || part.endsWith('.lock'));
  if (isBad) return { problem: `${quote(name)} is not the name of a branch` };
  if (name.startsWith('refs/'))
    return { problem: `${quote(name)} must be the short name${name.startsWith('refs/heads/') ? `: ${name.slice(11)}` : ''}` };
  return { value: name };
}
