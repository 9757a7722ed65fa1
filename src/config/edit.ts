import { isDeepStrictEqual } from 'node:util';
import {
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  Scalar,
  visit,
  YAMLMap,
  YAMLSeq,
  type Document,
  type Node,
  type Pair,
} from 'yaml';
import { FaasError } from '../errors.ts';
import { keepLines } from './keep-lines.ts';
import { isObject, mergePatch } from './merge-patch.ts';
import { keyText, parseFile, withoutByteOrderMark } from './parse.ts';
import type { ApiKey } from './spec.ts';

/**
 * The text of a configuration file after a JSON Merge Patch (RFC 7396) of `functions.<name>`; null removes the entry.
 * Comments, order, quoting and spacing of everything else stay. Throws FaasError `invalid_revision` with the problems
 * when the text is not readable, or would not be afterwards. `file` is the path that problems carry.
 */
export function editFunctionEntry(
  text: string,
  name: string,
  patch: Readonly<Record<string, unknown>> | null,
  file = 'faas_config.yaml',
): string {
  const functions = (readable(text, file).value as { functions?: unknown } | null)?.functions;
  if (patch === null && !(isObject(functions) && Object.hasOwn(functions, name))) return text;
  return editText(text, file, { functions: { [name]: patch } }, (document) => {
    const functions = ensureMap(document, ensureTop(document), 'functions');
    freeFromAliases(document, functions, name);
    if (patch === null) return removeKey(functions, name);
    return applyPatch(document, functions, { [name]: patch });
  });
}

/** The text with one more entry in `auth.keys`. Throws FaasError `usage` when the name is taken, else as above. */
export function addKey(text: string, key: Pick<ApiKey, 'name' | 'sha256' | 'scopes'>, file = 'faas_config.yaml'): string {
  const value = readable(text, file).value as { auth?: { keys?: readonly { name?: unknown }[] } | null } | null;
  const present = value?.auth?.keys ?? [];
  if (Array.isArray(present) && present.some((entry) => isObject(entry) && entry['name'] === key.name)) {
    throw new FaasError('usage', { detail: `A key named ${key.name} exists already; choose another name.` });
  }
  const entry = { name: key.name, sha256: key.sha256, scopes: [...key.scopes] };
  return editText(text, file, { auth: { keys: [...present, entry] } }, (document) => {
    const auth = ensureMap(document, ensureTop(document), 'auth');
    const pair = findPair(auth, 'keys');
    const node = created(document, entry) as YAMLMap;
    const scopes = node.get('scopes', true);
    if (isSeq(scopes)) scopes.flow = true;
    if (isSeq(pair?.value)) {
      if (pair.value.items.length === 0) pair.value.flow = false;
      pair.value.items.push(node);
    } else {
      const keys = new YAMLSeq(document.schema);
      keys.items.push(node);
      setValue(document, auth, 'keys', keys);
    }
  });
}

/** Edits the model, prints it, puts untouched lines back, and proves that the result means what the patch says. */
function editText(text: string, file: string, patch: unknown, edit: (document: Document.Parsed) => void): string {
  const { document, value } = readable(text, file);
  const expected = mergePatch(value ?? {}, patch);
  if (isDeepStrictEqual(plain(value ?? {}), plain(expected))) return text;
  const content = withoutByteOrderMark(text);
  const style = { lineWidth: 0, flowCollectionPadding: false, ...layoutOf(content) };
  const before = document.toString(style);
  edit(document);
  const after = document.toString(style);
  for (const candidate of [keepLines(content, before, after), after]) {
    const result = parseFile(candidate, file);
    if (result.problems.length === 0 && isDeepStrictEqual(plain(result.value), plain(expected))) {
      return text.slice(0, text.length - content.length) + candidate;
    }
  }
  const { problems } = parseFile(after, file);
  if (problems.length > 0) throw new FaasError('invalid_revision', { problems });
  throw new FaasError('internal', { detail: 'The configuration file could not be edited; edit it by hand.' });
}

function readable(text: string, file: string): { readonly document: Document.Parsed; readonly value: unknown } {
  const { document, value, problems } = parseFile(text, file);
  if (document === undefined || problems.length > 0) {
    throw new FaasError('invalid_revision', { detail: `${file} is not readable, so it cannot be edited.`, problems });
  }
  if (value !== null && !isObject(value)) {
    const problem = { file, line: 1, column: 1, message: 'the file must be a map of system, auth, git and functions' };
    throw new FaasError('invalid_revision', { problems: [problem] });
  }
  return { document, value };
}

