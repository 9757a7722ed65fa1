import type { CommandIo, CommandName } from './options.ts';

const WORKSPACE_FLAGS = `  --workspace DIR        the workspace; default: the current directory
  -c, --config FILE      configuration in the workspace; default: FAAS_CONFIG_FILE, else faas_config.yaml`;

const CLIENT_FLAGS = `  --url URL              the daemon; default: FAAS_URL, else http://127.0.0.1 and FAAS_API_PORT or 8000
  --key KEY              default: FAAS_KEY (other users cannot see it there), else demo-key`;

const OVERVIEW = `gitfaas: functions as a service from a Git repository

  gitfaas [serve]              serve a workspace
  gitfaas check [DIR]          validate a workspace; exit code 1 with all problems
  gitfaas init DIR             make a workspace with one function
  gitfaas keys create NAME     make an API key
  gitfaas list                 functions of a running daemon
  gitfaas invoke NAME          call a function
  gitfaas status               is what runs what the workspace says?
  gitfaas help [COMMAND]       this, or more about a command
  gitfaas version

  gitfaas --check-system       what this host has and lacks for isolation, and how to fix it
  gitfaas --create-config      write a commented faas_config.yaml, never over an existing one

Exit codes: 0 done, 1 failed (the reason is on standard error), 2 the command line is not understood.
Environment of the daemon: FAAS_CONFIG_FILE, FAAS_DEFAULT_MODE (process), FAAS_API_PORT, FAAS_LOG_LEVEL,
FAAS_DISABLE_CONTAINER (1 refuses container mode on this host). The command line wins over it, it wins over the file.
`;

const TOPICS: Readonly<Record<CommandName, string>> = {
  serve: `gitfaas [serve] [flags]: serves a workspace until SIGTERM or Ctrl-C, then finishes running calls

${WORKSPACE_FLAGS}
  --host HOST            address to listen on; other than loopback needs a key
  --port PORT            port to listen on; 0 picks a free one
  --debug                log level DEBUG, tracebacks in answers
  --check-system         only tell what this host has and lacks
  --create-config        only write a commented sample configuration
`,
  check: `gitfaas check [DIR] [flags]: validates the files as they are, as the daemon would, and starts nothing

${WORKSPACE_FLAGS}

Prints every problem as file:line:column: message; exit code 1 when there is one.
`,
  init: `gitfaas init DIR: makes a workspace in an empty or new directory

A Git repository on branch main with faas_config.yaml, its schemas for your editor, functions/hello, and a first commit.
`,
  keys: `gitfaas keys create NAME [--scope SCOPE]... [flags]: makes an API key

  --scope SCOPE          invoke (default), manage, admin; repeat it, or separate by commas
${WORKSPACE_FLAGS}

The key goes to standard output, once; its SHA-256 is appended to auth.keys.
`,
  list: `gitfaas list [flags]: the functions of a running daemon

${CLIENT_FLAGS}
`,
  invoke: `gitfaas invoke NAME [-d JSON | -d @FILE] [flags]: calls a function, prints its answer

  -d, --data JSON        body of the call; @FILE reads it from a file; default: no body
${CLIENT_FLAGS}

Exit code 1 when the answer's status is an error.
`,
  status: `gitfaas status [flags]: what is applied, from which commit, and every problem that keeps something from being applied

${CLIENT_FLAGS}

Exit code 1 when somebody has to act.
`,
  help: OVERVIEW,
  version: `gitfaas version: prints the version\n`,
};

/** How to use all of it, or one command. */
export function help(options: { readonly topic: CommandName | undefined }, io: Pick<CommandIo, 'stdout'>): number {
  io.stdout(options.topic === undefined ? OVERVIEW : TOPICS[options.topic]);
  return 0;
}
