import { FaasError } from '../errors.ts';
import type { Workspace } from '../repo/workspace.ts';

/** `index.lock` of a git command, a person's or our own, is gone in moments; a merge is not. */
const LOCKED_PATIENCE_MS = 2000;
const LOOK_AGAIN_MS = 20;

/** FaasError `held` while the workspace has to be left alone. */
export async function requireUnheld(workspace: Workspace, servedRef: string): Promise<void> {
  const reason = await workspace.heldReason(servedRef);
  if (reason !== undefined) throw new FaasError('held', { detail: `The workspace is held: ${reason}.`, retryAfterSeconds: 2 });
}

/** Like `requireUnheld`, but gives whoever holds it a moment to finish. */
export async function awaitUnheld(workspace: Workspace, servedRef: string): Promise<void> {
  const untilMs = performance.now() + LOCKED_PATIENCE_MS;
  while ((await workspace.heldReason(servedRef)) !== undefined && performance.now() < untilMs) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
  await requireUnheld(workspace, servedRef);
}