function ensureTop(document: Document.Parsed): YAMLMap {
  if (isMap(document.contents)) return document.contents;
  const top = new YAMLMap(document.schema);
  copyComments(document.contents, top);
  (document as { contents: Node | null }).contents = top;
  return top;
}

/** The map under `key`, made when it is missing, empty or no map. */
function ensureMap(document: Document.Parsed, parent: YAMLMap, key: string): YAMLMap {
  if (isAlias(findPair(parent, key)?.value)) expandAliases(document);
  const present = findPair(parent, key)?.value;
  if (isMap(present)) {
    if (present.items.length === 0) present.flow = false;
    return present;
  }
  const map = new YAMLMap(document.schema);
  setValue(document, parent, key, map);
  return map;
}

function applyPatch(document: Document.Parsed, map: YAMLMap, patch: Readonly<Record<string, unknown>>): void {
  for (const [key, change] of Object.entries(patch)) {
    const present = findPair(map, key)?.value;
    if (change === null) removeKey(map, key);
    else if (isObject(change) && isMap(present)) {
      if (present.items.length === 0) present.flow = false;
      applyPatch(document, present, change);
    } else if (!(isScalar(present) && present.value === change)) {
      setValue(document, map, key, created(document, mergePatch(undefined, change)));
    }
  }
}

/** Replaces or appends; comments at the old value, and its kind of quotes, stay. */
function setValue(document: Document.Parsed, map: YAMLMap, key: string, node: Node): void {
  const pair = findPair(map, key);
  if (pair === undefined) {
    map.items.push(document.createPair(key, node));
    return;
  }
  copyComments(pair.value, node);
  const old = pair.value;
  if (isScalar(old) && isScalar(node) && typeof node.value === 'string') {
    if (old.type === Scalar.QUOTE_DOUBLE || old.type === Scalar.QUOTE_SINGLE) node.type = old.type;
  }
  pair.value = node;
}

function removeKey(map: YAMLMap, key: string): void {
  map.items = map.items.filter((pair) => keyText(pair.key) !== key);
}

function findPair(map: YAMLMap, key: string): Pair | undefined {
  return map.items.find((pair) => keyText(pair.key) === key);
}

function copyComments(from: unknown, to: Node): void {
  if (!isNode(from)) return;
  to.comment = from.comment ?? null;
  to.commentBefore = from.commentBefore ?? null;
}

/** Words that YAML 1.1 readers take for something else; our own reader would not. */
const AMBIGUOUS = /^(?:y|n|yes|no|on|off|~|[-+]?[0-9][0-9_:.]*)$/i;

function created(document: Document.Parsed, value: unknown): Node {
  const node = document.createNode(value, { aliasDuplicateObjects: false }) as Node;
  visit(node, {
    Scalar: (_key, scalar) => {
      if (typeof scalar.value === 'string' && AMBIGUOUS.test(scalar.value)) scalar.type = Scalar.QUOTE_DOUBLE;
    },
  });
  return node;
}

/** An entry that shares parts with others by aliases is written out first, so that the change touches only this one. */
function freeFromAliases(document: Document.Parsed, functions: YAMLMap, name: string): void {
  const entry = findPair(functions, name)?.value;
  if (!isNode(entry)) return;
  let isShared = false;
  visit(entry, {
    Alias: () => void (isShared = true),
    Value: (_key, node) => void (isShared ||= node.anchor !== undefined),
  });
  if (isShared) expandAliases(document);
}

function expandAliases(document: Document.Parsed): void {
  visit(document, { Alias: (_key, alias) => alias.resolve(document)?.clone() as Node | undefined });
  visit(document, { Value: (_key, node) => void delete node.anchor });
}

/** How the file is indented: what the printer adds has to stand in line with what is kept. */
function layoutOf(content: string): { indent: number; indentSeq: boolean } {
  const indent =
    /^[^\s#][^\n]*:[^\S\n]*(?:#[^\n]*)?\r?\n(?:[^\S\n]*(?:#[^\n]*)?\r?\n)*( +)[^\s#-]/m.exec(content)?.[1]?.length ?? 2;
  const isSequenceFlush = /^( *)[^\s#-][^\n]*:[^\S\n]*(?:#[^\n]*)?\r?\n\1- /m.test(content);
  return { indent: Math.min(indent, 8), indentSeq: !isSequenceFlush };
}

/** Own enumerable data only, so that objects of different making compare. */
function plain(value: unknown): unknown {
  return value === undefined ? undefined : (JSON.parse(JSON.stringify(value)) as unknown);
}
