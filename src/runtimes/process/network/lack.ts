import { KeeperError } from './keeper.ts';

const FIXES: ReadonlyMap<number, string> = new Map([
  [1, 'run the daemon as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, and nf_tables in the kernel'],
  [13, 'run the daemon as root with CAP_NET_ADMIN and CAP_SYS_ADMIN'],
  [28, 'sysctl user.max_net_namespaces=65536'],
  [30, 'let the daemon write to /proc/sys/net, or set net.ipv4.ip_forward=1 on the host'],
  [95, 'a kernel with veth: modprobe veth'],
]);

/** What stands in the way of `egress`, in a few words, with what helps against it where that is known. */
export function explainLack(error: unknown): string {
  const message = (error as Error).message.replace(/\.$/, '');
  if (message === 'nft is not installed') return `${message} (install nftables)`;
  const fix = error instanceof KeeperError ? FIXES.get(error.errno) : undefined;
  return fix === undefined ? message : `${message} (${fix})`;
}
