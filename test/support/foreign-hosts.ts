import { chown, readdir, rmdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { DaemonProcessOptions } from './daemon-process.ts';
import { makeTemporaryDirectory } from './git-repository.ts';

/** Nobody: a user that owns nothing here. */
export const ORDINARY_UID = 65_534;

const CHECKOUT = join(import.meta.dirname, '..', '..');

/** Starts the daemon in a mount namespace of its own after some preparations in shell; `$1` and so on are `args`. */
export function inOwnMounts(script: string, args: readonly string[] = []): Pick<DaemonProcessOptions, 'wrapper'> {
  return {
    wrapper: [
      'unshare',
      '--mount',
      '--propagation',
      'private',
      'sh',
      '-ec',
      `${script}\nshift ${args.length}\nexec "$@"`,
      'sh',
      ...args,
    ],
  };
}

/** The daemon as an ordinary user, who can read the checkout nowhere but at a private mount. */
export async function asOrdinaryUser(t: ExecutionContext): Promise<Pick<DaemonProcessOptions, 'wrapper' | 'main'>> {
  const outer = await makeTemporaryDirectory(t);
  const mount = `${outer}-checkout`;
  const script = [
    'mkdir -p -m 755 "$1"',
    'mount --bind "$2" "$1"',
    // Node comes with the checkout where it was installed by it.
    'case "$3" in ..*) node="$4" ;; *) node="$1/$3" ;; esac',
    'shift 4',
    `exec setpriv --reuid=${ORDINARY_UID} --regid=${ORDINARY_UID} --clear-groups "$node" "$@"`,
  ].join('\n');
  t.teardown(() => rmdir(mount).catch(() => {}));
  return {
    main: join(mount, 'src', 'main.ts'),
    // The program itself, which comes next, is argument 4.
    wrapper: [
      'unshare',
      '--mount',
      '--propagation',
      'private',
      'sh',
      '-ec',
      script,
      'sh',
      mount,
      CHECKOUT,
      relative(CHECKOUT, process.execPath),
    ],
  };
}

/** Makes everything in a directory, and it itself, belong to that user. */
export async function giveAway(directory: string): Promise<void> {
  for (const name of await readdir(directory, { recursive: true }))
    await chown(join(directory, name), ORDINARY_UID, ORDINARY_UID);
  await chown(directory, ORDINARY_UID, ORDINARY_UID);
}
