import { isMarker } from './marker.ts';

/** One package that a function asks for: the part of PEP 508 that names a package of the index. */
export interface Requirement {
  /** As PEP 503 normalises it: `Foo.Bar_baz` is `foo-bar-baz`. */
  readonly name: string;
  readonly marker: string | undefined;
  /** Accepts one version only. */
  readonly isPinned: boolean;
  /** The whole requirement in one spelling. */
  readonly text: string;
}

export type ParsedRequirement =
  | { readonly requirement: Requirement; readonly problem?: undefined }
  | { readonly requirement?: undefined; readonly problem: string };

const LENGTH_MAX = 512;
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?/;
const NAME_ALONE = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/;
/** PEP 440, with local versions; `.*` ends a prefix and goes with `==` and `!=` only. */
const VERSION =
  /^v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?$/i;
const CLAUSE = /^(===|==|~=|!=|<=|>=|<|>)\s*([^\s,;]+)$/;

/**
 * Reads one requirement whole or says what is wrong with it. Options, URLs, paths and direct references are refused: where
 * packages come from is decided by the settings of the host, never by the repository.
 */
export function parseRequirement(raw: string): ParsedRequirement {
  const text = raw.trim();
  const refuse = (problem: string): ParsedRequirement => ({ problem });
  if (text === '') return refuse('is empty');
  if (text.length > LENGTH_MAX) return refuse(`is longer than ${LENGTH_MAX} characters`);
  const strange = /[^\x20-\x7e\t]/u.exec(text)?.[0];
  if (strange !== undefined) {
    const point = (strange.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');
    return refuse(`holds the character U+${point}; only ASCII letters, digits and signs are allowed`);
  }
  const shown = JSON.stringify(text.slice(0, 80));
  if (text.startsWith('-'))
    return refuse(`${shown} is an option of the installer, not a package; options are settings of the host`);
  const elsewhere = describeElsewhere(text);
  if (elsewhere !== undefined) return refuse(`${shown} is ${elsewhere}; only packages of the index can be installed`);

  const [, head = '', marker] = /^([^;]*)(?:;(.*))?$/s.exec(text) ?? [];
  const name = NAME.exec(head)?.[0];
  if (name === undefined) return refuse(`${shown} does not begin with the name of a package`);
  let rest = head.slice(name.length).trim();

  let extras: string[] = [];
  if (rest.startsWith('[')) {
    const end = rest.indexOf(']');
    extras = rest
      .slice(1, end)
      .split(',')
      .map((extra) => extra.trim());
    if (end < 0 || !extras.every((extra) => NAME_ALONE.test(extra)))
      return refuse(`${shown} has extras that cannot be read; write name[extra,extra]`);
    rest = rest.slice(end + 1).trim();
  }

  const clauses = rest === '' ? [] : rest.split(',').map((clause) => clause.trim());
  for (const clause of clauses) {
    const mistake = clauseMistake(clause, name);
    if (mistake !== undefined) return refuse(`${shown}: ${mistake}`);
  }
  if (marker !== undefined && !isMarker(marker.trim()))
    return refuse(`${shown}: the condition after ";" cannot be read; write it as in python_version < "3.11"`);

  const specifiers = clauses.map((clause) => clause.replaceAll(/\s+/g, ''));
  const normalised = normaliseName(name);
  const withExtras = extras.length === 0 ? '' : `[${extras.map(normaliseName).toSorted().join(',')}]`;
  const condition = marker === undefined ? '' : ` ; ${marker.trim()}`;
  return {
    requirement: {
      name: normalised,
      marker: marker?.trim(),
      isPinned: specifiers.length === 1 && /^={2,3}[^=]/.test(specifiers[0] ?? '') && !specifiers[0]?.endsWith('*'),
      text: `${normalised}${withExtras}${specifiers.toSorted().join(',')}${condition}`,
    },
  };
}

/** Why a requirement does not go with the earlier ones of its list, or undefined. Different conditions may ask for different versions. */
export function duplicateMistake(earlier: readonly Requirement[], next: Requirement): string | undefined {
  const same = earlier.filter(({ name }) => name === next.name);
  if (same.length === 0 || (next.marker !== undefined && same.every(({ marker }) => marker !== undefined))) return undefined;
  return `${next.name} is there twice`;
}

function normaliseName(name: string): string {
  return name.replaceAll(/[-_.]+/g, '-').toLowerCase();
}

function describeElsewhere(text: string): string | undefined {
  const head = text.split(';')[0] ?? '';
  if (/^[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*@/.test(text)) return 'a direct reference';
  if (/^[a-z+]+:/i.test(text) || head.includes('://')) return 'a URL';
  if (/^[./~]/.test(text) || /[/\\]/.test(head) || /\.(?:whl|zip|tar|tar\.[a-z0-9]+|tgz)$/i.test(head.trim())) return 'a path';
  return undefined;
}

function clauseMistake(clause: string, name: string): string | undefined {
  const [, operator = '', version = ''] = CLAUSE.exec(clause) ?? [];
  if (operator === '') {
    const single = /^=\s*([^=\s]\S*)$/.exec(clause)?.[1];
    if (single !== undefined) return `"=" is no comparison; did you mean ${name}==${single}?`;
    const bare = /^\d[^\s]*$/.test(clause) ? `; did you mean ${name}==${clause}?` : '; write name==1.2.3';
    return `${JSON.stringify(clause)} is no comparison of versions${bare}`;
  }
  if (operator === '===') return /^[A-Za-z0-9.!+_-]+$/.test(version) ? undefined : `${JSON.stringify(version)} is no version`;
  const isPrefix = version.endsWith('.*');
  if (isPrefix && operator !== '==' && operator !== '!=') return `${JSON.stringify(version)} goes with == and != only`;
  if (!VERSION.test(isPrefix ? version.slice(0, -2) : version)) return `${JSON.stringify(version)} is no version`;
  if (operator === '~=' && !/\d\.\d/.test(version)) return `~=${version} needs at least two parts, such as ~=1.4`;
  return undefined;
}
