import type { Clock } from '../../observability/clock.ts';
import type { FunctionLine } from '../../observability/logger.ts';
import type { StartRequest } from '../../pool/instance.ts';
import type { InstallKind } from '../protocol.ts';
import { MAX_RESPONSE_BYTES } from './channel.ts';

/** What SPECIALISE says beside the request; directories as the level in force names them: below the store's root, or absolute. */
export interface OrderParts {
  readonly code: string;
  readonly dependencies: string | undefined;
  /** Set for an installer, which fills `dependencies` instead of using them. */
  readonly installs?: InstallKind | undefined;
  readonly debug: boolean;
}

/** All that makes a prepared instance a function's, beside the request. */
export interface SpecialisationParts extends OrderParts {
  readonly clock: Clock;
  readonly onLog: (line: FunctionLine) => void;
  /** Milliseconds the start took so far. */
  readonly spawnMs: number;
  /** Of a template: its channel ended, which leaves the instances alone that it has forked. */
  readonly onTemplateLost?: () => void;
  /** A template forked it. */
  readonly isFromTemplate?: boolean;
}

/** The payload of SPECIALISE (docs/PROTOCOL.md). */
export function specialiseOrder(request: StartRequest, parts: OrderParts): Readonly<Record<string, unknown>> {
  return {
    function: request.functionName,
    version: request.version,
    code: parts.code,
    module: request.handlerModule,
    callable: request.handlerCallable,
    environment: request.environment,
    tmp_bytes: request.tmpBytes,
    memory_bytes: request.memoryBytes,
    pids: request.pids,
    max_response_bytes: MAX_RESPONSE_BYTES,
    debug: parts.debug,
    signature: request.signature,
    concurrent: request.isConcurrent,
    dependencies: parts.dependencies ?? null,
    installs: parts.installs ?? null,
  };
}
