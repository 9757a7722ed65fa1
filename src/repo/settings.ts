import { stat } from 'node:fs/promises';
import { gitFailed, type Git } from './git.ts';

/** The repository's configuration by key as git spells it (section and variable in lower case); the last value of each. */
export type Settings = ReadonlyMap<string, string>;

interface Remembered {
  readonly settings: Settings;
  readonly files: readonly string[];
  /** Stamps of the files when git had read them. */
  readonly stamp: string;
}

const remembered = new WeakMap<Git, Remembered>();

/**
 * What the repository's own configuration says. Asked for with every snapshot and write, because the user may change it
 * at any moment, so git reads it again only when one of its files was written since.
 */
export async function readSettings(git: Git): Promise<Settings> {
  const known = remembered.get(git);
  if (known !== undefined && (await stampOf(known.files)) === known.stamp) return known.settings;

  // NUL-separated: origin, then key and value with a line end between them; a key alone means true.
  const args = ['config', '-z', '--list', '--show-origin'];
  const result = await git.try(args);
  if (result.code !== 0) throw gitFailed(args, result);
  const settings = new Map<string, string>();
  const files = new Set<string>();
  const fields = result.stdout.toString('utf8').split('\0');
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const [origin = '', text = ''] = fields.slice(index, index + 2);
    if (origin.startsWith('file:')) files.add(origin.slice('file:'.length));
    const end = text.indexOf('\n');
    settings.set(end < 0 ? text : text.slice(0, end), end < 0 ? 'true' : text.slice(end + 1));
  }
  // Which files an include names, or a linked work tree adds, can change without a write to any of these.
  const isFixed = ![...settings.keys()].some((key) => /^include(?:if)?\.|^extensions\.worktreeconfig$/.test(key));
  const stamp = isFixed ? await stampOf([...files]) : undefined;
  if (stamp === undefined) remembered.delete(git);
  else remembered.set(git, { settings, files: [...files], stamp });
  return settings;
}

/** Changes with every write of one of the files; undefined when one of them is not there. */
async function stampOf(files: readonly string[]): Promise<string | undefined> {
  const found = await Promise.all(files.map((file) => stat(file, { bigint: true }).catch(() => undefined)));
  if (found.length === 0 || found.includes(undefined)) return undefined;
  return found.map((file) => `${file?.dev}:${file?.ino}:${file?.size}:${file?.mtimeNs}:${file?.ctimeNs}`).join(' ');
}
