import { overlaps, printAddress, printRange, readRange, sizeOf, type Ipv4Range } from './ipv4.ts';

/**
 * Where addresses of instances come from when the configuration names no range. 198.18.0.0/15 is set aside for measuring
 * network devices (RFC 2544): it is routed nowhere, and unlike the private ranges and 100.64.0.0/10 it is hardly used by
 * networks, VPNs, clouds or container engines. Its upper half first: the lower one is what proxies with made-up addresses take.
 */
const DEFAULT_RANGES = ['198.19.0.0/16', '198.18.0.0/16'] as const;
/** What a daemon claims at a time: 256 instances. Claims of several daemons lie beside each other. */
const BLOCK_BITS = 22;
const ADDRESSES_OF_SLOT = 4;
/** A shorter prefix is a default route in pieces, as VPNs set it: it says nothing of who uses the addresses. */
const ROUTE_BITS_MIN = 8;

/** One pair of addresses: the gateway is the host's end. */
export interface Slot {
  /** Of the link on the host. */
  readonly name: string;
  readonly gateway: string;
  readonly inner: string;
}

/** The blocks that no route of the host touches, in the order in which they should be claimed. `configured`: `10.77.0.0/16`, or undefined. */
export function freeBlocks(configured: string | undefined, routes: readonly string[]): readonly string[] {
  const taken = routes.map(readRange).filter(({ bits }) => bits >= ROUTE_BITS_MIN);
  const ranges = (configured === undefined ? DEFAULT_RANGES : [configured]).map(readRange);
  return ranges
    .flatMap(splitIntoBlocks)
    .filter((block) => !taken.some((range) => overlaps(range, block)))
    .map(printRange);
}

function splitIntoBlocks(range: Ipv4Range): Ipv4Range[] {
  const bits = Math.max(range.bits, BLOCK_BITS);
  const size = sizeOf({ first: 0, bits });
  return Array.from({ length: sizeOf(range) / size }, (_, index) => ({ first: range.first + index * size, bits }));
}

/** The slots of one block. `count`: how many slots there are already, which gives the names. */
export function slotsOf(block: string, prefix: string, count: number): readonly Slot[] {
  const range = readRange(block);
  return Array.from({ length: sizeOf(range) / ADDRESSES_OF_SLOT }, (_, index) => {
    const first = range.first + index * ADDRESSES_OF_SLOT;
    return {
      name: `${prefix}${(count + index).toString(16)}`,
      gateway: printAddress(first + 1),
      inner: printAddress(first + 2),
    };
  });
}
