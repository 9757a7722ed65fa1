import type { Problem } from '../errors.ts';
import type { FaasConfig } from './generated/faas-config.ts';
import type { FunctionConfig } from './generated/function-config.ts';
import { parseFile, type Fault, type ParsedFile, type Place } from './parse.ts';
import { resolveFunction, resolveSystem, type ConfigInputs } from './resolve.ts';
import type { ApiKey, FunctionSpec, GitConfig, SystemConfig } from './spec.ts';
import { MAX_FAULTS, validateConfig } from './validate.ts';

/** A spec with the place of its entry's key in the file. */
interface FunctionEntry extends Place {
  readonly spec: FunctionSpec;
  /** Of each of its `dependencies`, in their order. */
  readonly dependencyPlaces: readonly Place[];
}

/** A configuration file without problems, with all inputs applied; frozen. */
export interface ResolvedConfig {
  readonly system: SystemConfig;
  readonly git: GitConfig;
  readonly keys: readonly ApiKey[];
  /** The entries of the file by name, in its order. */
  readonly functionEntries: ReadonlyMap<string, FunctionEntry>;
  /** Spec of a function with or without an entry. */
  specFor(name: string): FunctionSpec;
  /** What the file says about a function, as JSON with sorted keys: the same text for the same configuration. */
  slice(name: string): string;
}

export interface LoadedConfig {
  /** Present exactly when there are no problems. */
  readonly config?: ResolvedConfig;
  /** With problems in a file that parses: what is left of it, defaults in place of faults. Only for finding further problems. */
  readonly partial?: ResolvedConfig;
  /** In the order of the file. */
  readonly problems: readonly Problem[];
}

const MAX_PROBLEMS = 200;

/** Reads, validates and resolves a configuration; pure. `file` is the path that problems carry. */
export function loadConfig(text: string, file: string, inputs: ConfigInputs): LoadedConfig {
  const parsed = parseFile(text, file);
  if (parsed.problems.length > 0) return failed(parsed.problems);
  const { faults: shapeFaults, isComplete } = validateConfig(parsed.value);
  if (!isComplete) return failed(placed(shapeFaults, parsed, file));
  // What is wrong in shape is left out, so that the rest is checked in the same round.
  const raw = withoutFaulty(parsed.value, shapeFaults);
  const { system, git, keys, faults, problems } = resolveSystem(raw, inputs);
  const found: Fault[] = [...shapeFaults, ...faults];

  const functionEntries = new Map<string, FunctionEntry>();
  let minInstancesSum = 0;
  for (const [name, entry] of Object.entries(raw?.functions ?? {})) {
    const resolved = resolveFunction(name, entry ?? undefined, system);
    found.push(...resolved.faults);
    minInstancesSum += resolved.spec.minInstances;
    const dependencyPlaces = resolved.spec.dependencies.map((_text, index) =>
      parsed.locate(['functions', name, 'dependencies', index], 'value'),
    );
    const place = parsed.locate(['functions', name], 'key');
    functionEntries.set(name, Object.freeze({ spec: resolved.spec, dependencyPlaces, ...place }));
  }
  if (minInstancesSum > system.maxConcurrentFunctions && found.length === 0) {
    const message = `the functions keep ${minInstancesSum} instances (min_instances) but max_concurrent_functions is ${system.maxConcurrentFunctions}`;
    found.push({ path: ['system', 'max_concurrent_functions'], at: 'value', message });
  }

  /** One spec a function for the life of this configuration: who has it can tell by identity that nothing changed. */
  const defaultSpecs = new Map<string, FunctionSpec>();
  const config: ResolvedConfig = {
    system,
    git,
    keys,
    functionEntries,
    specFor(name) {
      const known = functionEntries.get(name)?.spec ?? defaultSpecs.get(name);
      if (known !== undefined) return known;
      const { spec } = resolveFunction(name, undefined, system);
      defaultSpecs.set(name, spec);
      return spec;
    },
    slice: (name) => canonicalJson(rawEntry(raw, name) ?? {}),
  };
  if (found.length + problems.length === 0) return Object.freeze({ config: Object.freeze(config), problems: [] });
  return Object.freeze({ ...failed([...problems, ...placed(found, parsed, file)]), partial: Object.freeze(config) });
}

/** JSON with sorted keys, so that equal data gives equal text. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : part,
  );
}

function rawEntry(raw: FaasConfig, name: string): FunctionConfig | undefined {
  const functions = raw?.functions ?? {};
  // A directory may be named like a property that every object has.
  return Object.hasOwn(functions, name) ? (functions[name] ?? undefined) : undefined;
}

function failed(problems: readonly Problem[]): LoadedConfig {
  return Object.freeze({ problems: Object.freeze(problems.slice(0, MAX_PROBLEMS)) });
}

function placed(faults: readonly Fault[], parsed: ParsedFile, file: string): Problem[] {
  return faults
    .slice(0, MAX_FAULTS)
    .map(({ path, at, message }): Problem => ({ file, ...parsed.locate(path, at), message: named(path, at, message) }))
    .sort((a, b) => a.line - b.line || a.column - b.column);
}

/** With the key in front where the message does not name it: people read the message before they open the file. */
function named(path: Fault['path'], at: Fault['at'], message: string): string {
  const key = path.findLast((step): step is string => typeof step === 'string' && !/^\d+$/.test(step));
  return at === 'key' || key === undefined || message.startsWith(key) ? message : `${key}: ${message}`;
}

/** How deep a fault cuts: one key of a function or of `system`, but a whole section of the others. */
const CUT_DEPTH: Readonly<Record<string, number>> = { functions: 3, system: 2 };

function withoutFaulty(value: unknown, faults: readonly Fault[]): FaasConfig {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return {};
  const copy = structuredClone(value) as Record<string, unknown>;
  for (const { path } of faults) {
    const cut = path.slice(0, CUT_DEPTH[String(path[0])] ?? 1);
    remove(copy, cut);
    // One alone would be compared with the other's default.
    if (cut.at(-1) === 'min_instances') remove(copy, [...cut.slice(0, -1), 'max_instances']);
    if (cut.at(-1) === 'max_instances') remove(copy, [...cut.slice(0, -1), 'min_instances']);
  }
  return copy;
}

function remove(object: Record<string, unknown>, path: Fault['path']): void {
  let parent: unknown = object;
  for (const step of path.slice(0, -1)) parent = (parent as Record<string, unknown> | null | undefined)?.[String(step)];
  const last = path.at(-1);
  if (last !== undefined && typeof parent === 'object' && parent !== null)
    delete (parent as Record<string, unknown>)[String(last)];
}
