import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import faasConfigSchema from '../schemas/faas-config.schema.json' with { type: 'json' };
import functionConfigSchema from '../schemas/function-config.schema.json' with { type: 'json' };

const page = join(import.meta.dirname, '../README.md');
const BEGIN = '<!-- made by `npm run codegen` from schemas/: change those, not this -->';
const END = '<!-- end of the made part -->';

interface Described {
  readonly default?: unknown;
  readonly description?: string;
}

/** README.md with its configuration reference made anew from the schemas; touches no file. */
export async function renderReference(): Promise<{ readonly current: string; readonly wanted: string }> {
  const current = await readFile(page, 'utf8');
  const [before, rest] = current.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) throw new Error('README.md has lost the marks of its made part');
  const system = table('system', faasConfigSchema.$defs.system.properties);
  const functions = table('functions.<name>', functionConfigSchema.$defs);
  return { current, wanted: `${before}${BEGIN}\n\n${system}\n${functions}\n${END}${after}` };
}

export async function writeReference(): Promise<void> {
  await writeFile(page, (await renderReference()).wanted);
}

function table(section: string, keys: Readonly<Record<string, Described>>): string {
  const rows = Object.entries(keys).map(([key, { default: value, description }]) => {
    const shown = value === undefined ? '' : `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;
    return `| \`${key}\` | ${shown} | ${(description ?? '').replaceAll('|', '\\|')} |`;
  });
  return [`| \`${section}\` | default | |`, '|---|---|---|', ...rows, ''].join('\n');
}
