import { join } from 'node:path';
import { FaasError } from '../../errors.ts';
import { readHostFile } from './host-file.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** The host's settings of pip that decide where packages come from and how they are reached. Paths are the host's. */
export interface PipSettings {
  readonly indexUrl: string | undefined;
  readonly extraIndexUrls: readonly string[];
  readonly isIndexDisabled: boolean;
  /** URLs and paths of directories. */
  readonly findLinks: readonly string[];
  readonly trustedHosts: readonly string[];
  /** A file with certificates, and one with the client's certificate and key. */
  readonly certFile: string | undefined;
  readonly clientCertFile: string | undefined;
  readonly proxy: string | undefined;
  readonly timeoutSeconds: string | undefined;
  readonly retries: string | undefined;
  readonly constraintFiles: readonly string[];
  readonly allowsPrereleases: boolean;
}

export const PUBLIC_INDEX_URL = 'https://pypi.org/simple';

/**
 * Reads them as pip does (https://pip.pypa.io/en/stable/topics/configuration/): the files of the host, of the user and of the
 * interpreter, `PIP_CONFIG_FILE`, then `PIP_*`; what comes later wins. Everything else in them is not taken over: where packages go and
 * which kinds are allowed is decided here. Throws FaasError `dependencies_unavailable` for a file that cannot be read whole.
 *
 * @param environment the daemon's
 * @param prefix `sys.prefix` of the interpreter
 */
export function readPipSettings(environment: Environment, prefix: string): PipSettings {
  const values = new Map<string, string>();
  for (const file of configFiles(environment, prefix)) {
    const text = readHostFile(file);
    if (text === undefined) continue;
    const sections = parseIni(text, file);
    for (const section of ['global', 'install']) for (const [key, value] of sections.get(section) ?? []) values.set(key, value);
  }
  for (const [name, value] of Object.entries(environment)) {
    if (name.startsWith('PIP_') && name !== 'PIP_CONFIG_FILE' && value !== undefined && value !== '')
      values.set(canonicalKey(name.slice(4)), value);
  }
  const words = (key: string): string[] => (values.get(key) ?? '').split(/\s+/).filter((word) => word !== '');
  const word = (key: string): string | undefined => values.get(key)?.trim() || undefined;
  const isOn = (key: string): boolean => /^(?:1|true|yes|on|y|t)$/i.test(word(key) ?? '');
  const { REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE } = environment;
  return {
    indexUrl: word('index-url') ?? word('pypi-url'),
    extraIndexUrls: words('extra-index-url'),
    isIndexDisabled: isOn('no-index'),
    findLinks: words('find-links'),
    trustedHosts: words('trusted-host'),
    certFile: [word('cert'), REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE].find((file) => file !== undefined && file !== ''),
    clientCertFile: word('client-cert'),
    proxy: word('proxy'),
    timeoutSeconds: numberOf(word('timeout') ?? word('default-timeout')),
    retries: numberOf(word('retries')),
    constraintFiles: words('constraint'),
    allowsPrereleases: isOn('pre'),
  };
}

function configFiles(environment: Environment, prefix: string): string[] {
  const named = environment['PIP_CONFIG_FILE'];
  if (named === '/dev/null') return [];
  const shared = (environment['XDG_CONFIG_DIRS'] ?? '/etc/xdg').split(':').map((directory) => join(directory, 'pip/pip.conf'));
  const home = environment['HOME'];
  const personal = environment['XDG_CONFIG_HOME'] ?? (home === undefined ? undefined : join(home, '.config'));
  const isNamed = named !== undefined && readHostFile(named) !== undefined;
  return [
    ...shared,
    '/etc/pip.conf',
    ...(isNamed || home === undefined ? [] : [join(home, '.pip/pip.conf')]),
    ...(isNamed || personal === undefined ? [] : [join(personal, 'pip/pip.conf')]),
    join(prefix, 'pip.conf'),
    ...(isNamed ? [named] : []),
  ];
}

/** `[section]`, `key = value` or `key: value`, lines that begin with a blank go on with the value, `#` and `;` begin comments. */
export function parseIni(text: string, file: string): Map<string, Map<string, string>> {
  const sections = new Map<string, Map<string, string>>();
  let section: Map<string, string> | undefined;
  let last: string | undefined;
  for (const [index, line] of text.split(/\r\n|\n|\r/).entries()) {
    if (/^\s*(?:[#;]|$)/.test(line)) continue;
    if (/^\s/.test(line) && section !== undefined && last !== undefined) {
      section.set(last, `${section.get(last)}\n${line.trim()}`);
      continue;
    }
    const header = /^\s*\[([^\]]+)\]/.exec(line)?.[1];
    if (header !== undefined) {
      section = sections.get(header) ?? new Map<string, string>();
      sections.set(header, section);
      last = undefined;
      continue;
    }
    const [, key, value = ''] = /^\s*([^=:]+?)\s*[=:]\s*(.*?)\s*$/.exec(line) ?? [];
    if (key === undefined || section === undefined)
      throw new FaasError('dependencies_unavailable', {
        detail: `The installer's settings in ${file} cannot be read: line ${index + 1}.`,
      });
    last = canonicalKey(key);
    section.set(last, value);
  }
  return sections;
}

function canonicalKey(key: string): string {
  return key.toLowerCase().replaceAll('_', '-').replace(/^--/, '');
}

function numberOf(text: string | undefined): string | undefined {
  return text !== undefined && /^\d+(?:\.\d+)?$/.test(text) ? text : undefined;
}
