import { FUNCTION_DEFAULTS, HANDLER_MODULE } from './defaults.ts';
import { HANDLER_EXTENSIONS, type RuntimeKind } from './runtimes.ts';

export interface HandlerName {
  /** Name of the handler's file without its extension. */
  readonly module: string;
  readonly callable: string;
  readonly problem?: string;
}

const IDENTIFIER = '[A-Za-z_][A-Za-z0-9_]*';
const FORMS = {
  python: new RegExp(`^(?:(${IDENTIFIER}(?:\\.${IDENTIFIER})*)\\.)?(${IDENTIFIER})$`),
  // A file's name is no identifier there, and people do write `send-mail.mjs`.
  node: /^(?:([A-Za-z0-9_$-]+(?:\.[A-Za-z0-9_$-]+)*)\.)?([A-Za-z_$][A-Za-z0-9_$]*)$/,
} as const satisfies Record<RuntimeKind, RegExp>;
const EXAMPLES = {
  python: 'write a callable of handler.py (handle), or module.callable (main.handle)',
  node: 'write an export of handler.mjs (handle), or file.export (main.handle) without the extension',
} as const satisfies Record<RuntimeKind, string>;

/** A handler that is refused is split all the same where that can be done: its file is then not missed as well. */
export function splitHandler(handler: string, kind: RuntimeKind): HandlerName {
  const shown = JSON.stringify(handler.slice(0, 60));
  const [, module = HANDLER_MODULE, callable = ''] = FORMS[kind].exec(handler) ?? [];
  if (callable === '') {
    return { module, callable: FUNCTION_DEFAULTS.handler, problem: `${shown} is not a handler; ${EXAMPLES[kind]}` };
  }
  const extensions: readonly string[] = HANDLER_EXTENSIONS[kind];
  if (extensions.includes(`.${callable}`)) {
    return { module, callable: FUNCTION_DEFAULTS.handler, problem: `${shown} names a file; did you mean ${module}.handle?` };
  }
  if (module.includes('.')) {
    const problem =
      kind === 'python'
        ? `${shown} is inside a package; name it in handler.py instead: from ${module} import ${callable} as handle`
        : `${shown} has more than one dot; write file.export without the extension, for a file right in the function's directory`;
    return { module, callable, problem };
  }
  return { module, callable };
}
