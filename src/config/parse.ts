import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument, type Document, type Node, type Pair } from 'yaml';
import { printable, type Problem } from '../errors.ts';

export type Path = readonly (string | number)[];

/** A problem before its place in a file is known: a node of the value, or the key that leads to it. */
export interface Fault {
  readonly path: Path;
  readonly at: 'key' | 'value';
  readonly message: string;
}

/** 1-based, the column in characters. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

export interface ParsedFile {
  /** YAML's model with comments; undefined when the text could not be read at all. */
  readonly document: Document.Parsed | undefined;
  /** Plain data; undefined when there are problems, null for an empty file. */
  readonly value: unknown;
  readonly problems: readonly Problem[];
  /** Place of a node, or of its deepest ancestor that is written in the file. */
  locate(path: Path, at: Fault['at']): Place;
}

export const MAX_FILE_BYTES: number = 256 * 1024;
export const MAX_ALIASES = 100;
const MAX_NODES = 200_000;
export const MAX_DEPTH = 32;
const MAX_SYNTAX_PROBLEMS = 20;
const LONG_LINE = 4096;

/** Keys that mean something to JavaScript objects; none of them is a name anybody needs. */
const FORBIDDEN_KEYS: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype']);

/**
 * Reads YAML 1.2 (JSON is a part of it) into plain data. Never throws and never hangs: size, depth, aliases and nodes
 * are bounded before anything is built from them. One document, unique text keys; no tags, directives or merge keys.
 */
export function parseFile(text: string, file: string): ParsedFile {
  const counter = new LineCounter();
  const locateOffset = placeFinder(text, counter);
  const start: Place = { line: 1, column: 1 };
  const failed = (problems: readonly Problem[]): ParsedFile => ({
    document: undefined,
    value: undefined,
    problems,
    locate: () => start,
  });

  if (Buffer.byteLength(text) > MAX_FILE_BYTES) {
    return failed([{ file, ...start, message: `the file is larger than ${MAX_FILE_BYTES / 1024} KiB` }]);
  }
  let document: Document.Parsed;
  try {
    document = parseDocument(withoutByteOrderMark(text), {
      version: '1.2',
      schema: 'core',
      merge: false,
      // Checked by our own walk with a set: the library compares every pair of keys.
      uniqueKeys: false,
      prettyErrors: false,
      logLevel: 'error',
      lineCounter: counter,
    });
  } catch (error) {
    return failed([{ file, ...start, message: `not readable as YAML: ${printable((error as Error).message)}` }]);
  }
  if (document.errors.length > 0) {
    const problems: Problem[] = [];
    for (const error of document.errors) {
      // One mistake often makes several errors on its line; the first names it.
      if (problems.at(-1)?.line === counter.linePos(error.pos[0]).line) continue;
      problems.push({ file, ...locateOffset(error.pos[0]), message: syntaxMessage(error.code, error.message) });
      if (problems.length === MAX_SYNTAX_PROBLEMS) break;
    }
    return failed(problems);
  }

  const reader = new Reader(document);
  const value = reader.read();
  const problems = reader.faults.map(({ offset, message }): Problem => ({ file, ...locateOffset(offset), message }));
  const locate: ParsedFile['locate'] = (path, at) => locateOffset(reader.offsetOf(path, at));
  return { document, value: problems.length === 0 ? value : undefined, problems, locate };
}

export function withoutByteOrderMark(text: string): string {
  return text.startsWith('\uFEFF') ? text.slice(1) : text;
}

/** From YAML's model to plain data by one bounded walk in document order. */
class Reader {
  readonly faults: { readonly offset: number; readonly message: string }[] = [];
  readonly #document: Document.Parsed;
  readonly #anchors = new Map<string, Node>();
  /** What each alias meant where it stood: a later anchor may reuse the name. */
  readonly #targets = new Map<Node, Node>();
  /** Collections that are being read: an alias to one of them would never end. */
  readonly #open = new Set<Node>();
  #nodes = 0;
  #aliases = 0;
  #following = 0;

  constructor(document: Document.Parsed) {
    this.#document = document;
  }

  read(): unknown {
    const { directives } = this.#document;
    if (directives.yaml.explicit === true || Object.keys(directives.tags).length > 1)
      this.#fault(0, 'directives (%YAML, %TAG) are not allowed');
    return this.#value(this.#document.contents, 0);
  }

