import { checkSystem } from './cli/check-system.ts';
import { check } from './cli/check.ts';
import { createConfig } from './cli/create-config.ts';
import { help } from './cli/help.ts';
import { init } from './cli/init.ts';
import { invoke } from './cli/invoke.ts';
import { createKey } from './cli/keys.ts';
import { list } from './cli/list.ts';
import { parseOptions, type Command, type CommandIo } from './cli/options.ts';
import { reportError } from './cli/report.ts';
import { serve } from './cli/serve.ts';
import { status } from './cli/status.ts';
import { version } from './cli/version.ts';

/** The only file that touches argv, the environment, signals and the exit. */

const io: CommandIo = {
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  env: process.env,
  cwd: process.cwd(),
};

async function run(command: Command, stop: AbortSignal): Promise<number> {
  switch (command.command) {
    case 'serve':
      return await serve(command.options, io, stop);
    case 'check':
      return await check(command.options, io);
    case 'check-system':
      return await checkSystem(io);
    case 'create-config':
      return await createConfig(command.options, io);
    case 'init':
      return await init(command.options, io);
    case 'keys':
      return await createKey(command.options, io);
    case 'list':
      return await list(command.options, io);
    case 'invoke':
      return await invoke(command.options, io);
    case 'status':
      return await status(command.options, io);
    case 'help':
      return help(command.options, io);
    case 'version':
      return version(io, process.version);
  }
}

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // The second time somebody is in a hurry: the launchers see the end of their control sockets and kill every instance.
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  });
}
// A reader that closed its end (`gitfaas list | head`) is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

try {
  process.exitCode = await run(parseOptions(process.argv.slice(2)), stop.signal);
} catch (error) {
  process.exitCode = reportError(error, io);
}
