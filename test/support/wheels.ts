import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { crc32, deflateRawSync, gzipSync } from 'node:zlib';

/** By path. A name that begins with `link:` is a symbolic link to the content, where the kind of archive has such. */
export type ArchiveFiles = Readonly<Record<string, string | Buffer>>;

export interface Archive {
  /** `name-version-py3-none-any.whl`, or that of a source distribution. */
  readonly fileName: string;
  readonly bytes: Buffer;
}

/** A zip as wheels are: names are taken as they stand, so that a hostile one can be made. */
export function zip(files: ArchiveFiles): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [key, content] of Object.entries(files)) {
    const isLink = key.startsWith('link:');
    const name = isLink ? key.slice(5) : key;
    const bytes = Buffer.from(content);
    const packed = deflateRawSync(bytes);
    const nameBytes = Buffer.from(name);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(8, 4);
    common.writeUInt32LE(crc32(bytes), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(bytes.length, 18);
    common.writeUInt16LE(nameBytes.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, nameBytes, packed]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(((isLink ? 0o120777 : 0o100644) << 16) >>> 0, 6);
    tail.writeUInt32LE(offset, 10);
    directory.push(Buffer.from('PK\x01\x02\x14\x03', 'latin1'), common, tail, nameBytes);
    parts.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(Object.keys(files).length, 8);
  end.writeUInt16LE(Object.keys(files).length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, central, end]);
}

export interface WheelOptions {
  readonly requires?: readonly string[];
  /** Tag behind the version; `py3-none-any` unless given. */
  readonly tag?: string;
}

/** A wheel with these modules and its metadata, record included. */
export function makeWheel(name: string, version: string, files: ArchiveFiles, options: WheelOptions = {}): Archive {
  const { requires = [], tag = 'py3-none-any' } = options;
  const info = `${name}-${version}.dist-info`;
  const requirements = requires.map((requirement) => `Requires-Dist: ${requirement}\n`).join('');
  const all: Record<string, string | Buffer> = {
    ...files,
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n${requirements}`,
    [`${info}/WHEEL`]: `Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: ${tag}\n`,
  };
  const record = Object.entries(all).map(([path, content]) => {
    const digest = createHash('sha256').update(content).digest('base64url');
    return `${path.replace(/^link:/, '')},sha256=${digest},${Buffer.byteLength(content)}\n`;
  });
  all[`${info}/RECORD`] = `${record.join('')}${info}/RECORD,,\n`;
  return { fileName: `${name}-${version}-${tag}.whl`, bytes: zip(all) };
}

export function writeArchives(directory: string, archives: readonly Archive[]): void {
  mkdirSync(directory, { recursive: true });
  for (const { fileName, bytes } of archives) writeFileSync(join(directory, fileName), bytes);
}

export interface PackageIndex extends AsyncDisposable {
  /** Base URL, to be given as `index-url`. */
  readonly url: string;
  readonly port: number;
  /** Paths that were asked for. */
  readonly requests: string[];
  readonly authorizations: (string | undefined)[];
  /** Set: every request is answered so. */
  status: number | undefined;
  /** True: requests get no answer. */
  isSilent: boolean;
  add(...archives: readonly Archive[]): void;
}

/** A package index of PEP 503 on loopback, that serves what is added. */
export async function servePackages(...archives: readonly Archive[]): Promise<PackageIndex> {
  const packages = new Map<string, Map<string, Archive>>();
  const requests: string[] = [];
  const authorizations: (string | undefined)[] = [];
  const server = createServer((request: IncomingMessage, response) => {
    const path = new URL(request.url ?? '/', 'http://index').pathname;
    requests.push(path);
    authorizations.push(request.headers.authorization);
    if (index.isSilent) return;
    const [, kind, name = ''] = path.split('/');
    const found = packages.get(name);
    if (index.status !== undefined) response.writeHead(index.status).end();
    else if (kind === 'simple' && found !== undefined) {
      const links = Array.from(found.values(), ({ fileName, bytes }) => {
        const digest = createHash('sha256').update(bytes).digest('hex');
        return `<a href="/files/${name}/${fileName}#sha256=${digest}">${fileName}</a>`;
      });
      response
        .writeHead(200, { 'content-type': 'text/html' })
        .end(`<!DOCTYPE html><html><body>${links.join('\n')}</body></html>`);
    } else if (kind === 'files' && found?.has(path.split('/')[3] ?? '') === true) {
      response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(found.get(path.split('/')[3] ?? '')?.bytes);
    } else response.writeHead(404).end();
  });
  const index: PackageIndex = {
    url: '',
    port: 0,
    requests,
    authorizations,
    status: undefined,
    isSilent: false,
    add(...added) {
      for (const archive of added) {
        const name = (archive.fileName.split('-')[0] ?? '').replaceAll(/[-_.]+/g, '-').toLowerCase();
        const list = packages.get(name) ?? new Map<string, Archive>();
        packages.set(name, list.set(archive.fileName, archive));
      }
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  index.add(...archives);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return Object.assign(index, { port, url: `http://127.0.0.1:${port}/simple` });
}

/** A source distribution with these files: building it runs code. */
export function makeSource(name: string, version: string, files: ArchiveFiles): Archive {
  const top = `${name}-${version}`;
  const all = { 'PKG-INFO': `Metadata-Version: 1.0\nName: ${name}\nVersion: ${version}\n`, ...files };
  const placed = Object.entries(all).map(([path, content]) => [`${top}/${path}`, content]);
  return { fileName: `${top}.tar.gz`, bytes: tarball(Object.fromEntries(placed) as ArchiveFiles) };
}

/**
 * A source distribution that is built by running `build`, Python that may set `seen`: the module it becomes has it as SEEN. Comes with
 * the package that builds it, which the index must have too.
 */
export function makeBuilt(name: string, version: string, build: string): readonly Archive[] {
  const backend = `
import os, sys, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    scope = {"seen": None}
    exec(open("build.txt").read(), scope)
    info = "${name}-${version}.dist-info"
    file = "${name}-${version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, file), "w") as wheel:
        wheel.writestr("${name}.py", "SEEN = %r\\n" % (scope["seen"],))
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: ${name}\\nVersion: ${version}\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return file
`;
  const project = '[build-system]\nrequires = ["tinybuild"]\nbuild-backend = "tinybuild"\n';
  return [
    makeSource(name, version, { 'pyproject.toml': project, 'build.txt': build }),
    makeWheel('tinybuild', '1', { 'tinybuild.py': backend }),
  ];
}

/** A gzipped tar archive; names are taken as they stand. */
export function tarball(files: ArchiveFiles): Buffer {
  const parts = Object.entries(files).map(([path, content]) => tarMember(path, content));
  return gzipSync(Buffer.concat([...parts, Buffer.alloc(1024)]));
}

function tarMember(path: string, content: string | Buffer): Buffer {
  const bytes = Buffer.from(content);
  const head = Buffer.alloc(512);
  head.write(path, 0);
  head.write('0000644\0', 100);
  head.write('0000000\0', 108);
  head.write('0000000\0', 116);
  head.write(`${bytes.length.toString(8).padStart(11, '0')}\0`, 124);
  head.write('00000000000\0', 136);
  head.write('        ', 148);
  head.write('0', 156);
  head.write('ustar\x0000', 257, 'latin1');
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([head, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}
