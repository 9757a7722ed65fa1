import { hash } from 'node:crypto';
import type { ApiKey, FunctionSpec, Scope } from '../../src/config/spec.ts';
import { FaasError } from '../../src/errors.ts';
import type {
  Author,
  Deployment,
  DeploymentTable,
  FunctionReader,
  FunctionWriter,
  GitEndpoint,
  Keys,
  Preconditions,
  StatusSource,
  WriteResult,
} from '../../src/gateway/ports.ts';
import { Gateway } from '../../src/gateway/server.ts';
import type { GatewayOptions, GatewayPorts } from '../../src/gateway/server.ts';
import { systemClock } from '../../src/observability/clock.ts';
import { createLogger } from '../../src/observability/logger.ts';
import type { InstanceView } from '../../src/pool/instance-view.ts';
import type { HandlerAnswer, Invocation } from '../../src/pool/instance.ts';
import type { PoolAnswer } from '../../src/pool/pool.ts';
import { FunctionStats } from '../../src/pool/stats.ts';

/** What a function of the fixture does with a call. */
export type Behaviour = (invocation: Invocation, deadlineMs: number) => Promise<Partial<PoolAnswer> & { answer: HandlerAnswer }>;

export function answerWith(body: string | HandlerAnswer['body'], status = 200, headers: readonly string[] = []): HandlerAnswer {
  return { status, headers, body: typeof body === 'string' ? Buffer.from(body) : body, execMs: 1.5 };
}

export const fixtureSpec: FunctionSpec = {
  name: 'echo',
  runtime: 'python3',
  executionMode: 'process',
  handlerModule: 'handler',
  handlerCallable: 'handle',
  memoryBytes: 256 * 1024 * 1024,
  cpuMillis: null,
  pids: 64,
  tmpBytes: 64 * 1024 * 1024,
  environment: { API_KEY: 'hidden-value' },
  network: 'host',
  networkAllow: [],
  dependencies: [],
  allowBuild: false,
  signature: null,
  importTemplate: 'auto',
  isConcurrent: false,
  timeoutMs: 30_000,
  minInstances: 0,
  maxInstances: 10,
  concurrency: 1,
  maxQueue: 256,
  queueTimeoutMs: 5000,
  warmInstanceTtlMs: 600_000,
  coldStartTimeoutMs: 30_000,
};

/** A live table in memory: the gateway's view of the pool, without instances. */
export class FixtureTable implements DeploymentTable {
  readonly #deployments = new Map<string, Deployment>();
  readonly #stats = new FunctionStats(systemClock);
  views: InstanceView[] = [];
  readonly stopped: string[] = [];

  serve(name: string, behaviour: Behaviour, spec: Partial<FunctionSpec> = {}): void {
    const invoke = async (invocation: Invocation, deadlineMs: number): Promise<PoolAnswer> => ({
      instanceId: 'i-1',
      queueMs: 0.25,
      coldMs: undefined,
      phases: undefined,
      ...(await behaviour(invocation, deadlineMs)),
    });
    this.#deployments.set(name, {
      name,
      version: `v-${name}`,
      etag: `e-${name}`,
      spec: { ...fixtureSpec, name, ...spec },
      pool: { invoke },
    });
  }

  find(name: string): Deployment | undefined {
    return this.#deployments.get(name);
  }

  list(): Deployment[] {
    return [...this.#deployments.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  instances(): InstanceView[] {
    return this.views;
  }

  async stopInstance(id: string): Promise<void> {
    if (!this.views.some((view) => view.id === id)) throw new FaasError('unknown_instance');
    this.stopped.push(id);
  }

  statsFor(): FunctionStats {
    return this.#stats;
  }

  totals(): ReturnType<FunctionStats['snapshot']> {
    return this.#stats.snapshot();
  }
}

