import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tarball, type ArchiveFiles } from './wheels.ts';

export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  readonly manifest: Readonly<Record<string, unknown>>;
  readonly bytes: Buffer;
  /** As a lock has it. */
  readonly integrity: string;
}

/** A package with an `index.js` and whatever else is given. */
export function makeNpmPackage(
  name: string,
  version: string,
  files: ArchiveFiles,
  manifest: Readonly<Record<string, unknown>> = {},
): NpmPackage {
  const whole = { name, version, ...manifest };
  const named = Object.entries(files).map(([path, content]) => [
    path.startsWith('!') ? path.slice(1) : `package/${path}`,
    content,
  ]);
  const bytes = tarball({ 'package/package.json': JSON.stringify(whole), ...(Object.fromEntries(named) as ArchiveFiles) });
  return { name, version, manifest: whole, bytes, integrity: `sha512-${createHash('sha512').update(bytes).digest('base64')}` };
}

/** `package.json` and `package-lock.json` of a function that wants these packages, each at the top. */
export function lockFor(packages: readonly NpmPackage[]): { packageJson: string; packageLock: string } {
  const dependencies = Object.fromEntries(packages.map(({ name, version }) => [name, version]));
  const entries = packages.map(({ name, version, integrity, manifest }) => {
    const { dependencies: needs, scripts, bin } = manifest as Record<string, object | undefined>;
    const facts = {
      version,
      integrity,
      ...(needs && { dependencies: needs }),
      ...(bin && { bin }),
      ...(scripts && { hasInstallScript: true }),
    };
    return [`node_modules/${name}`, facts];
  });
  const lock = {
    name: 'f',
    lockfileVersion: 3,
    requires: true,
    packages: { '': { name: 'f', dependencies }, ...Object.fromEntries(entries) },
  };
  return { packageJson: JSON.stringify({ name: 'f', dependencies }), packageLock: JSON.stringify(lock) };
}

export interface NpmRegistry extends AsyncDisposable {
  readonly url: string;
  readonly requests: string[];
  readonly authorizations: (string | undefined)[];
  /** Set: every request is answered so. */
  status: number | undefined;
}

/** A registry on loopback that serves these packages. */
export async function serveNpmPackages(...packages: readonly NpmPackage[]): Promise<NpmRegistry> {
  const requests: string[] = [];
  const authorizations: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://registry').pathname).slice(1);
    requests.push(path);
    authorizations.push(request.headers.authorization);
    if (registry.status !== undefined) {
      response.writeHead(registry.status).end();
      return;
    }
    const archive = packages.find(({ name, version }) => path === `${name}/-/${version}.tgz`);
    const versions = packages.filter(({ name }) => name === path);
    if (archive !== undefined) response.writeHead(200).end(archive.bytes);
    else if (versions.length > 0) {
      const documents = versions.map(({ name, version, manifest, integrity }) => {
        return [version, { ...manifest, dist: { integrity, tarball: `${registry.url}${name}/-/${version}.tgz` } }];
      });
      const document = { name: path, 'dist-tags': { latest: versions.at(-1)?.version }, versions: Object.fromEntries(documents) };
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document));
    } else response.writeHead(404, { 'content-type': 'application/json' }).end('{"error":"not found"}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const registry: NpmRegistry = {
    url: `http://127.0.0.1:${port}/`,
    requests,
    authorizations,
    status: undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return registry;
}
