import { parseArgs } from 'node:util';
import { parsePort } from '../config/environment.ts';
import { SCOPES, type Scope } from '../config/spec.ts';
import { didYouMean } from '../config/suggest.ts';
import { FaasError } from '../errors.ts';

/** What a command meets of the outside; `main.ts` passes the real one in. */
export interface CommandIo {
  readonly stdout: (text: string | Uint8Array) => void;
  readonly stderr: (text: string) => void;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Absolute. */
  readonly cwd: string;
}

/** Which workspace, and which configuration file in it; undefined: the default. */
interface WorkspaceFlags {
  readonly workspace: string | undefined;
  readonly config: string | undefined;
}

/** Which daemon to talk to; undefined: from the environment, else the default. */
export interface ClientOptions {
  readonly url: string | undefined;
  readonly key: string | undefined;
}

export type Command =
  | { readonly command: 'serve'; readonly options: ServeFlags }
  | { readonly command: 'check' | 'check-system' | 'create-config'; readonly options: WorkspaceFlags }
  | { readonly command: 'init'; readonly options: { readonly directory: string } }
  | { readonly command: 'keys'; readonly options: KeyFlags }
  | { readonly command: 'list' | 'status'; readonly options: ClientOptions }
  | { readonly command: 'invoke'; readonly options: InvokeFlags }
  | { readonly command: 'help'; readonly options: { readonly topic: CommandName | undefined } }
  | { readonly command: 'version'; readonly options: Readonly<Record<never, never>> };

interface ServeFlags extends WorkspaceFlags {
  readonly host: string | undefined;
  readonly port: number | undefined;
  readonly debug: boolean;
}

export interface KeyFlags extends WorkspaceFlags {
  readonly name: string;
  /** At least one. */
  readonly scopes: readonly Scope[];
}

export interface InvokeFlags extends ClientOptions {
  readonly name: string;
  /** JSON, or `@file`; undefined: no body. */
  readonly data: string | undefined;
}

export const COMMAND_NAMES = ['serve', 'check', 'init', 'keys', 'list', 'invoke', 'status', 'help', 'version'] as const;
export type CommandName = (typeof COMMAND_NAMES)[number];

interface Flag {
  readonly type: 'string' | 'boolean';
  readonly short?: string;
  readonly multiple?: boolean;
  readonly commands: readonly CommandName[];
}

const FLAGS: Readonly<Record<string, Flag>> = {
  config: { type: 'string', short: 'c', commands: ['serve', 'check', 'keys'] },
  workspace: { type: 'string', commands: ['serve', 'check', 'keys'] },
  host: { type: 'string', commands: ['serve'] },
  port: { type: 'string', commands: ['serve'] },
  debug: { type: 'boolean', commands: ['serve'] },
  'check-system': { type: 'boolean', commands: ['serve'] },
  'create-config': { type: 'boolean', commands: ['serve'] },
  url: { type: 'string', commands: ['list', 'invoke', 'status'] },
  key: { type: 'string', commands: ['list', 'invoke', 'status'] },
  data: { type: 'string', short: 'd', commands: ['invoke'] },
  scope: { type: 'string', multiple: true, commands: ['keys'] },
  help: { type: 'boolean', short: 'h', commands: COMMAND_NAMES },
  version: { type: 'boolean', short: 'v', commands: ['serve'] },
};

