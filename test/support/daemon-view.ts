import type { Problem } from '../../src/errors.ts';
import type { DaemonProcess } from './daemon-process.ts';
import { waitUntil } from './wait-until.ts';

/** `GET /status`, as far as tests look at it. */
export interface StatusView {
  readonly state: string;
  readonly message: string;
  readonly desired: { readonly tree: string; readonly commit: string | null } | null;
  readonly applied: { readonly tree: string; readonly commit: string | null } | null;
  readonly dirty: boolean;
  readonly dirty_paths: readonly string[];
  readonly refused_edits: readonly string[];
  readonly problems: readonly Problem[];
  readonly restart_needed_for: readonly string[];
}

export async function readStatus(daemon: DaemonProcess): Promise<StatusView> {
  return await daemon.json<StatusView>('/status');
}

/** The first status that fits. Rejects with the last one seen. */
export async function statusWhen(daemon: DaemonProcess, fits: (status: StatusView) => boolean): Promise<StatusView> {
  let status = await readStatus(daemon);
  await waitUntil(async () => fits((status = await readStatus(daemon)))).catch((error: unknown) => {
    throw new Error(`the last status was ${JSON.stringify(status, undefined, 1)}`, { cause: error });
  });
  return status;
}

export interface LiveInstance {
  readonly id: string;
  readonly function: string;
  readonly version: string;
  readonly state: string;
  readonly pid: number;
}

/** Live instances of one function that have started and are not on their way out, in the order of their ids. */
export async function instancesOf(daemon: DaemonProcess, name: string): Promise<LiveInstance[]> {
  const { instances } = await daemon.json<{ instances: LiveInstance[] }>('/instances');
  return instances
    .filter((instance) => instance.function === name && (instance.state === 'idle' || instance.state === 'busy'))
    .toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

export async function instanceIds(daemon: DaemonProcess, name: string): Promise<string[]> {
  return (await instancesOf(daemon, name)).map(({ id }) => id);
}

/** The limits in force of one function, in base units. */
export async function limitsOf(daemon: DaemonProcess, name: string): Promise<Record<string, number>> {
  return (await daemon.json<{ limits: Record<string, number> }>(`/functions/${name}`)).limits;
}
