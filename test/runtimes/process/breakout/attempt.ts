/** What the daemon and the neighbour need to survive, whatever the function is written in. */
interface Expectation {
  /** What the attempt got; of a call that is answered. */
  readonly result?: unknown;
  /** Error code of a call that is not answered. */
  readonly failure?: 'timeout' | 'oom' | 'bad_response' | 'handler_error' | 'crash';
  /** Only where control groups bound the function. */
  readonly needsCgroups?: true;
  /** The neighbour must have been served so often while it went on. */
  readonly neighbourServedMin?: number;
}

/**
 * How a Node function tries the same: `python`, by a child process that runs the Python code under Node's own sandbox and
 * filter; a JavaScript function body; or not at all, with the reason.
 */
export type NodeVariant = 'python' | (Expectation & { readonly code: string }) | { readonly notFor: string };

/** One thing that a hostile handler tries, and how the call must end. */
export interface Attempt extends Expectation {
  readonly title: string;
  /** Python that leaves what it got in `result`; `attackers.ts` has the names it may use. */
  readonly code: string;
  readonly node: NodeVariant;
}

/** An attempt as one runtime makes it. */
export interface RunnableAttempt extends Expectation {
  readonly title: string;
  /** Body of the call to the attacker. */
  readonly body: string;
}

/** Undefined: the runtime has no such attempt, and the reason stands in the table. */
export function attemptFor(runtime: 'python3' | 'node', attempt: Attempt): RunnableAttempt | undefined {
  const { title, code, node, ...expected } = attempt;
  if (runtime === 'python3') return { title, body: code, ...expected };
  if (node === 'python') return { title, body: JSON.stringify({ language: 'python', code }), ...expected };
  if ('notFor' in node) return undefined;
  const { code: script, ...own } = node;
  return { title, body: JSON.stringify({ language: 'javascript', code: script }), ...expected, ...own };
}
