import type { PoolEvent } from '../pool/pool-events.ts';
import type { Logger } from './logger.ts';

/** What happens in the pools as log lines: starts and ends at debug, what a person should know about as warnings. */
export function logPoolEvent(logger: Logger, event: PoolEvent): void {
  const { functionName, version } = event;
  switch (event.kind) {
    case 'instance_started': {
      const { instanceId, pid, coldMs, phases } = event;
      logger.debug({ function: functionName, version, instance: instanceId, pid, cold_ms: coldMs, phases }, 'instance started');
      return;
    }
    case 'instance_ended': {
      const { instanceId, cause, detail, invocations } = event;
      const fields = { function: functionName, version, instance: instanceId, cause, detail, invocations };
      if (ASKED_FOR.has(cause)) logger.debug(fields, 'instance ended');
      else logger.warn(fields, 'instance ended');
      return;
    }
    case 'start_failed': {
      const { error, pauseMs } = event;
      logger.warn(
        { function: functionName, version, code: error.code, detail: error.detail, pause_ms: pauseMs },
        'instance did not start',
      );
      return;
    }
  }
}

const ASKED_FOR: ReadonlySet<string> = new Set(['idle', 'surplus', 'capacity', 'drain', 'requested', 'stopped', 'cancelled']);
