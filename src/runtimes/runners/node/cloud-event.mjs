/**
 * `signature: cloudevent`: `handler(event)` or, with two parameters, `handler(event, callback)`. Binary and structured mode of
 * the CloudEvents HTTP binding (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md);
 * batches are refused. Google's older background functions, `(data, context)`, aren't spoken.
 */
import { bytesFrom, isArray, parse, Promise, textOf } from './originals.mjs';
import { BadRequest } from './request.mjs';
import { Respond } from './respond.mjs';

const REQUIRED = ['id', 'source', 'specversion', 'type'];
const STRUCTURED = 'application/cloudevents';
const BATCH = 'application/cloudevents-batch';

/** Gives the handler's value; nothing returned is an answer without a body. Throws BadRequest for what is no event. */
export async function callWithEvent(handler, call) {
  const event = readEvent(call.request.headers, await call.collect());
  const value = await (handler.length > 1 ? callBack(handler, event) : handler(event));
  return value === undefined || value === null ? new Respond(null, 204) : value;
}

function callBack(handler, event) {
  return new Promise((resolve, reject) => {
    let isDone = false;
    const callback = (error, result) => {
      if (isDone) console.error('The callback of this event was called before');
      else if (error) reject(error);
      else resolve(result);
      isDone = true;
    };
    const returned = handler(event, callback);
    if (typeof returned?.then === 'function') returned.then(undefined, reject);
  });
}

export function readEvent(headers, body) {
  const mediaType = headers.get('content-type')?.split(';', 1)[0].trim().toLowerCase() ?? '';
  if (mediaType.startsWith(BATCH)) throw new BadRequest('a batch of CloudEvents is not accepted: send one event a call');
  const event = mediaType.startsWith(STRUCTURED) ? readStructured(mediaType, body) : readBinary(headers, mediaType, body);
  const missing = REQUIRED.filter((name) => typeof event[name] !== 'string' || event[name] === '');
  if (missing.length > 0) throw new BadRequest(`the CloudEvent has no ${missing.join(', ')}`);
  if (event.specversion !== '1.0')
    throw new BadRequest(`the CloudEvent's specversion is ${event.specversion}, only 1.0 is accepted`);
  const traceparent = headers.get('traceparent');
  if (traceparent !== null) event.traceparent ??= traceparent;
  return event;
}

function readStructured(mediaType, body) {
  if (mediaType !== `${STRUCTURED}+json`)
    throw new BadRequest(`CloudEvents as ${mediaType} are not accepted, only as ${STRUCTURED}+json`);
  const event = readJson(textOf(body), 'the CloudEvent');
  if (typeof event !== 'object' || event === null || isArray(event)) throw new BadRequest('the CloudEvent is no JSON object');
  if (event.data_base64 !== undefined) {
    if (typeof event.data_base64 !== 'string') throw new BadRequest("the CloudEvent's data_base64 is no text");
    event.data = bytesFrom(event.data_base64, 'base64');
    delete event.data_base64;
  }
  return event;
}

/** Attributes are in headers, percent-encoded; the body is the data, in its own type. */
function readBinary(headers, mediaType, body) {
  const event = {};
  for (const name of Object.keys(headers)) if (name.startsWith('ce-')) event[name.slice(3)] = decoded(headers[name]);
  if (mediaType !== '') event.datacontenttype = headers.get('content-type');
  if (body.length > 0) event.data = readData(mediaType, body);
  return event;
}

function readData(mediaType, body) {
  if (/[/+]json$/.test(mediaType)) return readJson(textOf(body), "the CloudEvent's data");
  return mediaType.startsWith('text/') ? textOf(body) : body;
}

function readJson(text, what) {
  try {
    return parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  } catch (error) {
    throw new BadRequest(`${what} is no JSON: ${error.message}`);
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
