import type { Git } from './git.ts';
import { readSettings } from './settings.ts';

/**
 * Overrides that empty every filter of the repository's configuration, so that hashing and comparing files runs no
 * program (`filter.<name>.clean`, `.smudge`, `.process`). Asked anew each time: the user may add one at any moment.
 */
export async function disabledFilters(git: Git): Promise<[string, string][]> {
  const names = new Set<string>();
  for (const key of (await readSettings(git)).keys()) {
    const name = /^filter\.(.*)\.(?:clean|smudge|process|required)$/s.exec(key)?.[1];
    if (name !== undefined) names.add(name);
  }
  return [...names].flatMap((name): [string, string][] => [
    [`filter.${name}.clean`, ''],
    [`filter.${name}.smudge`, ''],
    [`filter.${name}.process`, ''],
    [`filter.${name}.required`, 'false'],
  ]);
}
