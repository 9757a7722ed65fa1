import type { GuardedInstance } from './guarded-instance.ts';
import type { Instance, InstanceUsage } from './instance.ts';

export type InstanceViewState = 'starting' | 'idle' | 'busy' | 'draining';

/** One live instance as it is shown. */
export interface InstanceView {
  /** While it starts, a placeholder that no other instance has. */
  readonly id: string;
  readonly functionName: string;
  readonly version: string;
  readonly mode: Instance['mode'];
  /** The one in force; undefined while it starts. */
  readonly network: Instance['network'] | undefined;
  /** It was forked from its function's template. */
  readonly isFromTemplate: boolean;
  readonly state: InstanceViewState;
  readonly pid: number | undefined;
  readonly startedAtMs: number;
  readonly invocations: number;
  readonly lastUsedMs: number;
  /** Asked of the runtime when called; undefined when it is not known. */
  usage(): Promise<InstanceUsage | undefined>;
}

interface ViewedPool {
  readonly functionName: string;
  readonly version: string;
  readonly mode: Instance['mode'];
}

/** What the instance is at this moment. */
export function viewInstance(instance: GuardedInstance, pool: ViewedPool): InstanceView {
  return {
    id: instance.id,
    functionName: pool.functionName,
    version: pool.version,
    mode: instance.mode ?? pool.mode,
    network: instance.network,
    isFromTemplate: instance.phases?.isFromTemplate === true,
    state: viewState(instance),
    pid: instance.pid,
    startedAtMs: instance.startedAtMs,
    invocations: instance.invocations,
    lastUsedMs: instance.lastUsedMs,
    usage: () => instance.usage(),
  };
}

function viewState(instance: GuardedInstance): InstanceViewState {
  switch (instance.state) {
    case 'starting':
      return 'starting';
    case 'ready':
      return 'idle';
    case 'busy':
      return 'busy';
    case 'stopping':
    case 'dead':
      return 'draining';
  }
}
