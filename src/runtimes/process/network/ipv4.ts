/** A range of IPv4 addresses: its first one as a number, and how many leading bits all share. */
export interface Ipv4Range {
  readonly first: number;
  readonly bits: number;
}

/** `10.0.0.0/8` or a single address. Throws for anything else: what comes here was checked, or is the kernel's. */
export function readRange(text: string): Ipv4Range {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)(?:\/(\d+))?$/.exec(text);
  const bits = Number(match?.[5] ?? 32);
  const first = (match?.slice(1, 5) ?? []).reduce((sum, byte) => sum * 256 + Number(byte), 0);
  if (match === null || bits > 32 || first >= 2 ** 32) throw new Error(`${JSON.stringify(text)} is no range of addresses`);
  return { first, bits };
}

export function printAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

export function printRange({ first, bits }: Ipv4Range): string {
  return `${printAddress(first)}/${bits}`;
}

/** How many addresses it has. */
export function sizeOf({ bits }: Ipv4Range): number {
  return 2 ** (32 - bits);
}

export function contains(outer: Ipv4Range, inner: Ipv4Range): boolean {
  return outer.bits <= inner.bits && inner.first >= outer.first && inner.first < outer.first + sizeOf(outer);
}

export function overlaps(one: Ipv4Range, other: Ipv4Range): boolean {
  return contains(one, other) || contains(other, one);
}
