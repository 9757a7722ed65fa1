import { readFile, readdir, writeFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { compileFromFile } from 'json-schema-to-typescript';
import { renderReference, writeReference } from './config-reference.ts';

const schemaDirectory = join(import.meta.dirname, '../schemas');
const generatedDirectory = join(import.meta.dirname, '../src/config/generated');

/** The TypeScript file of every schema, by file name; touches no file. */
export async function generateTypes(): Promise<Map<string, string>> {
  const generated = new Map<string, string>();
  const schemas = (await readdir(schemaDirectory)).filter((file) => file.endsWith('.schema.json')).sort();
  for (const schema of schemas) {
    const text = await compileFromFile(join(schemaDirectory, schema), {
      cwd: schemaDirectory,
      bannerComment: `/** Made by \`npm run codegen\` from schemas/${schema}: change that, not this. */`,
      additionalProperties: false,
      style: { singleQuote: true, printWidth: 130 },
    });
    generated.set(schema.replace('.schema.json', '.ts'), text);
  }
  return generated;
}

/** Names of generated files that are missing, differ by a byte, or have no schema any more. */
export async function staleTypes(): Promise<string[]> {
  const generated = await generateTypes();
  const present = await readdir(generatedDirectory).catch((): string[] => []);
  const stale = present.filter((file) => !generated.has(file));
  for (const [file, text] of generated) {
    const current = await readFile(join(generatedDirectory, file), 'utf8').catch(() => undefined);
    if (current !== text) stale.push(file);
  }
  return stale;
}

if (import.meta.main) {
  if (process.argv.includes('--check')) {
    const stale = await staleTypes();
    for (const file of stale) console.error(`src/config/generated/${file} does not match schemas/: run \`npm run codegen\``);
    const reference = await renderReference();
    if (reference.current !== reference.wanted) console.error('README.md does not match schemas/: run `npm run codegen`');
    process.exitCode = stale.length === 0 && reference.current === reference.wanted ? 0 : 1;
  } else {
    await mkdir(generatedDirectory, { recursive: true });
    for (const [file, text] of await generateTypes()) await writeFile(join(generatedDirectory, file), text);
    await writeReference();
  }
}
