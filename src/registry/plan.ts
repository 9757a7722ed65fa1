import { POLICY_FIELDS, FORCING_FIELDS, type FunctionSpec } from '../config/spec.ts';
import type { DeclaredFunction } from './revision.ts';

export interface ChangedFunction {
  readonly name: string;
  /** The files differ. */
  readonly code: boolean;
  /** Forcing fields that differ: instances are replaced. */
  readonly forcing: readonly string[];
  /** Policy fields that differ: applied to the live pool. */
  readonly policy: readonly string[];
}

/** What applying one revision over another does. */
export interface Plan {
  readonly added: readonly string[];
  readonly changed: readonly ChangedFunction[];
  readonly removed: readonly string[];
  readonly unchanged: number;
}

type Functions = ReadonlyMap<string, DeclaredFunction>;

/** The difference between two revisions; `planRevision(a, a)` is empty. */
export function planRevision(from: Functions, to: Functions): Plan {
  const added: string[] = [];
  const changed: ChangedFunction[] = [];
  let unchanged = 0;
  for (const [name, next] of to) {
    const previous = from.get(name);
    if (previous === undefined) {
      added.push(name);
      continue;
    }
    if (previous === next) {
      unchanged += 1;
      continue;
    }
    const change: ChangedFunction = {
      name,
      code: previous.treeOid !== next.treeOid,
      forcing: FORCING_FIELDS.filter((field) => differs(previous.spec, next.spec, field)),
      policy: POLICY_FIELDS.filter((field) => differs(previous.spec, next.spec, field)),
    };
    if (change.code || change.forcing.length > 0 || change.policy.length > 0) changed.push(change);
    else unchanged += 1;
  }
  const removed = [...from.keys()].filter((name) => !to.has(name));
  return {
    added: added.toSorted(),
    changed: changed.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    removed: removed.toSorted(),
    unchanged,
  };
}

export function isEmptyPlan(plan: Plan): boolean {
  return plan.added.length + plan.changed.length + plan.removed.length === 0;
}

/** One line a function, for terminals; ends with a summary. */
export function describePlan(plan: Plan): string[] {
  const lines = [
    ...plan.added.map((name) => `+ ${name}: added`),
    ...plan.changed.map((change) => `~ ${change.name}: ${describeChange(change)}`),
    ...plan.removed.map((name) => `- ${name}: removed`),
  ];
  const summary = `${plan.added.length} added, ${plan.changed.length} changed, ${plan.removed.length} removed, ${plan.unchanged} unchanged`;
  return [...lines, summary];
}

function describeChange(change: ChangedFunction): string {
  const parts: string[] = [];
  if (change.code) parts.push('code');
  const forcing = keysOf(change.forcing);
  // A key can be behind two fields: `concurrency` forces new instances only when it begins or ceases to be 1.
  const policy = keysOf(change.policy).filter((key) => !forcing.includes(key));
  if (forcing.length > 0) parts.push(`${forcing.join(', ')} (new instances)`);
  if (policy.length > 0) parts.push(`${policy.join(', ')} (live pool, no restart)`);
  return parts.join('; ');
}

function differs(a: FunctionSpec, b: FunctionSpec, field: keyof FunctionSpec): boolean {
  return JSON.stringify(sorted(a[field])) !== JSON.stringify(sorted(b[field]));
}

function sorted(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  return Object.entries(value).toSorted(([x], [y]) => (x < y ? -1 : 1));
}

function keysOf(fields: readonly string[]): string[] {
  return [...new Set(fields.map(snakeCase))];
}

/** A field's name as it stands in the configuration file. */
function snakeCase(field: string): string {
  const renamed: Record<string, string> = {
    handlerModule: 'handler',
    handlerCallable: 'handler',
    isConcurrent: 'concurrency',
    memoryBytes: 'memory',
    cpuMillis: 'cpu_limit',
    tmpBytes: 'tmp_size',
    timeoutMs: 'timeout',
    queueTimeoutMs: 'queue_timeout',
    warmInstanceTtlMs: 'warm_instance_ttl',
    coldStartTimeoutMs: 'cold_start_timeout',
  };
  return renamed[field] ?? field.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
