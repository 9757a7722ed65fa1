import { join } from 'node:path';
import {
  baseEnvironment,
  proxies,
  type InputFile,
  type InstallOrder,
  type InstallPlaces,
  type NodeWish,
} from './install-plan.ts';
import type { NpmSettings } from './npm-settings.ts';
import { hasCredentials, secretsIn } from './redaction.ts';

/** The host's side of an order for Node. Paths are those of the host. */
export interface NpmHost {
  readonly settings: NpmSettings;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly node: string;
  readonly npmDirectory: string;
}

/** As long as npm's own would be, they take minutes where packets are dropped. */
const DEFAULTS: readonly (readonly [string, string])[] = [
  ['fetch-retries', '2'],
  ['fetch-retry-mintimeout', '1000'],
  ['fetch-retry-maxtimeout', '5000'],
  ['fetch-timeout', '60000'],
];
const NO_SCRIPTS = {
  when: /gyp|node-pre-gyp|prebuild/i,
  text: 'Packages run no scripts while they are installed: one that has to be built would need `allow_build`.',
};

/** The order for `npm ci`. All settings are written out here and read from nowhere else. Pure. */
export function orderNpm(
  wish: NodeWish,
  { settings, environment: host, node, npmDirectory }: NpmHost,
  places: InstallPlaces,
): InstallOrder {
  const input: Record<string, InputFile> = {
    'package.json': { text: wish.packageJson },
    'package-lock.json': { text: wish.packageLock },
  };
  const inside = (name: string): string => join(places.input, name);
  const give = (name: string, file: InputFile): string => {
    input[name] = file;
    return inside(name);
  };
  // Below /usr the installer sees what the host has.
  const shown = (path: string, name: string): string => (path.startsWith('/usr/') ? path : give(name, { copyOf: path }));
  const nodeInside = shown(node, 'node');
  const npmInside = shown(npmDirectory, 'npm');
  const entries = new Map([...DEFAULTS, ...settings.entries]);
  const caFile = entries.get('cafile');
  if (caFile !== undefined) entries.set('cafile', give('certificates.pem', { copyOf: caFile }));
  input['npmrc'] = { text: `${Array.from(entries, ([key, value]) => `${key}=${JSON.stringify(value)}`).join('\n')}\n` };
  input['npmrc-global'] = { text: '' };
  const moreCertificates = host['NODE_EXTRA_CA_CERTS'];
  return {
    tool: 'npm',
    input,
    project: ['package.json', 'package-lock.json'],
    python: undefined,
    command: [
      ...[nodeInside, join(npmInside, 'bin/npm-cli.js'), 'ci', '--omit=dev', '--no-audit', '--no-fund', '--loglevel=http'],
      ...(wish.allowBuild ? ['--foreground-scripts'] : ['--ignore-scripts']),
    ],
    environment: {
      ...baseEnvironment(places),
      ...proxies(undefined, host),
      npm_config_userconfig: inside('npmrc'),
      npm_config_globalconfig: inside('npmrc-global'),
      npm_config_cache: join(places.install, 'tmp/npm'),
      npm_config_update_notifier: 'false',
      npm_config_logs_max: '0',
      npm_config_color: 'false',
      npm_config_progress: 'false',
      ...(moreCertificates === undefined || moreCertificates === ''
        ? {}
        : { NODE_EXTRA_CA_CERTS: give('more-certificates.pem', { copyOf: moreCertificates }) }),
    },
    // npm tells by a code what went wrong.
    probes: [],
    hint: wish.allowBuild ? undefined : NO_SCRIPTS,
    secrets: secretsOf(settings, host),
    hasCredentials:
      secretEntries(settings).length > 0 || hasCredentials([...entries.values(), ...Object.values(proxies(undefined, host))]),
  };
}

/** Tokens and passwords, also as they stand before they are decoded. */
function secretsOf(settings: NpmSettings, host: NpmHost['environment']): readonly string[] {
  const secrets = secretEntries(settings);
  const decoded = secrets.flatMap((secret) => {
    const text = Buffer.from(secret, 'base64').toString('utf8');
    return /^[\x20-\x7e]{4,}$/.test(text) ? [text, ...text.split(':').slice(1)] : [];
  });
  const urls = [...settings.entries.values(), ...Object.values(proxies(undefined, host))];
  return [...secrets, ...decoded, ...secretsIn(urls)].filter((secret) => secret.length >= 4);
}

function secretEntries({ entries }: NpmSettings): string[] {
  return Array.from(entries).flatMap(([key, value]) => (/(?:_authToken|_auth|_password)$/.test(key) ? [value] : []));
}
