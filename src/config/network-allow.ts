import type { FunctionConfig } from './generated/function-config.ts';
import type { Parsed } from './units.ts';

/** Not even on purpose: they mean the instance itself, or nobody in particular. */
const NEVER = [
  { first: 0, name: '0.0.0.0/8' },
  { first: 127, name: '127.0.0.0/8 (an instance has a loopback of its own, and never reaches the host)' },
] as const;
const MULTICAST_FIRST = 224;
/** A shorter prefix could only mean everything, which is `network: host`. */
const BITS_MIN = 8;

/**
 * One entry of `network_allow`: an IPv4 address or a range, with one port or without. Gives the one way to write it:
 * `10.1.2.3` becomes `10.1.2.3/32`, `10.1.2.3:5432` becomes `10.1.2.3/32:5432`.
 */
export function parseNetworkAllow(raw: unknown): Parsed<string> {
  const text = String(raw);
  const shown = JSON.stringify(text);
  const match = /^([\d.]+)(?:\/(\d{1,2}))?(?::(\d{1,5}))?$/.exec(text);
  const [, address = '', bitsText, portText] = match ?? [];
  const bytes = address.split('.').map(Number);
  // One way to write each: 010 is eight for some programs and ten for others.
  const isAddress = bytes.length === 4 && bytes.every((byte) => byte <= 255) && bytes.join('.') === address;
  if (match === null || !isAddress) return { problem: refusal(shown, text) };
  const bits = Number(bitsText ?? 32);
  if (bits < BITS_MIN || bits > 32) return { problem: `${shown}: a range goes from /${BITS_MIN} to /32` };
  const port = portText === undefined ? undefined : Number(portText);
  if (port !== undefined && (port < 1 || port > 65_535 || String(port) !== portText))
    return { problem: `${shown}: a port is a number from 1 to 65535` };
  const value = bytes.reduce((sum, byte) => sum * 256 + byte, 0);
  const first = value - (value % 2 ** (32 - bits));
  if (first !== value) return { problem: `${shown} is no whole range; did you mean ${printAddress(first)}/${bits}?` };
  const never = NEVER.find((range) => range.first === bytes[0]);
  if (never !== undefined) return { problem: `${shown} lies in ${never.name}, which cannot be allowed` };
  if ((bytes[0] as number) >= MULTICAST_FIRST) return { problem: `${shown} is no address of a single host or network` };
  return { value: `${address}/${bits}${port === undefined ? '' : `:${port}`}` };
}

/** A range for `system.network_range`: at least a /24; empty is none. */
export function parseNetworkRange(raw: unknown): Parsed<string> {
  if (raw === '') return { value: '' };
  const { value, problem } = parseNetworkAllow(raw);
  if (value === undefined) return { problem };
  if (!value.includes(':') && Number(value.split('/')[1]) <= 24) return { value };
  return { problem: `${JSON.stringify(raw)} is no range of at least a /24, such as 10.77.0.0/16` };
}

/** An entry of `system.network_resolvers`: one IPv4 address that instances can reach. */
export function parseResolver(raw: unknown): Parsed<string> {
  const { value, problem } = parseNetworkAllow(raw);
  if (value === undefined) return { problem };
  if (value === `${String(raw)}/32`) return { value: String(raw) };
  return { problem: `${JSON.stringify(raw)} is not the address of one resolver, such as 9.9.9.9` };
}

/** `network_allow` of one function, each entry once and in order. */
export function resolveNetworkAllow(entry: FunctionConfig): readonly string[] {
  return Object.freeze(
    [...new Set((entry.network_allow ?? []).flatMap((text) => parseNetworkAllow(text).value ?? []))].toSorted(),
  );
}

function refusal(shown: string, text: string): string {
  const wanted = 'write an IPv4 address or range, such as 10.1.2.3, 10.1.0.0/16 or 10.1.2.3:5432';
  if (/^[0-9a-f:[\]/]*:[0-9a-f:[\]/.]*$/i.test(text) && text.split(':').length > 2)
    return `${shown}: IPv6 is off with egress; ${wanted}`;
  if (/[a-z]/i.test(text)) return `${shown} is a name, which may lead anywhere tomorrow; ${wanted}`;
  return `${shown} is no address; ${wanted}`;
}

function printAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}
