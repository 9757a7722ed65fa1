import type { Deployments } from '../pool/deployments.ts';
import type { ImportTemplateView } from '../pool/instance.ts';
import type { LogEntry, Porcelain } from '../repo/porcelain.ts';
import type { Reconciler } from './reconciler.ts';

/** What `GET /functions/<name>` shows beside the deployment. */
export interface FunctionDetails {
  readonly files: readonly { readonly path: string; readonly size: number; readonly mode: string }[];
  /** The slice of the configuration as it was written; values of `environment` are null unless they were asked for. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Undefined while what runs is not committed. */
  readonly commit: string | undefined;
  /** `active` while instances live, else `idle`. */
  readonly state: string;
  /** Undefined where there are none. */
  readonly importTemplate: ImportTemplateView | undefined;
  /** The latest commits that touched its files, newest first. */
  readonly history: readonly LogEntry[];
}

export interface DetailsParts {
  readonly reconciler: Reconciler;
  readonly deployments: Deployments;
  readonly porcelain: Porcelain;
  readonly servedRef: string;
}

const HISTORY_MAX = 10;

/** Details of one function of the revision that serves; undefined when there is none of this name. */
export async function describeFunction(
  { reconciler, deployments, porcelain, servedRef }: DetailsParts,
  name: string,
  options: { readonly withValues: boolean },
): Promise<FunctionDetails | undefined> {
  const declared = reconciler.revision?.functions.get(name);
  const deployment = deployments.find(name);
  if (declared === undefined || deployment === undefined) return undefined;
  const prefix = `functions/${name}/`;
  const files = (reconciler.validation?.entries ?? [])
    .filter((entry) => entry.type === 'blob' && entry.path.startsWith(prefix))
    .map((entry) => ({ path: entry.path.slice(prefix.length), size: entry.sizeBytes, mode: entry.mode }));
  const config = JSON.parse(declared.configSlice) as Record<string, unknown>;
  if (!options.withValues && typeof config['environment'] === 'object' && config['environment'] !== null) {
    config['environment'] = Object.fromEntries(Object.keys(config['environment']).map((key) => [key, null]));
  }
  const { dirtyPaths, refusedEdits } = reconciler.board.current;
  // With refused edits it is the tip itself that serves.
  const isEdited =
    refusedEdits.length === 0 && dirtyPaths.some((path) => path.startsWith(prefix) || !path.startsWith('functions/'));
  return {
    files,
    config,
    commit: isEdited ? undefined : deployments.revision?.commit,
    history: await porcelain.log(servedRef, [`functions/${name}`], HISTORY_MAX),
    importTemplate: deployment.pool.importTemplate,
    state: deployment.pool.instances().length > 0 ? 'active' : 'idle',
  };
}
