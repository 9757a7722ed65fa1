import type { Scope } from '../../config/spec.ts';

/** One ref that a push wants to move. All-zero object ids are undefined: created (no old), deleted (no new). */
export interface RefUpdate {
  /** What the pusher claims to replace; git compares it with the ref only after pre-receive said yes. */
  readonly oldOid: string | undefined;
  readonly newOid: string | undefined;
  /** Full name. Bytes that are not UTF-8 stand as U+FFFD, and `ref-rules.ts` refuses them. */
  readonly ref: string;
}

export interface PushRequest {
  readonly updates: readonly RefUpdate[];
  /** `git push -o`, in order. */
  readonly options: readonly string[];
  readonly keyName: string;
  readonly scopes: readonly Scope[];
  readonly callId: string;
  /** For git children that read the pushed objects, which are still in quarantine during pre-receive; empty in post-receive. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Writes to the pusher's terminal; may hold several lines, is escaped before it is sent, and does nothing once the pusher is gone. */
export type Say = (text: string) => void;

/** What decides about pushes. The hooks call it; both calls end within the hook server's limit or count as failed. */
export interface PushHandler {
  /**
   * True lets git go on, which is no promise that the refs move: git's own checks follow. So it must change nothing that
   * serves. Anything thrown refuses the push with the error's problems, detail and fix. Called once per push.
   */
  preReceive(push: PushRequest, say: Say): Promise<boolean>;
  /** The refs have moved; `updates` are those that did. What it throws is shown, but cannot take the push back. Called at most once. */
  postReceive(push: PushRequest, say: Say): Promise<void>;
}
