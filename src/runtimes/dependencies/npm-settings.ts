import { join } from 'node:path';
import { readHostFile } from './host-file.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** The host's settings of npm that decide where packages come from and how they are reached. */
export interface NpmSettings {
  readonly registry: string;
  /** In the order in which they count, `${NAME}` replaced; a later one replaces an earlier of the same key. */
  readonly entries: ReadonlyMap<string, string>;
}

const PUBLIC_REGISTRY = 'https://registry.npmjs.org/';
/** Everything else in the settings is not taken over: where packages go and what may run is decided here. */
const KEYS =
  /^(?:registry|@[^:]+:registry|\/\/.+:(?:_authToken|_auth|username|_password|email|always-auth)|_auth|_authToken|ca|strict-ssl|proxy|https-proxy|noproxy|fetch-retries|fetch-retry-factor|fetch-retry-mintimeout|fetch-retry-maxtimeout|fetch-timeout|maxsockets|replace-registry-host|before|cafile|legacy-peer-deps)$/;

/**
 * Reads them from where npm does (https://docs.npmjs.com/cli/configuring-npm/npmrc): the file beside npm, the host's, the user's, then
 * `npm_config_*`; what comes later wins. A `.npmrc` of the repository is not among them. Throws FaasError `dependencies_unavailable`
 * for a file that cannot be read.
 *
 * @param environment the daemon's
 * @param npmDirectory where npm lies
 * @param prefix of the installation that npm belongs to
 */
export function readNpmSettings(environment: Environment, npmDirectory: string, prefix: string): NpmSettings {
  const entries = new Map<string, string>();
  for (const file of settingsFiles(environment, npmDirectory, prefix)) {
    for (const [key, value] of parseNpmrc(readHostFile(file) ?? '', environment)) if (KEYS.test(key)) entries.set(key, value);
  }
  for (const [name, value] of Object.entries(environment)) {
    const key = /^npm_config_(.+)$/i.exec(name)?.[1];
    if (key === undefined || value === undefined || value === '') continue;
    const canonical = key.startsWith('//') || key.startsWith('@') ? key : key.toLowerCase().replaceAll(/(?!^)_/g, '-');
    if (KEYS.test(canonical)) entries.set(canonical, value);
  }
  return { registry: entries.get('registry') ?? PUBLIC_REGISTRY, entries };
}

function settingsFiles(environment: Environment, npmDirectory: string, ownPrefix: string): string[] {
  const home = environment['HOME'];
  const named = (key: string): string | undefined =>
    environment[`npm_config_${key}`] ?? environment[`NPM_CONFIG_${key.toUpperCase()}`];
  const prefix = named('prefix') ?? ownPrefix;
  const user = named('userconfig') ?? (home === undefined ? undefined : join(home, '.npmrc'));
  const shared = named('globalconfig');
  return [
    join(npmDirectory, 'npmrc'),
    ...(shared === undefined ? ['/etc/npmrc', join(prefix, 'etc/npmrc')] : [shared]),
    ...(user === undefined ? [] : [user]),
  ];
}

/** `key = value`, `key[] = value`, quotes, `#` and `;` comments, `${NAME}` and `${NAME?}` of the environment. */
export function parseNpmrc(text: string, environment: Environment): [string, string][] {
  return text.split(/\r\n|\n|\r/).flatMap((line): [string, string][] => {
    if (/^\s*(?:[#;[]|$)/.test(line)) return [];
    const [, key = '', raw = 'true'] = /^\s*([^=]+?)\s*(?:\[\])?\s*(?:=\s*(.*?)\s*)?$/.exec(line) ?? [];
    const value = raw.replace(/^(["'])(.*)\1$/, '$2');
    const expand = (part: string): string =>
      part.replaceAll(/\$\{([^}?]+)\??\}/g, (whole, name: string) => environment[name] ?? (whole.endsWith('?}') ? '' : whole));
    return [[expand(key), expand(value)]];
  });
}
