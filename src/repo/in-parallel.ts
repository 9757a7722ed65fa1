/** Files in work at the same time; more only wait for the same disk. */
const PARALLEL_MAX = 16;

/** Runs `run` for each value, several at a time. Rejects with the first failure, but only after all that began have ended. */
export async function inParallel<T>(values: readonly T[], run: (value: T) => Promise<void>): Promise<void> {
  const queue = values.values();
  const takeTurns = async () => {
    for (const value of queue) await run(value);
  };
  const turns = await Promise.allSettled(Array.from({ length: Math.min(PARALLEL_MAX, values.length) }, takeTurns));
  // Not at once: the caller clears up behind a failure, and nobody may still be writing there.
  for (const turn of turns) if (turn.status === 'rejected') throw turn.reason;
}
