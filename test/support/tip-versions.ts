import { loadConfig } from '../../src/config/load.ts';
import { declareRevision } from '../../src/registry/declare.ts';
import { listTree } from '../../src/repo/tree.ts';
import { openWorkspace } from '../../src/repo/workspace.ts';

/** What the committed tip of a workspace declares, without a daemon: version by function. */
export async function tipVersions(directory: string, configFile = 'faas_config.yaml'): Promise<Record<string, string>> {
  const workspace = await openWorkspace(directory);
  const entries = await listTree(workspace.git, 'HEAD');
  const text = await workspace.git.run(['cat-file', 'blob', `HEAD:${configFile}`]);
  const { config } = loadConfig(text.toString('utf8'), configFile, {
    flags: {},
    environment: {},
    workspaceRoot: workspace.root,
  });
  if (config === undefined) throw new Error('the configuration of the tip is not valid');
  const { revision } = declareRevision({ tree: 'HEAD', entries, config, configFile });
  return Object.fromEntries(Array.from(revision.functions.values(), ({ name, version }) => [name, version]));
}
