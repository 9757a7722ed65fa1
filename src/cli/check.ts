import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatProblem } from '../errors.ts';
import { Validator } from '../reconcile/validate.ts';
import { readFromDirectories } from '../repo/object-directories.ts';
import { ObjectReader } from '../repo/object-reader.ts';
import { takeSnapshot } from '../repo/snapshot.ts';
import { openWorkspace } from '../repo/workspace.ts';
import { checkSources } from '../runtimes/process/source-check.ts';
import { locateConfig, type WorkspaceOptions } from './locate-config.ts';
import type { CommandIo } from './options.ts';

/**
 * Validates the files on disk exactly as the daemon would, without starting anything and without a trace in the
 * repository. Exit code 1 and all problems on standard output when they are not valid.
 */
export async function check(options: WorkspaceOptions, io: CommandIo): Promise<number> {
  const { workspaceDirectory, configFile } = locateConfig(options, io);
  const workspace = await openWorkspace(workspaceDirectory);
  const objectDirectory = await mkdtemp(join(tmpdir(), 'gitfaas-check-'));
  try {
    const environment = readFromDirectories([objectDirectory]);
    const configInputs = { flags: {}, environment: io.env, workspaceRoot: workspace.root };
    const validator = new Validator({ workspace, configFile, configInputs, checkSources });
    const { tree } = await takeSnapshot(workspace, { objectDirectory, configFile });
    await using reader = new ObjectReader(workspace.git, { environment });
    const { problems, revision } = await validator.validate(tree, { reader, environment });
    for (const problem of problems) io.stdout(`${formatProblem(problem)}\n`);
    if (problems.length > 0) {
      io.stderr(`gitfaas: ${problems.length} problem${problems.length === 1 ? '' : 's'}\n`);
      return 1;
    }
    const count = revision?.functions.size ?? 0;
    io.stdout(`valid: ${count} function${count === 1 ? '' : 's'}\n`);
    return 0;
  } finally {
    await rm(objectDirectory, { recursive: true, force: true });
  }
}