  offsetOf(path: Path, at: Fault['at']): number {
    let node: Node | null = this.#document.contents;
    let offset = node?.range?.[0] ?? 0;
    for (const [index, step] of path.entries()) {
      if (isAlias(node)) node = this.#targets.get(node) ?? null;
      const isLast = index === path.length - 1;
      if (isMap(node)) {
        const pair = (node.items as Pair<Node, Node | null>[]).find(({ key }) => keyText(key) === step);
        if (pair === undefined) return offset;
        node = pair.value;
        // An empty value has a place of its own after the colon, often on another line; its key is what people look for.
        const isEmpty = isScalar(node) && node.value === null && (node.source ?? '') === '';
        offset = ((isLast && at === 'key') || isEmpty ? pair.key : (node ?? pair.key)).range?.[0] ?? offset;
      } else if (isSeq(node)) {
        const item = node.items[Number(step)] as Node | undefined;
        if (item === undefined) return offset;
        node = item;
        offset = item.range?.[0] ?? offset;
      } else return offset;
    }
    return offset;
  }

  #value(node: Node | null, depth: number): unknown {
    if (node === null) return null;
    const offset = node.range?.[0] ?? 0;
    this.#nodes += 1;
    if (this.#nodes > MAX_NODES)
      return this.#once(offset, `the file has more than ${MAX_NODES} values when its aliases are followed`);
    if (depth > MAX_DEPTH) return this.#fault(offset, `nested deeper than ${MAX_DEPTH} levels`);
    if (isAlias(node)) return this.#alias(node.source, node, offset, depth);
    if (node.tag !== undefined) this.#fault(offset, `the tag ${JSON.stringify(node.tag)} is not allowed; write plain values`);
    const { anchor } = node as { anchor?: string };
    // While an alias is followed its anchors are met again, maybe after the name was given to something newer.
    if (anchor !== undefined && this.#following === 0) this.#anchors.set(anchor, node);
    if (isScalar(node)) return node.value;
    this.#open.add(node);
    try {
      if (isSeq(node)) return (node.items as (Node | null)[]).map((item) => this.#value(item, depth + 1));
      return isMap(node) ? this.#map(node.items as Pair<Node, Node | null>[], depth) : null;
    } finally {
      this.#open.delete(node);
    }
  }

  #map(pairs: readonly Pair<Node, Node | null>[], depth: number): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    for (const { key, value } of pairs) {
      const offset = key?.range?.[0] ?? 0;
      const name = keyText(key);
      if (name === undefined) this.#fault(offset, 'a key must be a plain text');
      else if (name === '<<') this.#fault(offset, 'merge keys (<<) are not allowed; write the values out');
      else if (FORBIDDEN_KEYS.has(name)) this.#fault(offset, `the key ${name} is not allowed`);
      else if (Object.hasOwn(object, name)) this.#fault(offset, `the key ${JSON.stringify(name)} is there twice`);
      else object[name] = this.#value(value, depth + 1);
    }
    return object;
  }

  #alias(name: string, node: Node, offset: number, depth: number): unknown {
    this.#aliases += 1;
    if (this.#aliases > MAX_ALIASES) return this.#once(offset, `more than ${MAX_ALIASES} aliases`);
    const target = this.#targets.get(node) ?? this.#anchors.get(name);
    if (target === undefined) return this.#fault(offset, `the alias *${name} has no anchor before it`);
    if (this.#open.has(target)) return this.#fault(offset, `the alias *${name} contains itself`);
    this.#targets.set(node, target);
    this.#following += 1;
    const value = this.#value(target, depth);
    this.#following -= 1;
    return value;
  }

  #fault(offset: number, message: string): undefined {
    if (this.faults.length < 1000) this.faults.push({ offset, message });
  }

  /** For limits that every further node would break too. */
  #once(offset: number, message: string): undefined {
    if (!this.faults.some((fault) => fault.message === message)) this.#fault(offset, message);
  }
}

/** A key as the text it is looked up by; undefined for what is no plain key. */
export function keyText(key: unknown): string | undefined {
  if (!isScalar(key) || key.tag !== undefined) return undefined;
  if (typeof key.value === 'string') return key.value;
  return key.source === undefined || key.source === '' ? undefined : key.source;
}

function syntaxMessage(code: string, message: string): string {
  if (code === 'MULTIPLE_DOCS') return 'the file must hold one YAML document, this is a second one';
  if (code === 'TAB_AS_INDENT') return 'tabs are not allowed as indentation; use spaces';
  return printable(message.charAt(0).toLowerCase() + message.slice(1));
}

function placeFinder(text: string, counter: LineCounter): (offset: number) => Place {
  const content = withoutByteOrderMark(text);
  return (offset) => {
    const { line, col } = counter.linePos(offset);
    if (line === 0) return { line: 1, column: 1 };
    const lineStart = counter.lineStarts[line - 1] ?? 0;
    // From UTF-16 units to characters; in a line so long that nobody counts there, units will do.
    if (col > LONG_LINE) return { line, column: col };
    return { line, column: [...content.slice(lineStart, lineStart + col - 1)].length + 1 };
  };
}
