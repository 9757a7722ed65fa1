import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseRequirement } from '../../src/config/requirement.ts';
import type { IsolationLevel } from '../../src/config/spec.ts';
import { systemClock } from '../../src/observability/clock.ts';
import { Dependencies, type DependencyParts } from '../../src/runtimes/dependencies/dependencies.ts';
import type { PythonWish } from '../../src/runtimes/dependencies/install-plan.ts';
import { RuntimeFixture } from './process-runtime.ts';

export interface DependencyFixtureOptions {
  readonly isolation?: IsolationLevel;
  /** The daemon's environment beside `PATH` and an empty home. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly bounds?: DependencyParts['bounds'];
  /** Default `host`, so that a build reaches an index on loopback. */
  readonly buildNetwork?: 'host' | 'egress';
}

/** Dependencies with a runtime and a store of their own; the host's settings are shut out. */
export class DependencyFixture implements AsyncDisposable {
  dependencies: Dependencies;
  readonly runtime: RuntimeFixture;
  readonly parts: DependencyParts;
  /** Of the user whose settings count. */
  readonly home: string;

  static async open(options: DependencyFixtureOptions = {}): Promise<DependencyFixture> {
    const level = options.isolation ?? (process.getuid?.() === 0 ? 'strict' : 'standard');
    const runtime = await RuntimeFixture.open({ isolation: level });
    const home = mkdtempSync(join(realpathSync(tmpdir()), 'gitfaas-home-'));
    const parts: DependencyParts = {
      storeDirectory: runtime.storeDirectory,
      startInstaller: (request, kind, signal) => runtime.runtime.startInstaller(request, kind, signal),
      level,
      buildNetwork: () => options.buildNetwork ?? 'host',
      environment: { PATH: '/usr/bin:/bin', HOME: home, XDG_CONFIG_DIRS: home, ...options.environment },
      clock: systemClock,
      logger: runtime.logger,
      ...(options.bounds === undefined ? {} : { bounds: options.bounds }),
    };
    return new DependencyFixture(runtime, home, parts, await Dependencies.open(parts));
  }

  private constructor(runtime: RuntimeFixture, home: string, parts: DependencyParts, dependencies: Dependencies) {
    this.runtime = runtime;
    this.home = home;
    this.parts = parts;
    this.dependencies = dependencies;
  }

  /** Over the same store, as after a restart. */
  async reopen(changes: Partial<DependencyParts> = {}): Promise<void> {
    await this.dependencies[Symbol.asyncDispose]();
    this.dependencies = await Dependencies.open({ ...this.parts, ...changes });
  }

  async install(
    requirements: readonly string[],
    options: Partial<PythonWish> & { readonly onLine?: (line: string) => void } = {},
  ): Promise<string> {
    const { onLine, ...rest } = options;
    return await this.dependencies.install(wishFor(requirements, rest), onLine ?? (() => {}));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dependencies[Symbol.asyncDispose]();
    await this.runtime[Symbol.asyncDispose]();
    rmSync(this.home, { recursive: true, force: true });
  }
}

/** What a function with these lines in its configuration wants. */
export function wishFor(requirements: readonly string[], overrides: Partial<PythonWish> = {}): PythonWish {
  return {
    ecosystem: 'python',
    functionName: 'under-test',
    runtime: 'python3',
    requirements: requirements.map((line) => {
      const { requirement, problem } = parseRequirement(line);
      if (requirement === undefined) throw new Error(problem);
      return { name: requirement.name, text: requirement.text, hashes: [] };
    }),
    isHashed: false,
    allowBuild: false,
    networkAllow: [],
    ...overrides,
  };
}
