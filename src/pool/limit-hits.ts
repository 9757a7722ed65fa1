import type { LimitHit } from './instance.ts';

/** The facts of a failure with the limits that may be behind it: sentences in the detail, `limits_hit` in the context. */
export function withLimits(
  detail: string,
  context: Readonly<Record<string, unknown>>,
  hits: readonly LimitHit[],
): { readonly detail: string; readonly context: Readonly<Record<string, unknown>> } {
  if (hits.length === 0) return { detail, context };
  const sentences = hits.map((found) => ` ${found.detail.charAt(0).toUpperCase()}${found.detail.slice(1)}.`);
  return {
    detail: detail + sentences.join(''),
    context: { ...context, limits_hit: hits.map(({ limit, value }) => ({ limit, value })) },
  };
}