/** Remembers what it was asked to write, and answers as it is told. */
export class FixtureWriter implements FunctionWriter {
  readonly writes: { call: string; name: string; body?: unknown; preconditions: Preconditions; author: Author }[] = [];
  failure: FaasError | undefined;
  result: WriteResult = { name: 'echo', version: 'v-2', commit: 'c'.repeat(40), etag: 'e-2', changed: true };

  async create(body: { name: string }, preconditions: Preconditions, author: Author): Promise<WriteResult> {
    return this.#write({ call: 'create', name: body.name, body, preconditions, author });
  }

  async update(name: string, body: unknown, preconditions: Preconditions, author: Author): Promise<WriteResult> {
    return this.#write({ call: 'update', name, body, preconditions, author });
  }

  async remove(name: string, preconditions: Preconditions, author: Author): Promise<WriteResult> {
    return this.#write({ call: 'remove', name, preconditions, author });
  }

  #write(write: FixtureWriter['writes'][number]): WriteResult {
    this.writes.push(write);
    if (this.failure !== undefined) throw this.failure;
    return { ...this.result, name: write.name };
  }
}

export interface GatewayFixture extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly port: number;
  readonly url: string;
  readonly table: FixtureTable;
  readonly writer: FixtureWriter;
  readonly logLines: Record<string, unknown>[];
  readonly status: { serving: boolean };
  /** Replace to change the keys while the gateway runs. */
  keys: ReturnType<Keys['current']>;
}

export function keyEntry(key: string, scopes: readonly Scope[], rateLimit?: ApiKey['rateLimit']): ApiKey {
  return { name: `name-of-${key}`, sha256: hash('sha256', key), scopes, rateLimit };
}

/** A gateway on a free port of loopback, over parts in memory, with the demo keys. */
export async function startGateway(
  overrides: Partial<GatewayPorts> & { options?: GatewayOptions; logLevel?: 'DEBUG' | 'INFO' } = {},
): Promise<GatewayFixture> {
  const table = new FixtureTable();
  table.serve('echo', async ({ body }) => ({ answer: answerWith(Buffer.from(body)) }));
  const writer = new FixtureWriter();
  const logLines: Record<string, unknown>[] = [];
  const status = { serving: true };
  const statusSource: StatusSource = {
    defaultNetwork: 'egress' as const,
    get serving() {
      return status.serving;
    },
    health: () => ({ isolation: 'strict' }),
    status: () => ({ state: 'applied' }),
    sync: async () => ({ state: 'applied', synced: true }),
  };
  const reader: FunctionReader = {
    details: async (name, { withValues }) => ({
      files: [{ path: 'handler.py', size: 10, mode: '100644' }],
      config: { environment: { API_KEY: withValues ? 'hidden-value' : null } },
      commit: 'c'.repeat(40),
      state: name === 'echo' ? 'active' : 'idle',
      history: [
        {
          commit: 'c'.repeat(40),
          authorName: 'demo-key',
          authorDate: '2026-01-01T00:00:00+00:00',
          subject: 'create function echo',
        },
      ],
    }),
  };
  const git: GitEndpoint = { handle: async (_req, res) => void res.end('git') };
  const fixture = { keys: { apiKeys: [], demo: true } as ReturnType<Keys['current']> };
  const gateway = new Gateway(
    {
      deployments: table,
      writer,
      reader,
      status: statusSource,
      git,
      keys: { current: () => fixture.keys },
      clock: systemClock,
      logger: createLogger({
        level: overrides.logLevel ?? 'INFO',
        destination: { write: (line) => void logLines.push(JSON.parse(line) as Record<string, unknown>) },
      }),
      maxBodyBytes: () => 1024 * 1024,
      ...overrides,
    },
    overrides.options,
  );
  const port = await gateway.listen('127.0.0.1', 0);
  return Object.assign(fixture, {
    gateway,
    port,
    url: `http://127.0.0.1:${port}`,
    table,
    writer,
    logLines,
    status,
    [Symbol.asyncDispose]: () => gateway.close(0),
  });
}
