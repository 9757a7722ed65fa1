import { execFile } from 'node:child_process';
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { FaasError, printable } from '../errors.ts';
import { Git, GIT_ENVIRONMENT } from '../repo/git.ts';
import type { CommandIo } from './options.ts';
import { EXIT_FAILED, reportFailure } from './report.ts';
import { MODELINE, sampleConfig } from './sample-config.ts';

const run = promisify(execFile);
const SCHEMA_DIRECTORY = join(import.meta.dirname, '../../schemas');
/** What the modeline of the configuration needs. */
const SCHEMAS = ['faas-config.schema.json', 'function-config.schema.json'];

const HANDLER = `"""Greets the caller. Save an edit of this file, and the next call runs it."""


def handle(request):
    data = request.get_json(silent=True)
    name = data.get("name", "World") if isinstance(data, dict) else "World"
    return {"message": f"Hello, {name}!"}
`;

/** Makes a workspace that serves as it is: repository, sample configuration, one function, first commit. */
export async function init(options: { readonly directory: string }, io: CommandIo): Promise<number> {
  const directory = resolve(io.cwd, options.directory);
  const present = await entriesOf(directory);
  if (present.length > 0) {
    const detail = `${directory} is not empty; nothing was changed.`;
    reportFailure({ code: 'usage', detail, fix: 'Name a directory that is empty or does not exist yet.' }, io);
    return EXIT_FAILED;
  }
  await mkdir(directory, { recursive: true });
  await initRepository(directory);
  await mkdir(join(directory, 'functions/hello'), { recursive: true });
  await mkdir(join(directory, 'schemas'));
  await writeFile(join(directory, 'faas_config.yaml'), `${MODELINE}${sampleConfig(['hello'])}`);
  await writeFile(join(directory, 'functions/hello/handler.py'), HANDLER);
  await writeFile(join(directory, '.gitignore'), '.gitfaas/\n__pycache__/\n');
  for (const schema of SCHEMAS) await copyFile(join(SCHEMA_DIRECTORY, schema), join(directory, 'schemas', schema));

  const git = new Git(join(directory, '.git'), directory);
  const { name, email } = await identityOf(directory, io);
  const environment = { GIT_AUTHOR_NAME: name, GIT_AUTHOR_EMAIL: email, GIT_COMMITTER_NAME: name, GIT_COMMITTER_EMAIL: email };
  await git.run(['add', '--all']);
  await git.run(['commit', '--quiet', '--message', 'A workspace for gitfaas with one function'], { environment });

  const [serve, call] = [`gitfaas --workspace ${printable(options.directory)}`, `gitfaas invoke hello -d '{"name": "you"}'`];
  const width = Math.max(serve.length, call.length) + 4;
  io.stdout(
    `Made the workspace ${printable(directory)} with the function hello.\n\n` +
      `  ${serve.padEnd(width)}serves it\n  ${call.padEnd(width)}calls the function, from another terminal\n`,
  );
  return 0;
}

async function entriesOf(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new FaasError('usage', { detail: `${printable(directory)} cannot be a workspace (${code}).`, cause: error });
  }
}

/** Without templates, so that no sample hooks lie around; not through `Git`, whose --work-tree would be written down. */
async function initRepository(directory: string): Promise<void> {
  try {
    await run('git', ['init', '--quiet', '--template=', '--initial-branch=main', '.'], {
      cwd: directory,
      env: { ...GIT_ENVIRONMENT },
    });
  } catch (error) {
    throw new FaasError('git_failed', { detail: 'git init failed; git 2.30 or later must be installed.', cause: error });
  }
}

/** The user's own, from the user's own configuration; else one that says where the commit came from. */
async function identityOf(directory: string, io: CommandIo): Promise<{ readonly name: string; readonly email: string }> {
  const visible = ['PATH', 'HOME', 'XDG_CONFIG_HOME', 'GIT_CONFIG_GLOBAL', 'GIT_CONFIG_NOSYSTEM'].flatMap((variable) => {
    const value = io.env[variable];
    return value === undefined ? [] : [[variable, value] as const];
  });
  const env = { PATH: GIT_ENVIRONMENT['PATH'], ...Object.fromEntries(visible) };
  const read = async (key: string): Promise<string> => {
    // Exit code 1 means that the key is not set.
    const { stdout } = await run('git', ['config', '--get', key], { cwd: directory, env }).catch(() => ({ stdout: '' }));
    return stdout.trim();
  };
  const [name, email] = [await read('user.name'), await read('user.email')];
  return name === '' || email === '' ? { name: 'gitfaas', email: 'gitfaas@localhost' } : { name, email };
}
