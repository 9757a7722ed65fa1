import { formatProblem, printable, type Problem } from '../errors.ts';
import { readDaemon } from './client.ts';
import type { ClientOptions, CommandIo } from './options.ts';
import { EXIT_FAILED } from './report.ts';

type Shown = Readonly<Record<string, unknown>>;

/** Whether what runs is what the workspace says; exit code 1 when it is not because somebody has to act. */
export async function status(options: ClientOptions, io: CommandIo): Promise<number> {
  const answer = await readDaemon(options, io, '/status');
  if (answer === undefined) return EXIT_FAILED;
  const problems = listOf<Problem>(answer, 'problems');
  const refusedEdits = listOf<string>(answer, 'refused_edits');
  const restartFor = listOf<string>(answer, 'restart_needed_for');
  const lines = [
    `state     ${String(answer['state'])}: ${String(answer['message'] ?? '')}`,
    `branch    ${String(answer['served_ref'] ?? 'none')}`,
    `applied   ${revisionOf(answer['applied'])}${typeof answer['applied_at'] === 'string' ? ` since ${answer['applied_at']}` : ''}`,
  ];
  if (revisionOf(answer['desired']) !== revisionOf(answer['applied'])) lines.push(`desired   ${revisionOf(answer['desired'])}`);
  if (answer['dirty'] === true) lines.push(`edits     ${listOf<string>(answer, 'dirty_paths').join(', ') || 'uncommitted'}`);
  if (refusedEdits.length > 0) lines.push(`refused   ${refusedEdits.join(', ')}`);
  if (restartFor.length > 0) lines.push(`restart   needed for ${restartFor.join(', ')}`);
  for (const problem of problems) lines.push(`problem   ${formatProblem(problem)}`);
  io.stdout(`${lines.map(printable).join('\n')}\n`);
  const isStuck = answer['state'] === 'rejected' || answer['state'] === 'held' || problems.length + refusedEdits.length > 0;
  return isStuck ? EXIT_FAILED : 0;
}

function listOf<Item>(answer: Shown, name: string): readonly Item[] {
  return Array.isArray(answer[name]) ? (answer[name] as Item[]) : [];
}

/** The commit, or the tree of edits that no commit holds. */
function revisionOf(revision: unknown): string {
  if (typeof revision !== 'object' || revision === null) return 'nothing';
  const { commit, tree } = revision as Shown;
  return typeof commit === 'string' ? `commit ${commit.slice(0, 12)}` : `edited files (tree ${String(tree).slice(0, 12)})`;
}
