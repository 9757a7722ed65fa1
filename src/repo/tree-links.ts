import type { TreeEntry } from './tree.ts';

/** As many links in a row as Linux follows. */
const LINKS_MAX = 40;

/** What stands at each path of one function: a directory, a plain file, or the target of a link. */
export interface LinkMap {
  readonly directories: ReadonlySet<string>;
  readonly files: ReadonlySet<string>;
  readonly targets: ReadonlyMap<string, string>;
}

/** The map of one function from its files (paths from the top of the function) and the text of its links. */
export function mapLinks(files: readonly TreeEntry[], targets: ReadonlyMap<string, string>): LinkMap {
  const directories = new Set<string>(['']);
  for (const { path } of files) {
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) directories.add(path.slice(0, end));
  }
  return { directories, files: new Set(files.filter((file) => file.mode !== '120000').map((file) => file.path)), targets };
}

/** Why the link at `path` is refused (a clause), or undefined. Resolved on the tree alone; the disk is never asked. */
export function linkFault(map: LinkMap, path: string): string | undefined {
  const followed = { count: 0 };
  const end = follow(map, path, followed);
  return 'fault' in end ? end.fault : undefined;
}

type Followed = { readonly at: string } | { readonly fault: string };

function follow(map: LinkMap, path: string, followed: { count: number }): Followed {
  const target = map.targets.get(path);
  if (target === undefined) {
    if (map.directories.has(path) || map.files.has(path)) return { at: path };
    return { fault: 'points to nothing in the function' };
  }
  followed.count += 1;
  if (followed.count > LINKS_MAX) return { fault: 'goes round in a circle' };
  if (target.startsWith('/')) return { fault: 'is absolute' };
  if (target === '' || target.includes('\0')) return { fault: 'has no usable target' };

  let at = parentOf(path);
  for (const name of target.split('/')) {
    if (name === '' || name === '.') continue;
    if (!map.directories.has(at)) return { fault: 'runs through a file' };
    if (name === '..') {
      if (at === '') return { fault: 'leaves the function' };
      at = parentOf(at);
      continue;
    }
    const next = follow(map, at === '' ? name : `${at}/${name}`, followed);
    if ('fault' in next) return next;
    at = next.at;
  }
  return { at };
}

function parentOf(path: string): string {
  return path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '';
}
