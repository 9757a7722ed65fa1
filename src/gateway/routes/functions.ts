import { readCreateBody, readUpdateBody } from '../../config/validate.ts';
import { FaasError } from '../../errors.ts';
import type { ImportTemplateView } from '../../pool/instance.ts';
import { hasScope } from '../auth.ts';
import { isFunctionName } from '../invoke-target.ts';
import { readJsonBody } from '../json-body.ts';
import type {
  Deployment,
  DeploymentTable,
  FunctionReader,
  FunctionWriter,
  JsonObject,
  StatusSource,
  WriteResult,
} from '../ports.ts';
import { isNotModified, quoteEtag, readPreconditions } from '../preconditions.ts';
import { unknownFunction } from '../unknown-function.ts';
import { authorOf, nameOf } from './route.ts';
import type { Route, RouteCall } from './route.ts';

export interface FunctionRoutePorts {
  readonly deployments: DeploymentTable;
  readonly writer: FunctionWriter;
  readonly reader: FunctionReader;
  readonly status: StatusSource;
}

/** List, read and write functions. A write is a commit, and its answer comes when the change is live. */
export function functionRoutes(ports: FunctionRoutePorts): Route[] {
  return [
    { method: 'GET', path: '/functions', scope: 'invoke', handle: (call) => listFunctions(call, ports) },
    { method: 'POST', path: '/functions', scope: 'manage', handle: (call) => createFunction(call, ports) },
    { method: 'GET', path: '/functions/:name', scope: 'invoke', handle: (call) => showFunction(call, ports) },
    { method: 'PUT', path: '/functions/:name', scope: 'manage', handle: (call) => updateFunction(call, ports) },
    { method: 'DELETE', path: '/functions/:name', scope: 'manage', handle: (call) => removeFunction(call, ports) },
  ];
}

function listFunctions({ ctx }: RouteCall, { deployments, status }: FunctionRoutePorts): void {
  ctx.body = { functions: deployments.list().map((deployment) => summarise(deployment, status)) };
}

async function showFunction(call: RouteCall, { deployments, reader, status }: FunctionRoutePorts): Promise<void> {
  const name = nameOf(call);
  const deployment = deployments.find(name);
  const withValues = call.caller !== undefined && hasScope(call.caller, 'manage');
  const details = deployment === undefined ? undefined : await reader.details(name, { withValues });
  if (deployment === undefined || details === undefined) throw unknownFunction(name, status);
  call.ctx.set('ETag', quoteEtag(deployment.etag));
  if (isNotModified(readPreconditions(call.ctx.headers), deployment.etag)) {
    call.ctx.status = 304;
    return;
  }
  call.ctx.body = {
    ...summarise(deployment, status),
    state: details.state,
    commit: details.commit ?? null,
    etag: deployment.etag,
    import_template: describeTemplate(details.importTemplate),
    config: details.config,
    files: details.files,
    history: details.history.map(({ commit, authorName, authorDate, subject }) => ({
      commit,
      author_name: authorName,
      author_date: authorDate,
      subject,
    })),
  };
}

/** Null where there are none: other runtimes than Python. */
function describeTemplate(view: ImportTemplateView | undefined): JsonObject | null {
  if (view === undefined) return null;
  return {
    state: view.state,
    reason: view.reason ?? null,
    instances: view.instances ?? 0,
    memory_bytes: view.memoryBytes ?? null,
    import_ms: view.importMs ?? null,
  };
}

async function createFunction(call: RouteCall, { writer }: FunctionRoutePorts): Promise<void> {
  const { ctx } = call;
  const raw = await readJsonBody(ctx.req, ctx.res, call.limits, call.request.expectsContinue);
  const { name } = raw;
  if (typeof name === 'string' && !isFunctionName(name)) {
    throw new FaasError('invalid_name', { detail: `${JSON.stringify(name.slice(0, 100))} cannot be the name of a function.` });
  }
  const body = readCreateBody(raw);
  call.request.functionName = body.name;
  const result = await writer.create(body, readPreconditions(ctx.headers), authorOf(call));
  ctx.status = 201;
  ctx.set('Location', `/functions/${result.name}`);
  answerWrite(call, result);
}

async function updateFunction(call: RouteCall, { writer }: FunctionRoutePorts): Promise<void> {
  const { ctx } = call;
  const name = nameOf(call);
  const raw = await readJsonBody(ctx.req, ctx.res, call.limits, call.request.expectsContinue);
  const result = await writer.update(name, readUpdateBody(raw), readPreconditions(ctx.headers), authorOf(call));
  answerWrite(call, result);
}

async function removeFunction(call: RouteCall, { writer }: FunctionRoutePorts): Promise<void> {
  const result = await writer.remove(nameOf(call), readPreconditions(call.ctx.headers), authorOf(call));
  call.ctx.body = { name: result.name, commit: result.commit, changed: result.changed };
}

function answerWrite({ ctx }: RouteCall, result: WriteResult): void {
  ctx.set('ETag', quoteEtag(result.etag));
  if (result.version !== undefined) ctx.set('X-Function-Version', result.version);
  ctx.body = {
    name: result.name,
    version: result.version ?? null,
    commit: result.commit,
    etag: result.etag,
    changed: result.changed,
    url: `/invoke/${result.name}`,
  };
}

/** What the list says of a function; its limits in base units. */
function summarise({ name, version, spec }: Deployment, { defaultNetwork }: StatusSource): JsonObject {
  return {
    name,
    version,
    runtime: spec.runtime,
    execution_mode: spec.executionMode,
    handler: `${spec.handlerModule}.${spec.handlerCallable}`,
    limits: {
      timeout_seconds: spec.timeoutMs / 1000,
      memory_bytes: spec.memoryBytes,
      cpu_millis: spec.cpuMillis,
      pids: spec.pids,
      tmp_bytes: spec.tmpBytes,
      min_instances: spec.minInstances,
      max_instances: spec.maxInstances,
      concurrency: spec.concurrency,
      max_queue: spec.maxQueue,
      queue_timeout_seconds: spec.queueTimeoutMs / 1000,
      warm_instance_ttl_seconds: spec.warmInstanceTtlMs / 1000,
      cold_start_timeout_seconds: spec.coldStartTimeoutMs / 1000,
    },
    // The one in force; `config` says what was asked for.
    network: spec.network === 'auto' ? defaultNetwork : spec.network,
    network_allow: spec.networkAllow,
    environment: Object.keys(spec.environment),
    url: `/invoke/${name}`,
  };
}
