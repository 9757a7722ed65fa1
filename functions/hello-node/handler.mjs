/** Greets the caller, in JavaScript: the smallest function for Node that reads its input. */
export function handle(request) {
  const data = request.body.length > 0 ? request.getJson() : {};
  return { message: `Hello, ${data?.name ?? 'World'}!`, node: process.version };
}
