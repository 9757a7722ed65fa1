import { FUNCTION_DEFAULTS } from '../config/defaults.ts';
import type { CreateFunctionBody } from '../config/generated/create-function.ts';
import type { UpdateFunctionBody } from '../config/generated/update-function.ts';
import { HANDLER_EXTENSIONS, runtimeKind } from '../config/runtimes.ts';
import { FaasError, printable } from '../errors.ts';
import type { DeclaredFunction } from '../registry/revision.ts';

/** What a management call wants of one function's files: a path below the function -> its new bytes, or null to delete it. */
export type FileEdits = ReadonlyMap<string, Uint8Array | null>;

const PATH_MAX_BYTES = 512;

/**
 * `code` (the file that holds the handler) and `files` of a body as edits.
 *
 * @param handlerFile path below the function that `code` stands for
 * @throws FaasError `bad_request` for a path that leaves the function or that git would not take, or text that UTF-8 cannot hold
 */
export function fileEdits(
  body: Pick<CreateFunctionBody, 'code' | 'files'> | Pick<UpdateFunctionBody, 'code' | 'files'>,
  handlerFile: string,
): FileEdits {
  const edits = new Map<string, Uint8Array | null>();
  if (typeof body.code === 'string') edits.set(handlerFile, encodeText('code', body.code));
  for (const [path, content] of Object.entries(body.files ?? {})) {
    requireFilePath(path);
    if (edits.has(path)) throw new FaasError('bad_request', { detail: `\`code\` and \`files\` both give ${printable(path)}.` });
    if (content === null || content === undefined) edits.set(path, null);
    else if (typeof content === 'string') edits.set(path, encodeText(path, content));
    else edits.set(path, decodeBase64(path, content.base64));
  }
  return edits;
}

/** Path inside a function of the file that `code` of an update stands for: the present one, unless the same body names another. */
export function handlerFileAfter(declared: DeclaredFunction | undefined, config: UpdateFunctionBody['config']): string {
  if (declared === undefined) return handlerFileOf(config?.handler, config?.runtime);
  const { name, spec, handlerFile } = declared;
  const handler = config?.handler === undefined ? `${spec.handlerModule}.${spec.handlerCallable}` : config.handler;
  const runtime = config?.runtime === undefined ? spec.runtime : (config.runtime ?? FUNCTION_DEFAULTS.runtime);
  const isSameFile = config?.handler === undefined && runtimeKind(runtime) === runtimeKind(spec.runtime);
  return isSameFile ? handlerFile.slice(`functions/${name}/`.length) : handlerFileOf(handler, runtime);
}

/** Path inside a new function of the file in which `handler` (`callable` or `module.callable`) is looked for. */
export function handlerFileOf(handler: unknown, runtime: unknown): string {
  const module = typeof handler === 'string' && handler.includes('.') ? handler.slice(0, handler.lastIndexOf('.')) : 'handler';
  const kind = runtimeKind(typeof runtime === 'string' ? runtime : FUNCTION_DEFAULTS.runtime);
  return `${module.replaceAll('.', '/')}${HANDLER_EXTENSIONS[kind][0]}`;
}

function requireFilePath(path: string): void {
  const isPlain = path
    .split('/')
    .every((part) => part !== '' && part !== '.' && part !== '..' && !/^\.git$|^git~\d+$/i.test(part));
  const isPrintable = !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\\]/u.test(path) && path.isWellFormed();
  if (isPlain && isPrintable && Buffer.byteLength(path) <= PATH_MAX_BYTES) return;
  throw new FaasError('bad_request', {
    detail: `\`files\` names the path ${JSON.stringify(printable(path))}, which is not a plain relative path inside the function.`,
  });
}

/** Half a surrogate pair, which JSON can hold and UTF-8 cannot: an encoder would store another character instead. */
function encodeText(name: string, text: string): Uint8Array {
  if (!text.isWellFormed())
    throw new FaasError('bad_request', { detail: `The text of ${printable(name)} holds half a surrogate pair.` });
  return Buffer.from(text, 'utf8');
}

function decodeBase64(path: string, text: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64');
  // Buffer skips what is not base64; a decoder that guesses would store other bytes than were meant.
  if (bytes.toString('base64').replace(/=+$/, '') !== text.replace(/=+$/, '')) {
    throw new FaasError('bad_request', { detail: `\`files\` gives ${printable(path)} in something that is not base64.` });
  }
  return bytes;
}
