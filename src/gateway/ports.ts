import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ApiKey, FunctionSpec, Network, Scope } from '../config/spec.ts';
import type { CreateFunctionBody } from '../config/generated/create-function.ts';
import type { UpdateFunctionBody } from '../config/generated/update-function.ts';
import type { InstanceView } from '../pool/instance-view.ts';
import type { ImportTemplateView, Invocation } from '../pool/instance.ts';
import type { PoolAnswer } from '../pool/pool.ts';
import type { StatsSnapshot } from '../pool/stats.ts';
import type { EntityTags, Preconditions, WriteResult } from '../reconcile/writer.ts';

export type { EntityTags, Preconditions, WriteResult };

/** What the gateway needs from the rest of the daemon; `daemon.ts` joins the two. */

export type JsonObject = Readonly<Record<string, unknown>>;

export interface Deployment {
  readonly name: string;
  readonly version: string;
  readonly spec: FunctionSpec;
  /** Digest of the function's tree and its whole configuration slice, without quotes. */
  readonly etag: string;
  readonly pool: {
    /**
     * Resolves with the handler's answer, or rejects with a FaasError. `deadlineMs` is on the scale of `Clock.nowMs()`;
     * a call that passes it is dead before the rejection.
     */
    invoke(invocation: Invocation, deadlineMs: number): Promise<PoolAnswer>;
  };
}

/** The live table; `Deployments` of `pool/` is one. */
export interface DeploymentTable {
  /** One map read; called for every invocation. */
  find(name: string): Deployment | undefined;
  /** In the order of the names. */
  list(): readonly Deployment[];
  instances(): readonly InstanceView[];
  /** Stops one instance after its running calls. FaasError `unknown_instance`. */
  stopInstance(id: string): Promise<void>;
  /** Only for names that are in the table. */
  statsFor(name: string): { snapshot(): StatsSnapshot };
  /** All functions together. */
  totals(): StatsSnapshot;
}

/** Who changes something: goes into the commit. */
export interface Author {
  readonly keyName: string;
  readonly scopes: readonly Scope[];
  readonly callId: string;
}

/** Changes the workspace. Resolves once the change is live; rejects with a FaasError and leaves no commit behind. */
export interface FunctionWriter {
  create(body: CreateFunctionBody, preconditions: Preconditions, author: Author): Promise<WriteResult>;
  update(name: string, body: UpdateFunctionBody, preconditions: Preconditions, author: Author): Promise<WriteResult>;
  remove(name: string, preconditions: Preconditions, author: Author): Promise<WriteResult>;
}

interface FunctionDetails {
  readonly files: readonly { readonly path: string; readonly size: number; readonly mode: string }[];
  /** The function's slice of the configuration as it was written; values of `environment` are null without `withValues`. */
  readonly config: JsonObject;
  /** Undefined while what runs is not committed. */
  readonly commit: string | undefined;
  readonly state: string;
  /** Undefined where there are none. */
  readonly importTemplate?: ImportTemplateView | undefined;
  /** The latest commits that touched its files, newest first; dates in ISO 8601. */
  readonly history: readonly {
    readonly commit: string;
    readonly authorName: string;
    readonly authorDate: string;
    readonly subject: string;
  }[];
}

export interface FunctionReader {
  /** Undefined: there is no such function. */
  details(name: string, options: { readonly withValues: boolean }): Promise<FunctionDetails | undefined>;
}

export interface StatusSource {
  /** True while a revision serves. */
  readonly serving: boolean;
  /** What functions get that ask for no network by name. */
  readonly defaultNetwork: Network;
  /** Open to everybody: nothing that only a key may see. */
  health(): JsonObject;
  status(): JsonObject;
  /** Reconciles now; resolves with the status afterwards. */
  sync(): Promise<JsonObject>;
}

export const GIT_SERVICES = ['/info/refs', '/git-upload-pack', '/git-receive-pack'] as const;
export type GitService = (typeof GIT_SERVICES)[number];

interface GitCall {
  readonly service: GitService;
  /** Raw, without `?`. */
  readonly query: string;
  readonly keyName: string;
  readonly scopes: readonly Scope[];
  readonly callId: string;
}

export interface GitEndpoint {
  /** Answers on `res` itself. A rejection before the head was written becomes a problem answer, a later one cuts the connection. */
  handle(req: IncomingMessage, res: ServerResponse, call: GitCall): Promise<void>;
}

export interface Keys {
  /** The same array as long as nothing changed. `demo`: no key is configured and the daemon listens on loopback. */
  current(): { readonly apiKeys: readonly ApiKey[]; readonly demo: boolean };
}
