/**
 * Stands in for `@google-cloud/functions-framework` where the function's dependencies don't bring it: functions register
 * themselves by name.
 */
const NAME = /^[A-Za-z](?:[-_A-Za-z0-9]{0,61}[A-Za-z0-9])?$/;
const registered = new Map();

function register(name, signature, handler) {
  if (!NAME.test(name)) throw new Error(`Invalid function name: ${name}`);
  registered.set(name, { handler, signature });
}

export function http(name, handler) {
  register(name, 'http', handler);
}

export function cloudEvent(name, handler) {
  register(name, 'cloudevent', handler);
}

/** For the runner. */
export const registeredByName = registered;

export default { http, cloudEvent };
