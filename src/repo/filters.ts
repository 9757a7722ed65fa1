import { gitFailed, type Git } from './git.ts';

/**
 * Overrides that empty every filter of the repository's configuration, so that hashing and comparing files runs no
 * program (`filter.<name>.clean`, `.smudge`, `.process`). Asked anew each time: the user may add one at any moment.
 */
export async function disabledFilters(git: Git): Promise<[string, string][]> {
  const args = ['config', '-z', '--name-only', '--get-regexp', String.raw`^filter\..*\.(clean|smudge|process|required)$`];
  const result = await git.try(args);
  if (result.code === 1) return [];
  if (result.code !== 0) throw gitFailed(args, result);
  const names = new Set<string>();
  for (const key of result.stdout.toString('utf8').split('\0')) {
    if (key !== '') names.add(key.slice('filter.'.length, key.lastIndexOf('.')));
  }
  return [...names].flatMap((name): [string, string][] => [
    [`filter.${name}.clean`, ''],
    [`filter.${name}.smudge`, ''],
    [`filter.${name}.process`, ''],
    [`filter.${name}.required`, 'false'],
  ]);
}
