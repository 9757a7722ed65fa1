import assert from 'node:assert/strict';
import type { PoolPolicy } from '../config/spec.ts';
import { POLICY_FIELDS, type FunctionSpec } from '../config/spec.ts';
import type { Deployment, Deployments } from '../pool/deployments.ts';
import type { Pool } from '../pool/pool.ts';
import type { DeclaredFunction, Revision } from '../registry/revision.ts';
import type { Journal } from './journal.ts';
import type { Stager } from './stage.ts';

export interface ActivatorParts {
  readonly journal: Journal;
  readonly deployments: Deployments;
  readonly stager: Stager;
  /** Applies what is not in the table: keys, node-wide limits, log level. Runs between the journal and the swap. */
  readonly onActivate: (revision: Revision) => void;
}

export interface Activation {
  /** Resolves when no process of a replaced or removed version is left. */
  readonly drained: Promise<unknown>;
}

/**
 * Makes a staged revision the one that serves: journal, then the swap of the whole table in one assignment, then the old
 * pools drain. Calls that an old pool has taken end there; an unchanged version keeps its pool and its instances.
 */
export async function activateRevision(
  parts: ActivatorParts,
  revision: Revision,
  commit: string | undefined,
): Promise<Activation> {
  await parts.journal.apply({ tree: revision.tree, commit });

  // No await from here to the swap: a call sees the old table or the new one, never a mixture.
  const next = new Map<string, Deployment>();
  const fresh: Pool[] = [];
  for (const declared of revision.functions.values()) {
    const live = parts.deployments.find(declared.name);
    const kept = live?.version === declared.version ? live.pool : undefined;
    const pool = kept ?? parts.stager.claim(declared);
    assert(pool !== undefined, `${declared.name} was not staged`);
    if (kept === undefined || live?.spec !== declared.spec) pool.setPolicy(policyOf(declared.spec));
    if (kept === undefined) fresh.push(pool);
    next.set(declared.name, deploymentOf(declared, pool));
  }
  parts.onActivate(revision);
  const replaced = parts.deployments.replace(next, { commit, tree: revision.tree });
  for (const pool of fresh) pool.activate();
  const kept = new Set([...next.values()].map((deployment) => deployment.pool));
  return { drained: Promise.allSettled(replaced.filter((old) => !kept.has(old.pool)).map((old) => old.pool.drain())) };
}

function deploymentOf(declared: DeclaredFunction, pool: Pool): Deployment {
  const { name, spec, version, treeOid, etag } = declared;
  return { name, spec, version, treeOid, etag, pool };
}

export function policyOf(spec: FunctionSpec): PoolPolicy {
  return Object.fromEntries(POLICY_FIELDS.map((field) => [field, spec[field]])) as unknown as PoolPolicy;
}
