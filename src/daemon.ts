import { createHash } from 'node:crypto';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { START_ONLY_KEYS, type ApiKey, type SystemConfig } from './config/spec.ts';
import type { ConfigFlags } from './config/resolve.ts';
import { FaasError, toFaasError } from './errors.ts';
import { Gateway } from './gateway/server.ts';
import { systemClock } from './observability/clock.ts';
import { createLogger, type RootLogger } from './observability/logger.ts';
import { logPoolEvent } from './observability/pool-log.ts';
import { Capacity } from './pool/capacity.ts';
import { Deployments } from './pool/deployments.ts';
import { Pool } from './pool/pool.ts';
import { policyOf } from './reconcile/activate.ts';
import { describeFunction } from './reconcile/function-details.ts';
import { startHousekeeping } from './reconcile/housekeeping.ts';
import { Journal } from './reconcile/journal.ts';
import { createPushHandler } from './reconcile/push.ts';
import { Reconciler } from './reconcile/reconciler.ts';
import { RightOfWay } from './reconcile/right-of-way.ts';
import { Stager } from './reconcile/stage.ts';
import { OBJECTS_DIRECTORY, readStartConfig, rememberStorage } from './reconcile/start-config.ts';
import type { SyncStatus } from './reconcile/status.ts';
import { viewStatus, viewSync } from './reconcile/status-view.ts';
import { Validator, type TreeAccess } from './reconcile/validate.ts';
import { Watcher } from './reconcile/watcher.ts';
import { Writer } from './reconcile/writer.ts';
import type { FunctionDependencies } from './registry/dependencies.ts';
import { moduleOf, type DeclaredFunction, type Revision } from './registry/revision.ts';
import { openContentStore } from './repo/content-store.ts';
import { readFromDirectories } from './repo/object-directories.ts';
import { ObjectReader } from './repo/object-reader.ts';
import { createPorcelain } from './repo/porcelain.ts';
import { createGitEndpoint } from './repo/push/http-backend.ts';
import { openHookServer } from './repo/push/hook-server.ts';
import { dirtyPaths, takeSnapshot } from './repo/snapshot.ts';
import { removeStaleLocks } from './repo/stale-locks.ts';
import { lockState, openStateDirectory } from './repo/state-lock.ts';
import { functionTrees } from './repo/tree.ts';
import { openWorkspace } from './repo/workspace.ts';
import { Dependencies } from './runtimes/dependencies/dependencies.ts';
import type { DependencyWish } from './runtimes/dependencies/install-plan.ts';
import type { Isolation } from './runtimes/process/isolation.ts';
import type { NetworkDefault } from './runtimes/process/network/choose-network.ts';
import { functionUid } from './runtimes/process/instance-uids.ts';
import { nodeRuntimes } from './runtimes/process/node-executables.ts';
import { createProcessRuntime } from './runtimes/process/process-runtime.ts';
import { labelOptions, readLabelHost } from './runtimes/process/security-labels.ts';
import { checkSources } from './runtimes/process/source-check.ts';

export interface DaemonOptions {
  readonly workspaceDirectory: string;
  /** Path from the top of the workspace. */
  readonly configFile: string;
  readonly flags: ConfigFlags;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Tracebacks in answers, log level DEBUG. */
  readonly debug: boolean;
  readonly logger?: RootLogger;
}

export interface Daemon extends AsyncDisposable {
  readonly url: string;
  readonly isolation: Isolation;
  readonly network: NetworkDefault;
  readonly demoKeys: boolean;
  readonly workspaceRoot: string;
  /** Resolves when the first pass over the workspace has ended, well or not. */
  readonly settled: Promise<SyncStatus>;
  readonly status: () => SyncStatus;
  readonly functions: () => readonly string[];
}

/** How long running calls may take to finish once the daemon is asked to stop. */
const STOP_GRACE_MS = 25_000;
const MAX_PUSH_BYTES = 256 * 1024 * 1024;

