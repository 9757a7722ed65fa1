/** `req.body` as Google's functions framework gives it: by the content type, with `req.rawBody` beside it. */
import { readFields } from './form-fields.mjs';
import { baseOf } from './media-types.mjs';
import { parse } from './originals.mjs';
import { BadRequest } from './request.mjs';

/** Of a compressed body; the gateway bounds only what is sent. */
const INFLATED_MAX_BYTES = 64 << 20;
/** Names of functions of node:zlib, which is loaded for the first compressed body. */
const DECODERS = {
  gzip: 'gunzipSync',
  'x-gzip': 'gunzipSync',
  deflate: 'inflateSync',
  br: 'brotliDecompressSync',
  zstd: 'zstdDecompressSync',
};

/** Gives {body, rawBody}. Throws BadRequest for a body that isn't what its headers say. */
export function parseBody(headers, sent) {
  const rawBody = inflate(headers.get('content-encoding'), sent);
  const contentType = headers.get('content-type') ?? '';
  if (rawBody.length === 0) return { body: {}, rawBody };
  return { body: readBody(rawBody, contentType), rawBody };
}

function readBody(bytes, contentType) {
  const mediaType = baseOf(contentType);
  if (mediaType === 'application/json' || mediaType === 'application/cloudevents+json')
    return readJson(toText(bytes, contentType));
  if (mediaType === 'text/plain') return toText(bytes, contentType);
  return mediaType === 'application/x-www-form-urlencoded' ? readFields(toText(bytes, contentType)) : bytes;
}

/** Only objects and arrays, as the framework's parser has it. */
function readJson(text) {
  if (!/^[\x20\t\n\r]*[[{]/.test(text)) throw new BadRequest('the body is no JSON object or array');
  try {
    return parse(text);
  } catch (error) {
    throw new BadRequest(`the body is no JSON: ${error.message}`);
  }
}

function toText(bytes, contentType) {
  const charset = /;\s*charset\s*=\s*"?([^\s";]+)/i.exec(contentType)?.[1] ?? 'utf-8';
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    throw new BadRequest(`the body's charset ${charset} is not known`);
  }
}

function inflate(encoding, bytes) {
  if (encoding === null || encoding === '' || encoding.toLowerCase() === 'identity') return bytes;
  const decode = Object.hasOwn(DECODERS, encoding.toLowerCase()) ? DECODERS[encoding.toLowerCase()] : undefined;
  if (decode === undefined) throw new BadRequest(`the body's encoding ${encoding} is not known`);
  try {
    return process.getBuiltinModule('node:zlib')[decode](bytes, { maxOutputLength: INFLATED_MAX_BYTES });
  } catch (error) {
    throw new BadRequest(`the body can't be decoded as ${encoding}: ${error.message}`);
  }
}
