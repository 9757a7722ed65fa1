import { distance } from 'fastest-levenshtein';

/** The candidate that `word` is probably a slip of, or undefined. Letter case counts for nothing. */
function closest(word: string, candidates: Iterable<string>): string | undefined {
  const wanted = word.toLowerCase();
  let best: string | undefined;
  // One slip in three characters; more would suggest things that have nothing to do with it.
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of candidates) {
    const steps = distance(wanted, candidate.toLowerCase());
    if (steps < bestDistance) [best, bestDistance] = [candidate, steps];
  }
  return best;
}

/** What people write who know other systems; no slip of the pen leads from one to the other. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  port: 'api_gateway_port',
  log_level: 'logging_level',
  isolation: 'process_isolation_level',
  storage: 'function_storage_path',
  env: 'environment',
  mode: 'execution_mode',
  cpu: 'cpu_limit',
  requirements: 'dependencies',
  entrypoint: 'handler',
  replicas: 'max_instances',
};

/** `; did you mean x?`, or nothing. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const known = [...candidates];
  const other = Object.hasOwn(OTHER_NAMES, word) ? OTHER_NAMES[word] : undefined;
  const meant = other !== undefined && known.includes(other) ? other : closest(word, known);
  return meant === undefined ? '' : `; did you mean ${meant}?`;
}