/**
 * Builds every part in order and stops them in reverse. A start that fails halfway stops what had started.
 *
 * @throws FaasError `workspace_invalid`, `config_invalid`, `insecure_listen`, `workspace_locked`, `isolation_unavailable`,
 *   `port_in_use`, `storage_failed`
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  await using stack = new AsyncDisposableStack();
  const clock = systemClock;
  const { configFile } = options;
  const workspace = await openWorkspace(options.workspaceDirectory);
  const configInputs = { flags: options.flags, environment: options.environment, workspaceRoot: workspace.root };
  const start = await readStartConfig(workspace, configFile, configInputs);
  const { system } = start.config;
  const isLoopback = isLoopbackHost(system.host);
  if (start.config.keys.length === 0 && !isLoopback) {
    throw new FaasError('insecure_listen', { detail: `The daemon would listen on ${system.host} without a single key.` });
  }
  const logger = options.logger ?? createLogger({ level: system.loggingLevel });
  stack.defer(() => logger.flush());

  const stateDirectory = await openStateDirectory(system.functionStoragePath, workspace.root);
  const stateLock = stack.use(await lockState(stateDirectory));
  await rememberStorage(workspace, stateDirectory);
  const objectDirectory = join(stateDirectory, OBJECTS_DIRECTORY);
  const access: TreeAccess = {
    environment: readFromDirectories([objectDirectory]),
    reader: stack.use(new ObjectReader(workspace.git, { environment: readFromDirectories([objectDirectory]) })),
  };
  const store = await openContentStore(join(stateDirectory, 'content'), { readBlob: (oid) => access.reader.readBlob(oid) });
  const journal = await Journal.open(stateDirectory);
  const servedRef = start.config.git.branchRef ?? (await workspace.headRef());
  if (servedRef === undefined)
    throw new FaasError('workspace_invalid', { detail: 'HEAD is detached and `git.branch` is not set, so no branch is served.' });
  const staleLocks = stateLock.isInherited ? await removeStaleLocks(workspace, servedRef) : [];
  if (staleLocks.length > 0) logger.warn({ locks: staleLocks }, 'removed locks that git left when the daemon was killed');

  const runtime = stack.use(
    await createProcessRuntime({
      isolation: system.processIsolationLevel,
      labels: labelOptions(system, readLabelHost()),
      isLoopback,
      storeDirectory: join(stateDirectory, 'content'),
      uidFile: join(stateDirectory, 'next-uid'),
      networkRange: system.networkRange === '' ? undefined : system.networkRange,
      networkResolvers: system.networkResolvers,
      stateId: createHash('sha256').update(stateDirectory).digest('hex').slice(0, 16),
      clock,
      logger,
      debug: options.debug,
      onLog: (line) => logger.logFunctionLine(line),
    }),
  );
  const { isolation, network } = runtime;
  if (network.auto === 'host' || network.missing.length > 0)
    logger.warn(
      { network: network.auto, reason: network.reason, missing: network.missing },
      'functions without `network` have less than egress',
    );

  const deployments = new Deployments(clock);
  const capacity = new Capacity(system.maxConcurrentFunctions);
  const validator = new Validator({ workspace, configFile, configInputs, checkSources });
  const dependencies = stack.use(
    await Dependencies.open({
      storeDirectory: join(stateDirectory, 'content'),
      startInstaller: (request, kind, signal) => runtime.startInstaller(request, kind, signal),
      level: isolation.level,
      buildNetwork() {
        if (network.auto === 'egress') return 'egress';
        const detail = `\`allow_build\` needs network egress, which this host cannot give: ${network.reason}.`;
        throw new FaasError('install_failed', { detail });
      },
      environment: options.environment,
      clock,
      logger,
    }),
  );
  /** Where what each pool's function depends on lies. */
  const installed = new WeakMap<Pool, string>();
  const stager = new Stager({
    clock,
    dependencies: {
      find: async (declared, wanted) => await dependencies.find(wishOf(declared, wanted)),
      install: async (declared, wanted, onLine) => await dependencies.install(wishOf(declared, wanted), onLine),
    },
    isLive: (declared) => deployments.find(declared.name)?.version === declared.version,
    async materialise(declared, validation, from) {
      const files = functionTrees(validation.entries).get(declared.name)?.files ?? [];
      return await store.materialise(declared.treeOid, files, (oid) => from.reader.readBlob(oid));
    },
    makePool(declared, codeDirectory, dependenciesDirectory) {
      const pool = new Pool({
        functionName: declared.name,
        version: declared.version,
        mode: declared.spec.executionMode,
        request: startRequest(declared, codeDirectory, dependenciesDirectory),
        policy: policyOf(declared.spec),
        runtime,
        capacity,
        clock,
        stats: deployments.statsFor(declared.name),
        onEvent: (event) => logPoolEvent(logger, event),
      });
      if (dependenciesDirectory !== undefined) installed.set(pool, dependenciesDirectory);
      return pool;
    },
    // No call ever reached it.
    onAbandoned(pool) {
      deployments.forget(pool.functionName);
      void pool.stop();
    },
  });

  // What the applied revision says; the start-only keys of `system` stay as they were read.
  let applied: SystemConfig = system;
  let keys: readonly ApiKey[] = start.config.keys;
  const snapshotOptions = { objectDirectory, configFile };
  const reconciler = new Reconciler({
    workspace,
    servedRef,
    validator,
    stager,
    deployments,
    journal,
    access,
    stateDirectory,
    clock,
    logger,
    async snapshot(tipTree) {
      const { tree } = await takeSnapshot(workspace, snapshotOptions);
      return { tree, dirtyPaths: await dirtyPaths(workspace, tipTree, tree, snapshotOptions) };
    },
    restartNeededFor: (revision) => [
      ...Object.entries(START_ONLY_KEYS).flatMap(([key, field]) =>
        isDeepStrictEqual(revision.system[field], system[field]) ? [] : [key],
      ),
      ...(revision.git.branchRef === start.config.git.branchRef ? [] : ['git.branch']),
    ],
    onActivate(revision: Revision) {
      applied = revision.system;
      keys = revision.keys;
      capacity.setLimit(revision.system.maxConcurrentFunctions);
      logger.setLevel(options.debug ? 'DEBUG' : revision.system.loggingLevel);
      const uses = [...revision.functions.values()].map((declared) => ({ ...declared.spec, handlerModule: moduleOf(declared) }));
      runtime.ready(uses).catch((error: unknown) => {
        // A start that failed elsewhere ends the daemon under it: that has been told.
        if (toFaasError(error).code !== 'draining') logger.warn({ error }, 'no instances could be prepared ahead');
      });
    },
  });
  stack.defer(async () => {
    await Promise.all(deployments.list().map(({ pool }) => pool.drain()));
  });
  stack.use(reconciler);
  // Before it: the pass under way may be waiting for an import that hangs.
  stack.defer(() => stager.close());

  const rightOfWay = stack.use(new RightOfWay(clock));
  const parts = { workspace, servedRef, configFile, validator, stager, journal, reconciler, rightOfWay, access, stateDirectory };
  const writer = new Writer(parts);
  const porcelain = createPorcelain(workspace);
  const hooks = stack.use(
    await openHookServer({
      directory: join(stateDirectory, 'push'),
      handler: createPushHandler({ ...parts, url: () => url }),
      onError: (error, callId) =>
        logger.warn({ call_id: callId, code: error.code, detail: error.detail, error: error.cause }, 'push refused'),
    }),
  );
  const git = stack.use(
    createGitEndpoint({
      git: workspace.git,
      workTree: workspace.root,
      hooks,
      maxInputBytes: MAX_PUSH_BYTES,
      onPushBegin: () => rightOfWay.begin(),
      onStderr: (callId, text) => logger.warn({ call_id: callId, text }, 'git said'),
    }),
  );
  const runtimes = nodeRuntimes(functionUid());
  const status = () => reconciler.board.current;
  const isDemo = () => keys.length === 0 && isLoopback;
  const gateway = new Gateway({
    deployments,
    writer,
    reader: {
      details: async (name, view) => await describeFunction({ reconciler, deployments, porcelain, servedRef }, name, view),
    },
    status: {
      get serving() {
        return reconciler.revision !== undefined;
      },
      defaultNetwork: network.auto,
      health: () => ({
        isolation: viewIsolation(isolation),
        network: viewNetwork(network),
        node_runtimes: runtimes,
        sync: viewSync(status()),
      }),
      status: () => viewStatus(status(), dependencies.current),
      sync: async () => viewStatus(await reconciler.settle(), dependencies.current),
    },
    git,
    keys: { current: () => ({ apiKeys: keys, demo: isDemo() }) },
    clock,
    logger,
    maxBodyBytes: () => applied.maxBodyBytes,
  });
  if (start.source !== 'file')
    logger.warn(
      { source: start.source, problems: start.problems },
      'the configuration file is not valid; started with an earlier one',
    );
  await reconciler.boot();
  const port = await gateway.listen(system.host, system.port);
  stack.defer(async () => await gateway.close(STOP_GRACE_MS));
  const url = `http://${urlHost(system.host)}:${port}`;

  const watcher = stack.use(
    new Watcher({
      root: workspace.root,
      gitDir: workspace.gitDir,
      stateDirectory,
      clock,
      ring: (reason) => reconciler.wake(reason),
      report: (watching) => reconciler.board.update({ watching }),
    }),
  );
  stack.use(
    startHousekeeping({
      store,
      dependencyStore: dependencies.store,
      usedDependencies: () => deployments.list().flatMap(({ pool }) => installed.get(pool) ?? []),
      deployments,
      servedObjects: () => reconciler.servedObjects,
      objectDirectory,
      repositoryObjects: workspace.objectDirectory,
      clock,
      logger,
    }),
  );
  const settled = watcher.start().then(async () => await reconciler.settle());
  // A pass that was asked for by a bell from now on compares on a timer, too.
  void settled.then(() => reconciler.wake('started'));

  const started = stack.move();
  return {
    url,
    isolation,
    network,
    demoKeys: isDemo(),
    workspaceRoot: workspace.root,
    settled,
    status,
    functions: () => deployments.list().map(({ name }) => name),
    [Symbol.asyncDispose]: async () => await started.disposeAsync(),
  };
}

