import type { InstallKind } from '../protocol.ts';

/** What a function wants to have installed, and for which runtime. */
export type DependencyWish = PythonWish | NodeWish;

interface Wish {
  readonly functionName: string;
  /** `python3`, `python3.N`, `node` or `nodeN`. */
  readonly runtime: string;
  /** Packages may run code of their own while they are installed. */
  readonly allowBuild: boolean;
  /** Of the function: what its packages may reach while they run code, though it is not public. */
  readonly networkAllow: readonly string[];
}

export interface PythonWish extends Wish {
  readonly ecosystem: 'python';
  /** In a fixed order and spelling. */
  readonly requirements: readonly WantedRequirement[];
  /** Every archive is checked against the hashes of its requirement. */
  readonly isHashed: boolean;
}

/** A requirement as the repository has it. */
export interface WantedRequirement {
  /** Normalised. */
  readonly name: string;
  /** In one spelling, with its condition. */
  readonly text: string;
  readonly hashes: readonly string[];
}

export interface NodeWish extends Wish {
  readonly ecosystem: 'node';
  readonly packageJson: string;
  readonly packageLock: string;
  /** The packages that the function itself names, for people. */
  readonly requirements: readonly { readonly text: string }[];
}

/** One wish on this host: what it is called in the store, and how it is fulfilled. */
export interface InstallPlan {
  /** SHA-256 in hexadecimal over everything that makes installations differ. */
  readonly key: string;
  /** For people. */
  readonly what: readonly string[];
  /** Whose launcher makes the sandbox. */
  readonly runtime: string;
  readonly kind: InstallKind;
  readonly networkAllow: readonly string[];
  /**
   * What the installer is given and told. Throws FaasError `dependencies_unavailable` when the host lacks a program for it, or its
   * settings cannot be read.
   *
   * @param resolvedBefore `name==version` of what an earlier installation of the same wish took
   */
  readonly makeOrder: (places: InstallPlaces, resolvedBefore: readonly string[]) => InstallOrder;
}

/** A copy of a file or directory of the host, or a text, under a name in the installer's input. */
export type InputFile = { readonly text: string } | { readonly copyOf: string };

/** What the installer's sandbox is given and told (runners/python/install.py). */
export interface InstallOrder {
  readonly tool: 'uv' | 'pip' | 'npm';
  readonly input: Readonly<Record<string, InputFile>>;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** Files of the input that the command finds in its own, writable directory, whose `node_modules` is the result. */
  readonly project: readonly string[];
  /** The interpreter, for what needs one; it also compiles what was installed. */
  readonly python: string | undefined;
  /** Asked after a failure: does the index answer for a package? */
  readonly probes: readonly { readonly url: string; readonly isTrusted: boolean }[];
  /** Said in addition when the last lines are like this. */
  readonly hint?: { readonly when: RegExp; readonly text: string } | undefined;
  /** Never to be shown. */
  readonly secrets: readonly string[];
  /** The input or the environment holds credentials, which code of packages could read. */
  readonly hasCredentials: boolean;
}

/** Directories as the installer sees them. */
export interface InstallPlaces {
  /** Read-only, with the input's files. */
  readonly input: string;
  /** Writable: `target/`, `tmp/` and `home/` are made in it. */
  readonly install: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

const PROXIES = ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY'] as const;

/** What every installer has in its environment. */
export function baseEnvironment({ install }: InstallPlaces): Record<string, string> {
  return { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: `${install}/home`, TMPDIR: `${install}/tmp`, LANG: 'C.UTF-8' };
}

/** The host's proxies, `proxy` before them; in both spellings, since some programs know only one. */
export function proxies(proxy: string | undefined, host: Environment): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of PROXIES) {
    const isTarget = name === 'HTTP_PROXY' || name === 'HTTPS_PROXY';
    const value = (isTarget ? proxy : undefined) ?? host[name] ?? host[name.toLowerCase()];
    if (value !== undefined && value !== '') found[name] = found[name.toLowerCase()] = value;
  }
  return found;
}
