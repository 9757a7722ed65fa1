/** Variables of PEP 508. `extra` belongs to packages, not to who asks for them. */
const VARIABLES = new Set([
  'os_name',
  'sys_platform',
  'platform_machine',
  'platform_python_implementation',
  'platform_release',
  'platform_system',
  'platform_version',
  'python_version',
  'python_full_version',
  'implementation_name',
  'implementation_version',
]);
const COMPARISONS = new Set(['===', '==', '~=', '!=', '<=', '>=', '<', '>']);
const TOKEN = /\s*(?:([a-z_]+)|("[^"\\]*"|'[^'\\]*')|(===|==|~=|!=|<=|>=|<|>)|([()]))/y;
const DEPTH_MAX = 16;

/** Whether the text is an environment marker of PEP 508: `python_version < "3.9" and (os_name == "posix" or …)`. */
export function isMarker(text: string): boolean {
  const tokens = tokensOf(text);
  if (tokens === undefined) return false;
  let position = 0;
  const next = (): string => tokens[position++] ?? '';

  const alternatives = (depth: number): boolean => joined('or', () => joined('and', () => term(depth)));
  const joined = (word: string, part: () => boolean): boolean => {
    if (!part()) return false;
    while (tokens[position] === word) {
      position += 1;
      if (!part()) return false;
    }
    return true;
  };
  const term = (depth: number): boolean => {
    if (tokens[position] !== '(') return comparison();
    position += 1;
    return depth < DEPTH_MAX && alternatives(depth + 1) && next() === ')';
  };
  const comparison = (): boolean => {
    const left = next();
    let operator = next();
    if (operator === 'not') operator = `not ${next()}`;
    const right = next();
    const isKnown = COMPARISONS.has(operator) || operator === 'in' || operator === 'not in';
    return isKnown && isValue(left) && isValue(right) && (VARIABLES.has(left) || VARIABLES.has(right));
  };
  return alternatives(0) && position === tokens.length;
}

function isValue(token: string): boolean {
  return VARIABLES.has(token) || /^["']/.test(token);
}

function tokensOf(text: string): string[] | undefined {
  const tokens: string[] = [];
  const end = text.trimEnd().length;
  for (let at = 0; at < end; at = TOKEN.lastIndex) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (match === null) return undefined;
    tokens.push(match[0].trim());
  }
  return tokens;
}