/** Reads the arguments after the program's name. Throws FaasError `usage` for everything that is not understood. */
export function parseOptions(args: readonly string[]): Command {
  const { values, positionals, tokens } = parseArgs({
    args: [...args],
    options: { ...FLAGS },
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  // First, since the value of a misspelt flag looks like a command.
  for (const token of tokens) if (token.kind === 'option') knownFlag(token.name, token.rawName);
  const [first = 'serve', ...rest] = positionals;
  const command = COMMAND_NAMES.find((name) => name === first);
  if (command === undefined) throw usage(`There is no command ${quote(first)}${didYouMean(first, COMMAND_NAMES) || '.'}`);
  checkFlags(tokens, command);
  const text = (name: string): string | undefined => values[name] as string | undefined;

  if (values['help'] === true)
    return { command: 'help', options: { topic: first === 'serve' && positionals.length === 0 ? undefined : command } };
  const workspaceFlags = { workspace: text('workspace'), config: text('config') };
  const clientOptions = { url: text('url'), key: text('key') };
  switch (command) {
    case 'serve': {
      expect(rest, [], 'serve');
      if (values['version'] === true) return { command: 'version', options: {} };
      if (values['check-system'] === true) return { command: 'check-system', options: workspaceFlags };
      if (values['create-config'] === true) return { command: 'create-config', options: workspaceFlags };
      return {
        command,
        options: {
          ...workspaceFlags,
          host: readHost(text('host')),
          port: readPort(text('port')),
          debug: values['debug'] === true,
        },
      };
    }
    case 'check': {
      const [directory] = expect(rest, ['[DIR]'], command);
      if (directory !== undefined && workspaceFlags.workspace !== undefined)
        throw usage('Name the workspace once: as DIR or with --workspace.');
      return { command, options: { ...workspaceFlags, workspace: directory ?? workspaceFlags.workspace } };
    }
    case 'init': {
      const [directory = ''] = expect(rest, ['DIR'], command);
      return { command, options: { directory } };
    }
    case 'keys': {
      const [action = '', name = ''] = expect(rest, ['create', 'NAME'], command);
      if (action !== 'create') throw usage(`\`gitfaas keys\` knows only \`create\`, not ${quote(action)}.`);
      return { command, options: { ...workspaceFlags, name, scopes: readScopes(values['scope'] as string[] | undefined) } };
    }
    case 'list':
    case 'status':
      expect(rest, [], command);
      return { command, options: clientOptions };
    case 'invoke': {
      const [name = ''] = expect(rest, ['NAME'], command);
      return { command, options: { ...clientOptions, name, data: text('data') } };
    }
    case 'help': {
      const [topic] = expect(rest, ['[COMMAND]'], command);
      const found = COMMAND_NAMES.find((candidate) => candidate === topic);
      if (topic !== undefined && found === undefined)
        throw usage(`There is no command ${quote(topic)}${didYouMean(topic, COMMAND_NAMES) || '.'}`);
      return { command, options: { topic: found } };
    }
    case 'version':
      expect(rest, [], command);
      return { command, options: {} };
  }
}

/** What `parseArgs` tells about one argument; the last four belong to options. */
interface Token {
  readonly kind: string;
  readonly name?: string;
  readonly rawName?: string;
  readonly value?: string | undefined;
  readonly inlineValue?: boolean | undefined;
}

/** What `parseArgs` lets pass: flags of other commands, missing or needless values, repetition. */
function checkFlags(tokens: readonly Token[], command: CommandName): void {
  const seen = new Set<string>();
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    const { name = '', rawName = '', value } = token;
    const flag = knownFlag(name, rawName);
    if (!flag.commands.includes(command))
      throw usage(`\`gitfaas ${command}\` has no flag ${rawName}; it belongs to ${flag.commands.join(', ')}.`);
    if (flag.type === 'boolean' && value !== undefined) throw usage(`${rawName} takes no value.`);
    // A value may start with `-` (a negative number is JSON), but not look like the next flag.
    const isMissing = value === undefined || (token.inlineValue === false && /^--?[A-Za-z]/.test(value));
    if (flag.type === 'string' && isMissing) throw usage(`${rawName} needs a value.`);
    if (flag.type === 'string' && value === '') throw usage(`The value of ${rawName} is empty.`);
    if (seen.has(name) && flag.multiple !== true) throw usage(`${rawName} is there twice.`);
    seen.add(name);
  }
}

function knownFlag(name: string, rawName: string): Flag {
  const flag = Object.hasOwn(FLAGS, name) ? FLAGS[name] : undefined;
  if (flag !== undefined) return flag;
  const known = Object.keys(FLAGS).map((candidate) => `--${candidate}`);
  throw usage(`There is no flag ${quote(rawName)}${didYouMean(rawName, known) || '.'}`);
}

/** The words after the command, which must be as many as `names` (those in brackets may be missing). */
function expect(words: readonly string[], names: readonly string[], command: CommandName): readonly string[] {
  const missing = names[words.length];
  if (missing !== undefined && !missing.startsWith('[')) throw usage(`\`gitfaas ${command}\` needs ${names.join(' ')}.`);
  const extra = words[names.length];
  if (extra !== undefined) throw usage(`\`gitfaas ${command}\` takes no ${quote(extra)}.`);
  if (words.includes('')) throw usage('An argument is empty.');
  return words;
}

function readPort(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const port = parsePort(text);
  if (port === undefined) throw usage(`--port ${quote(text)} is not a port from 0 to 65535.`);
  return port;
}

function readHost(text: string | undefined): string | undefined {
  if (text !== undefined && !/^[A-Za-z0-9._:%-]{1,253}$/.test(text))
    throw usage(`--host ${quote(text)} is not an address or a host name.`);
  return text;
}

/** `--scope invoke,manage` and `--scope invoke --scope manage`; the least when none is named. */
function readScopes(texts: readonly string[] | undefined): readonly Scope[] {
  const words = (texts ?? ['invoke']).flatMap((text) => text.split(','));
  for (const word of words) {
    if (!SCOPES.some((scope) => scope === word)) {
      throw usage(`${quote(word)} is not a scope: they are ${SCOPES.join(', ')}${didYouMean(word, SCOPES) || '.'}`);
    }
  }
  return SCOPES.filter((scope) => words.includes(scope));
}

function usage(detail: string): FaasError {
  return new FaasError('usage', { detail });
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 60));
}
