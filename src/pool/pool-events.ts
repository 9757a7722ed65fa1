import type { ErrorCode, FaasError } from '../errors.ts';
import type { InstanceUsage, StartPhases } from './instance.ts';

/**
 * Why we stopped an instance. `idle`: unused for `warm_instance_ttl`; `surplus`: above `max_instances`, or started only
 * as a check; `capacity`: its place on the node went to another function; `drain`: its version is replaced or the
 * daemon stops; `requested`: someone asked for it.
 */
export type StopReason = 'idle' | 'surplus' | 'capacity' | 'drain' | 'requested';

/** How an instance ended: our reason, or the code of the failure that ended it. `stopped`: killed by us from elsewhere. */
export interface InstanceEnd {
  readonly cause: StopReason | ErrorCode | 'stopped';
  /** For people. */
  readonly detail: string;
  /** What it used in all, as far as that is known. */
  readonly usage?: InstanceUsage | undefined;
}

/** What happens in pools, for logs and metrics. Emitted after the fact. */
export type PoolEvent =
  | {
      readonly kind: 'instance_started';
      readonly functionName: string;
      readonly version: string;
      readonly instanceId: string;
      readonly pid: number | undefined;
      readonly coldMs: number;
      readonly phases: StartPhases;
    }
  | {
      readonly kind: 'instance_ended';
      readonly functionName: string;
      readonly version: string;
      readonly instanceId: string;
      readonly pid: number | undefined;
      readonly cause: InstanceEnd['cause'];
      readonly detail: string;
      readonly invocations: number;
    }
  | {
      readonly kind: 'start_failed';
      readonly functionName: string;
      readonly version: string;
      readonly error: FaasError;
      /** No further start before this pause is over. */
      readonly pauseMs: number;
    };
