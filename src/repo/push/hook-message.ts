import type { RefUpdate } from './push-handler.ts';

/** One line of JSON from a hook; a push of several thousand refs fits. */
export const HOOK_MESSAGE_MAX_BYTES: number = 1024 * 1024;

export const HOOK_NAMES = ['pre-receive', 'post-receive'] as const;
export type HookName = (typeof HOOK_NAMES)[number];

export interface HookMessage {
  readonly hook: HookName;
  readonly nonce: string;
  readonly updates: readonly RefUpdate[];
  readonly options: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

const QUARANTINE_VARIABLES = ['GIT_OBJECT_DIRECTORY', 'GIT_ALTERNATE_OBJECT_DIRECTORIES', 'GIT_QUARANTINE_PATH'] as const;

/** What `hooks/hook.cjs` sent, or undefined when it is anything else. */
export function parseHookMessage(line: string): HookMessage | undefined {
  const message = parseJsonObject(line);
  if (message === undefined) return undefined;
  const hook = HOOK_NAMES.find((name) => name === message['hook']);
  const { nonce, stdin, options, environment } = message;
  if (hook === undefined || typeof nonce !== 'string' || typeof stdin !== 'string') return undefined;
  if (!Array.isArray(options) || !options.every((option) => typeof option === 'string')) return undefined;
  const updates = parseUpdates(stdin);
  const quarantine = parseQuarantine(environment);
  if (updates === undefined || quarantine === undefined) return undefined;
  return { hook, nonce, updates, options, environment: quarantine };
}

/** The lines `<old> <new> <ref>` that git gives a hook; undefined when one of them is different or there is none. */
export function parseUpdates(stdin: string): RefUpdate[] | undefined {
  const updates: RefUpdate[] = [];
  for (const line of stdin.replace(/\n$/, '').split('\n')) {
    const match = /^([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) (.+)$/su.exec(line);
    const [, oldOid, newOid, ref] = match ?? [];
    if (oldOid === undefined || newOid === undefined || ref === undefined) return undefined;
    updates.push({ oldOid: presentOid(oldOid), newOid: presentOid(newOid), ref });
  }
  return updates;
}

function presentOid(oid: string): string | undefined {
  return /^0+$/.test(oid) ? undefined : oid;
}

/** Only the variables of the quarantine pass, so that a hook's environment cannot steer the daemon's git otherwise. */
function parseQuarantine(environment: unknown): Record<string, string> | undefined {
  if (typeof environment !== 'object' || environment === null) return undefined;
  const quarantine: Record<string, string> = {};
  for (const name of QUARANTINE_VARIABLES) {
    const value: unknown = (environment as Record<string, unknown>)[name];
    if (value === undefined) continue;
    if (typeof value !== 'string') return undefined;
    quarantine[name] = value;
  }
  return quarantine;
}

function parseJsonObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