function wishOf({ name, spec }: DeclaredFunction, wanted: FunctionDependencies): DependencyWish {
  const { runtime, allowBuild, networkAllow } = spec;
  return { ...wanted, functionName: name, runtime, allowBuild, networkAllow };
}

function startRequest(
  declared: DeclaredFunction,
  codeDirectory: string,
  dependenciesDirectory: string | undefined,
): ConstructorParameters<typeof Pool>[0]['request'] {
  const { name, version, spec } = declared;
  const { runtime, handlerCallable, memoryBytes, cpuMillis, pids, tmpBytes, environment, network, timeoutMs } = spec;
  const { networkAllow, signature, importTemplate, isConcurrent } = spec;
  return {
    functionName: name,
    version,
    codeDirectory,
    runtime,
    handlerModule: moduleOf(declared),
    handlerCallable,
    memoryBytes,
    cpuMillis,
    pids,
    tmpBytes,
    environment,
    network,
    networkAllow,
    dependenciesDirectory,
    signature,
    importTemplate,
    isConcurrent,
    timeoutMs,
  };
}

function viewIsolation({ level, reason, missing, cgroups }: Isolation): Readonly<Record<string, unknown>> {
  return { level, reason, missing, cgroups };
}

function viewNetwork({ auto, reason, missing }: NetworkDefault): Readonly<Record<string, unknown>> {
  return { default: auto, reason, missing };
}

function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function urlHost(host: string): string {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return isIP(reachable) === 6 ? `[${reachable}]` : reachable;
}
