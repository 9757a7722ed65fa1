import { duplicateMistake, parseRequirement, type Requirement } from '../config/requirement.ts';
import type { Problem } from '../errors.ts';

/** A requirement where it stands. */
export interface PlacedRequirement extends Requirement {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** `sha256:…` of every archive that may be installed for it; empty: any. */
  readonly hashes: readonly string[];
}

export interface RequirementsFile {
  readonly requirements: readonly PlacedRequirement[];
  readonly problems: readonly Problem[];
}

const REQUIREMENTS_MAX = 1000;
const PROBLEMS_MAX = 50;
const HASH = /^sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})$/;

/** A line with what `\` at its end joined to it. */
interface LogicalLine {
  readonly text: string;
  readonly line: number;
}

/**
 * Reads `requirements.txt`: requirements, comments, `\` at the end of a line, and `--hash=sha256:…` behind a requirement. All other
 * options of pip are refused, `-r`, `-e` and `--index-url` among them. Once one requirement has hashes, all need them.
 */
export function readRequirements(text: string, file: string): RequirementsFile {
  const requirements: PlacedRequirement[] = [];
  const problems: Problem[] = [];
  const complain = (line: number, column: number, message: string): void => {
    if (problems.length < PROBLEMS_MAX) problems.push({ file, line, column, message });
  };
  for (const { text: content, line } of logicalLines(text)) {
    // Each is compared with those before it.
    if (requirements.length === REQUIREMENTS_MAX) {
      complain(line, 1, `the file has more than ${REQUIREMENTS_MAX} requirements`);
      break;
    }
    const column = content.length - content.trimStart().length + 1;
    const [, head = '', options = ''] = /^(.*?)((?:\s--hash[=\s].*)?)$/s.exec(content) ?? [];
    const option = /(?:^|\s)(--?[A-Za-z][\w-]*)/.exec(head);
    if (option !== null) {
      const at = (option.index ?? 0) + option[0].indexOf('-') + 1;
      complain(
        line,
        at,
        `${option[1]} is an option of the installer; only --hash is allowed here, the rest are settings of the host`,
      );
      continue;
    }
    const { requirement, problem } = parseRequirement(head);
    if (problem !== undefined) {
      complain(line, column, problem);
      continue;
    }
    const duplicate = duplicateMistake(requirements, requirement);
    if (duplicate !== undefined) complain(line, column, duplicate);
    const hashes = readHashes(options);
    if (hashes === undefined)
      complain(line, head.length + 2, `a hash is --hash=sha256: and 64 hexadecimal digits (or sha384, sha512)`);
    requirements.push({ ...requirement, file, line, column, hashes: hashes ?? [] });
  }
  for (const problem of hashProblems(requirements)) complain(problem.line, problem.column, problem.message);
  return { requirements, problems };
}

/** What is missing where some requirements have hashes: pip would refuse the whole list. */
function hashProblems(requirements: readonly PlacedRequirement[]): { line: number; column: number; message: string }[] {
  if (requirements.every(({ hashes }) => hashes.length === 0)) return [];
  return requirements.flatMap(({ name, line, column, hashes, isPinned }) => {
    if (hashes.length === 0) return [{ line, column, message: `${name} has no --hash, but others have: all need one then` }];
    return isPinned ? [] : [{ line, column, message: `${name} has a --hash, so its version must be given with ==` }];
  });
}

function readHashes(options: string): string[] | undefined {
  const hashes: string[] = [];
  let rest = options.trim();
  while (rest !== '') {
    const [whole = '', hash = ''] = /^--hash(?:=|\s+)(\S+)\s*/.exec(rest) ?? [];
    if (!HASH.test(hash)) return undefined;
    hashes.push(hash);
    rest = rest.slice(whole.length);
  }
  return hashes.toSorted();
}

function* logicalLines(text: string): Generator<LogicalLine> {
  let joined = '';
  let first = 0;
  for (const [index, raw] of text
    .replace(/^\uFEFF/, '')
    .split(/\r\n|\r|\n/)
    .entries()) {
    if (joined === '') first = index + 1;
    // A comment line ends what was to be continued, as with pip.
    const isComment = /^\s*#/.test(raw);
    if (!isComment && raw.endsWith('\\')) {
      joined += `${raw.slice(0, -1)} `;
      continue;
    }
    const whole = joined + (isComment ? '' : raw.replace(/(^|\s)#.*$/, ''));
    joined = '';
    if (whole.trim() !== '') yield { text: whole, line: first };
  }
  if (joined.trim() !== '') yield { text: joined, line: first };
}
