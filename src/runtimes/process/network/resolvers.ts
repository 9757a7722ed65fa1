import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';

const RESOLV_CONF = '/etc/resolv.conf';
/** Where those who put a stub on loopback write whom it asks. */
const UPSTREAMS = ['/run/systemd/resolve/resolv.conf', '/run/NetworkManager/no-stub-resolv.conf'] as const;
/** The C library asks no more. */
const RESOLVERS_MAX = 3;
const LINE_MAX_CHARACTERS = 1024;

export interface Resolvers {
  /** IPv4 addresses; empty: names cannot be resolved in `egress`. */
  readonly addresses: readonly string[];
  /** For the instance's `/etc/resolv.conf`. */
  readonly text: string;
}

/** Whom instances with `egress` ask for names: those of the configuration, else the host's, as far as they can be reached from there. */
export function readResolvers(configured: readonly string[]): Resolvers {
  return chooseResolvers(configured, (path) => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return '';
    }
  });
}

/** As above, with files given by `read` (empty: there is none). */
export function chooseResolvers(configured: readonly string[], read: (path: string) => string): Resolvers {
  const host = read(RESOLV_CONF);
  const asked = addressesOf(host);
  const isStub = asked.some(isLoopback);
  const sources = [configured, asked, ...(isStub ? UPSTREAMS.map((path) => addressesOf(read(path))) : [])];
  // IPv6 is off in `egress`, and loopback there is the instance's own.
  const reachable = sources.map((source) => source.filter((address) => isIPv4(address) && !isLoopback(address)));
  const addresses = (reachable.find((source) => source.length > 0) ?? []).slice(0, RESOLVERS_MAX);
  const settings = linesOf(host).filter((line) => /^(search|domain|options)\s/.test(line));
  const lines = [...addresses.map((address) => `nameserver ${address}`), ...settings];
  return { addresses, text: lines.map((line) => `${line}\n`).join('') };
}

function addressesOf(text: string): string[] {
  return linesOf(text).flatMap((line) => /^nameserver\s+(\S+)/.exec(line)?.[1] ?? []);
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.length <= LINE_MAX_CHARACTERS && /^[\x20-\x7e\t]*$/.test(line));
}

function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1';
}
