import { readFileSync } from 'node:fs';
import { FaasError } from '../../errors.ts';

/** What the configuration asks for; empty: nothing. */
export interface WantedLabels {
  /** Name of a loaded AppArmor profile. */
  readonly apparmorProfile: string;
  /** Whole SELinux context, `user:role:type:level`. */
  readonly selinuxLabel: string;
}

/** What the kernel of this host enforces. */
export interface LabelHost {
  readonly apparmor: boolean;
  /** Names of loaded profiles; undefined when this process may not read the list: then only the attempt tells. */
  readonly apparmorProfiles: ReadonlySet<string> | undefined;
  readonly selinux: boolean;
}

/** One label, as an instance takes it on itself: `text` goes to `file`, after which `file` must begin with `shows`. */
export interface LabelOption {
  readonly file: string;
  readonly text: string;
  readonly shows: string;
}

/**
 * The options that put every instance under these labels; empty when none is wanted. Pure. Throws FaasError
 * `isolation_unavailable` when the host does not enforce what is wanted: a label that nobody looks at is none.
 */
export function labelOptions(wanted: WantedLabels, host: LabelHost): readonly LabelOption[] {
  const { apparmorProfile, selinuxLabel } = wanted;
  const options: LabelOption[] = [];
  if (apparmorProfile !== '') {
    if (!host.apparmor) throw unavailable('apparmor_profile', 'AppArmor is not enabled on this host');
    if (host.apparmorProfiles?.has(apparmorProfile) === false) {
      throw unavailable('apparmor_profile', `the profile ${apparmorProfile} is not loaded; load it with apparmor_parser -r`);
    }
    const file = '/proc/self/attr/apparmor/current';
    options.push({ file, text: `changeprofile ${apparmorProfile}`, shows: apparmorProfile });
  }
  if (selinuxLabel !== '') {
    if (!host.selinux) throw unavailable('selinux_label', 'SELinux is not enabled on this host');
    options.push({ file: '/proc/self/attr/current', text: selinuxLabel, shows: selinuxLabel });
  }
  return options;
}

/** What this host enforces, read where the kernel shows it. */
export function readLabelHost(): LabelHost {
  const profiles = readOrNothing('/sys/kernel/security/apparmor/profiles');
  return {
    apparmor: readOrNothing('/sys/module/apparmor/parameters/enabled')?.trim() === 'Y',
    // A line each: the name, which may hold blanks, and the mode in brackets.
    apparmorProfiles:
      profiles === undefined ? undefined : new Set(profiles.split('\n').map((line) => line.replace(/ \(\w+\)$/, ''))),
    selinux: readOrNothing('/sys/fs/selinux/enforce') !== undefined,
  };
}

function readOrNothing(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function unavailable(key: string, why: string): FaasError {
  return new FaasError('isolation_unavailable', {
    detail: `system.${key} cannot be obeyed: ${why}, or take the key away.`,
    context: { key },
  });
}
