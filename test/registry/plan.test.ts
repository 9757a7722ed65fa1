import test from 'ava';
import fc from 'fast-check';
import { FORCING_FIELDS, POLICY_FIELDS, type FunctionSpec } from '../../src/config/spec.ts';
import { describePlan, isEmptyPlan, planRevision } from '../../src/registry/plan.ts';
import { functionVersion, type DeclaredFunction } from '../../src/registry/revision.ts';

const base: FunctionSpec = {
  name: 'f',
  runtime: 'python3',
  executionMode: 'process',
  handlerModule: 'handler',
  handlerCallable: 'handle',
  memoryBytes: 1,
  cpuMillis: null,
  pids: 64,
  tmpBytes: 1,
  environment: { A: '1', B: '2' },
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

const changed: Partial<FunctionSpec> = {
  runtime: 'python3.11',
  executionMode: 'container',
  handlerModule: 'other',
  handlerCallable: 'run',
  memoryBytes: 2,
  cpuMillis: 100,
  pids: 65,
  tmpBytes: 2,
  environment: { A: '1' },
  network: 'none',
  networkAllow: ['10.0.0.1'],
  dependencies: ['a==1'],
  allowBuild: true,
  signature: 'http',
  importTemplate: 'never',
  isConcurrent: true,
  timeoutMs: 1,
  minInstances: 1,
  maxInstances: 11,
  concurrency: 2,
  maxQueue: 1,
  queueTimeoutMs: 1,
  warmInstanceTtlMs: 1,
  coldStartTimeoutMs: 1,
};

function declare(name: string, treeOid: string, spec: Partial<FunctionSpec> = {}): DeclaredFunction {
  const whole = { ...base, name, ...spec };
  return {
    name,
    spec: whole,
    treeOid,
    version: functionVersion(treeOid, whole),
    etag: '',
    handlerFile: `functions/${name}/handler.py`,
    configSlice: '{}',
  };
}

function revisionOf(functions: readonly DeclaredFunction[]): Map<string, DeclaredFunction> {
  return new Map(functions.map((declared) => [declared.name, declared]));
}

test('every field of a spec is either forcing or policy, none is both', (t) => {
  const fields = Object.keys(base).filter((field) => field !== 'name');
  t.deepEqual([...FORCING_FIELDS, ...POLICY_FIELDS].toSorted(), fields.toSorted());
});

for (const field of [...FORCING_FIELDS, ...POLICY_FIELDS]) {
  const isForcing = (FORCING_FIELDS as readonly string[]).includes(field);
  test(`another value of ${field} ${isForcing ? 'makes a new version' : 'keeps the version'}`, (t) => {
    const before = declare('f', 'a'.repeat(40));
    const after = declare('f', 'a'.repeat(40), { [field]: changed[field] });
    t.is(before.version !== after.version, isForcing);
    const plan = planRevision(revisionOf([before]), revisionOf([after]));
    t.deepEqual([plan.changed[0]?.forcing, plan.changed[0]?.policy], isForcing ? [[field], []] : [[], [field]]);
  });
}

test('the order of environment keys makes no version', (t) => {
  const one = functionVersion('a'.repeat(40), { ...base, environment: { A: '1', B: '2' } });
  t.is(functionVersion('a'.repeat(40), { ...base, environment: { B: '2', A: '1' } }), one);
});

const name = fc.stringMatching(/^[a-z]{1,3}$/);
const revision = fc
  .dictionary(
    name,
    fc.record({
      tree: fc.constantFrom('a', 'b'),
      memoryBytes: fc.integer({ min: 1, max: 2 }),
      maxInstances: fc.integer({ min: 1, max: 2 }),
    }),
  )
  .map((entries) => revisionOf(Object.entries(entries).map(([key, { tree, ...spec }]) => declare(key, tree.repeat(40), spec))));

test('a plan of a revision over itself is empty, and a plan names exactly what differs', (t) => {
  fc.assert(fc.property(revision, (same) => isEmptyPlan(planRevision(same, same))));
  fc.assert(
    fc.property(revision, revision, (from, to) => {
      const plan = planRevision(from, to);
      const rebuilt = new Map(from);
      for (const removed of plan.removed) rebuilt.delete(removed);
      for (const touched of [...plan.added, ...plan.changed.map((change) => change.name)]) rebuilt.set(touched, to.get(touched)!);
      const text = (functions: Map<string, DeclaredFunction>) =>
        JSON.stringify([...functions.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1)));
      return text(rebuilt) === text(to) && plan.unchanged + plan.changed.length + plan.added.length === to.size;
    }),
  );
  t.pass();
});

test('a plan reads as one line a function, with the keys as the file spells them', (t) => {
  const plan = planRevision(
    revisionOf([declare('gone', 'a'.repeat(40)), declare('kept', 'a'.repeat(40)), declare('tuned', 'a'.repeat(40))]),
    revisionOf([
      declare('kept', 'a'.repeat(40)),
      declare('new', 'a'.repeat(40)),
      declare('tuned', 'b'.repeat(40), { timeoutMs: 1, memoryBytes: 2 }),
    ]),
  );
  t.deepEqual(describePlan(plan), [
    '+ new: added',
    '~ tuned: code; memory (new instances); timeout (live pool, no restart)',
    '- gone: removed',
    '1 added, 1 changed, 1 removed, 1 unchanged',
  ]);
});

for (const [from, to, said] of [
  [1, 4, 'concurrency (new instances)'],
  [4, 8, 'concurrency (live pool, no restart)'],
  [8, 1, 'concurrency (new instances)'],
] as const) {
  test(`concurrency from ${from} to ${to} reads as: ${said}`, (t) => {
    const withConcurrency = (concurrency: number): DeclaredFunction =>
      declare('f', 'a'.repeat(40), { concurrency, isConcurrent: concurrency > 1 });
    const plan = planRevision(revisionOf([withConcurrency(from)]), revisionOf([withConcurrency(to)]));
    t.is(describePlan(plan)[0], `~ f: ${said}`);
  });
}
