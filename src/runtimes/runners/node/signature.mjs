/** How a handler is called: `handle(request)`, or as the functions frameworks do. */

/** Gives `invoke(call)`. What only one signature needs is loaded only for it. */
export async function adapt(handler, signature) {
  switch (signature) {
    case 'http': {
      const { callHttp } = await import('./http-signature.mjs');
      return (call) => callHttp(handler, call);
    }
    case 'cloudevent': {
      const { callWithEvent } = await import('./cloud-event.mjs');
      return (call) => callWithEvent(handler, call);
    }
    default:
      return (call) => handler(call.request);
  }
}
