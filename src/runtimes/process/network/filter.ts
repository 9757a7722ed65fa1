import { contains, readRange } from './ipv4.ts';

/**
 * What instances reach only where `network_allow` names it: everything that is not the public Internet (IANA's registry of
 * special-purpose addresses), and what a cloud answers to its machines at a public address.
 */
export const FORBIDDEN_RANGES = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '168.63.129.16/32',
] as const;

/** New connections of one instance: each takes a place in the host's table of connections, for up to two minutes. */
const NEW_PER_SECOND = 200;
const NEW_AT_ONCE = 1000;

export interface FilterOptions {
  readonly table: string;
  /** Links of this daemon's instances begin with it. */
  readonly prefix: string;
  /** A range of the configuration that the instances' own addresses come from; forbidden like the others. */
  readonly ownRange: string | undefined;
  /** Whom instances ask for names, wherever that is: exactly port 53 of these. */
  readonly resolvers: readonly string[];
}

/**
 * The daemon's table for `nft -f`, in one transaction, with nobody in its sets but the resolvers. `gf*` are the links of
 * all daemons like this one. A packet is judged by where it goes and never because of an earlier one, so an address that is
 * used again inherits nothing from the connections of its last instance.
 *
 * `nft` takes the words `fwd` and `in` for its own; so no chain has such a name.
 */
export function renderFilter({ table, prefix, ownRange, resolvers }: FilterOptions): string {
  const forbidden = withoutContained([...FORBIDDEN_RANGES, ...(ownRange === undefined ? [] : [ownRange])]);
  const refuse = 'reject with icmpx admin-prohibited';
  return `add table inet ${table}
delete table inet ${table}
table inet ${table} {
  # Addresses that this daemon has claimed for its instances.
  set blocks { type ipv4_addr; flags interval; }
  # Links that did not forward before this daemon needed it.
  set opened { type ifname; }
  set resolvers { type ipv4_addr; ${elementsOf(resolvers)} }
  set forbidden { type ipv4_addr; flags interval; ${elementsOf(forbidden)} }
  # By the group of the instance's link: what network_allow names, for all ports and for one.
  set allowed { type devgroup . ipv4_addr; flags interval; }
  set allowed_ports { type devgroup . ipv4_addr . inet_service; flags interval; }
  set pace { type ipv4_addr; flags dynamic, timeout; timeout 1m; size 65535; }

  chain to_host {
    type filter hook input priority filter - 10; policy accept;
    iifname "${prefix}*" jump to_host_from_instance
  }
  chain to_host_from_instance {
    meta nfproto ipv6 drop
    fib saddr . iif oif missing drop
    meta l4proto { tcp, udp } th dport 53 ip daddr @resolvers accept
    ${refuse}
  }
  chain from_host {
    type filter hook output priority filter - 10; policy accept;
    oifname "${prefix}*" ct state != { established, related } meta l4proto != icmp drop
  }
  chain through_host {
    type filter hook forward priority filter - 10; policy accept;
    iifname "${prefix}*" jump from_instance
    oifname "${prefix}*" ct state != { established, related } drop
    iifname @opened oifname != "gf*" jump uninvited
  }
  chain from_instance {
    meta nfproto ipv6 drop
    fib saddr . iif oif missing drop
    meta l4proto != { tcp, udp, icmp } drop
    oifname "gf*" ${refuse}
    ct state new update @pace { ip saddr limit rate over ${NEW_PER_SECOND}/second burst ${NEW_AT_ONCE} packets } drop
    meta iifgroup . ip daddr @allowed accept
    meta l4proto { tcp, udp } meta iifgroup . ip daddr . th dport @allowed_ports accept
    meta l4proto { tcp, udp } th dport 53 ip daddr @resolvers accept
    ip daddr @forbidden ${refuse}
  }
  # Through a link that was opened for us nothing may pass that would not have passed before.
  chain uninvited {
    ct state { established, related } return
    ct status dnat return
    drop
  }
  chain on_the_way_out {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @blocks oifname != "gf*" masquerade
  }
}
`;
}

/** The whole of a set is replaced: text for `nft -f`. */
export function renderResolvers(table: string, resolvers: readonly string[]): string {
  const added = resolvers.length === 0 ? '' : `add element inet ${table} resolvers { ${resolvers.join(', ')} }\n`;
  return `flush set inet ${table} resolvers\n${added}`;
}

/**
 * Adds to or takes from the sets what a function's `network_allow` says (`10.0.0.0/8`, `10.1.2.3/32:5432`), for links of one group.
 * The kernel takes no entry that overlaps another: what another covers is left out.
 */
export function renderAllowed(verb: 'add' | 'delete', table: string, group: number, allowed: readonly string[]): string {
  const byPort = Map.groupBy(allowed, (entry) => entry.split(':')[1] ?? '');
  const lines: string[] = [];
  for (const [port, entries] of byPort) {
    const set = port === '' ? 'allowed' : 'allowed_ports';
    const rest = port === '' ? '' : ` . ${port}`;
    for (const range of withoutContained(entries.map((entry) => entry.split(':')[0] ?? '')))
      lines.push(`${verb} element inet ${table} ${set} { ${group} . ${range}${rest} }\n`);
  }
  return lines.join('');
}

function elementsOf(values: readonly string[]): string {
  return values.length === 0 ? '' : `elements = { ${values.join(', ')} }`;
}

/** Each range once, and none that lies within another. */
function withoutContained(ranges: readonly string[]): readonly string[] {
  const distinct = [...new Set(ranges)];
  return distinct.filter((range) => !distinct.some((other) => other !== range && contains(readRange(other), readRange(range))));
}
