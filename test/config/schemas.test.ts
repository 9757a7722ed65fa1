import test from 'ava';
import { readdir, readFile } from 'node:fs/promises';
import faasConfigSchema from '../../schemas/faas-config.schema.json' with { type: 'json' };
import functionConfigSchema from '../../schemas/function-config.schema.json' with { type: 'json' };
import updateFunctionSchema from '../../schemas/update-function.schema.json' with { type: 'json' };
import { generateTypes, staleTypes } from '../../scripts/codegen.ts';
import { renderReference } from '../../scripts/config-reference.ts';
import { FUNCTION_DEFAULTS, SYSTEM_DEFAULTS } from '../../src/config/defaults.ts';
import { loadConfig } from '../../src/config/load.ts';
import { readCreateBody, readUpdateBody } from '../../src/config/validate.ts';
import { FaasError } from '../../src/errors.ts';

test('the generated types are those that the schemas give, byte for byte', async (t) => {
  t.deepEqual(await staleTypes(), []);
  const schemas = (await readdir(new URL('../../schemas/', import.meta.url))).filter((file) => file.endsWith('.json'));
  t.is((await generateTypes()).size, schemas.length);
});

test('the configuration reference in README.md is the one that the schemas give', async (t) => {
  const { current, wanted } = await renderReference();
  t.is(current, wanted);
});

test('the defaults that the schemas tell are the ones that hold', (t) => {
  const told = (properties: object) =>
    Object.fromEntries(
      Object.entries(properties).flatMap(([key, { default: value }]) => (value === undefined ? [] : [[key, value]])),
    );
  const system = told(faasConfigSchema.$defs.system.properties);
  const written = told(functionConfigSchema.$defs);
  const text = JSON.stringify({ system, functions: { written } });
  const inputs = { flags: {}, environment: {}, workspaceRoot: '/w' };
  const { config, problems } = loadConfig(text, 'f', inputs);
  t.deepEqual(problems, []);
  t.deepEqual(config?.system, { ...SYSTEM_DEFAULTS, functionStoragePath: `/w/${SYSTEM_DEFAULTS.functionStoragePath}` });
  t.deepEqual({ ...config?.specFor('written'), name: '' }, { ...config?.specFor('unwritten'), name: '' });
  const untold = Object.keys(SYSTEM_DEFAULTS).length - Object.keys(system).length;
  t.is(untold, 0, 'every default of the system section is told');
  t.is(functionConfigSchema.$defs.handler.default, FUNCTION_DEFAULTS.handler);
});

test('every key says what it is, and no map takes keys that the schema does not name', async (t) => {
  const visit = (schema: unknown, path: string): void => {
    if (typeof schema !== 'object' || schema === null) return;
    if (Array.isArray(schema)) return schema.forEach((part, index) => visit(part, `${path}/${index}`));
    const { type, properties, additionalProperties } = schema as Record<string, unknown>;
    if ([type].flat().includes('object'))
      t.true(additionalProperties === false || typeof additionalProperties === 'object', path);
    for (const [key, property] of Object.entries((properties ?? {}) as Record<string, object>)) {
      const isTold =
        typeof property !== 'object' ||
        '$ref' in property ||
        'anyOf' in property ||
        'description' in property ||
        key === 'base64';
      t.true(isTold, `${path}/${key} has a description`);
    }
    for (const [key, part] of Object.entries(schema)) visit(part, `${path}/${key}`);
  };
  const directory = new URL('../../schemas/', import.meta.url);
  for (const file of await readdir(directory)) visit(JSON.parse(await readFile(new URL(file, directory), 'utf8')), file);
});

test('an update may change every key that an entry has', (t) => {
  t.deepEqual(Object.keys(updateFunctionSchema.properties.config.properties), Object.keys(functionConfigSchema.properties));
});

test('bodies of the management calls are read', (t) => {
  const creations = [
    { name: 'a', code: 'def handle(request): pass' },
    {
      name: 'a',
      files: { 'handler.py': 'x', 'pkg/data.bin': { base64: 'AAE=' } },
      config: { timeout: '5m', cpu_limit: 0.5, dependencies: [] },
    },
  ];
  for (const body of creations) t.is(readCreateBody(body), body);
  const updates = [
    {},
    { code: 'x' },
    { files: { 'a.py': null } },
    { config: { timeout: null, environment: { A: null, B: 'x' } } },
    { config: { environment: null } },
  ];
  for (const body of updates) t.is(readUpdateBody(body), body);
});

const REFUSED: readonly (readonly [read: (value: unknown) => unknown, body: unknown, detail: string])[] = [
  [readCreateBody, [], 'The body must be a JSON object.'],
  [readCreateBody, { code: 'x' }, 'The body: the key name is missing.'],
  [readCreateBody, { name: 'a' }, 'The body: give the code: `code` or `files`.'],
  [readCreateBody, { name: 'a', code: '', files: { a: '' } }, 'The body: `code` and `files` cannot be given together.'],
  [
    readCreateBody,
    { name: '../x', code: '' },
    '`name` in the body: "../x" is not allowed here: 1 to 63 of a-z, 0-9 and -, starting with a letter and not ending with -.',
  ],
  [readCreateBody, { name: 'a', code: '', confg: {} }, '`confg` in the body: unknown key "confg"; did you mean config?'],
  [
    readCreateBody,
    { name: 'a', code: '', config: { memory: '100m' } },
    '`config.memory` in the body: "100m" is not a size: the units are Ki, Mi, Gi and Ti; did you mean 100Mi?',
  ],
  [
    readCreateBody,
    { name: 'a', files: { '../x': '' } },
    '`files.../x` in the body: the name "../x" is not allowed: Relative to the function\'s directory, `/` separated, without empty, `.` or `..` parts.',
  ],
  [readCreateBody, { name: 'a', files: { a: 5 } }, '`files.a` in the body: 5 must be a text or a map; write it in quotes: "5".'],
  [readCreateBody, { name: 'a', files: { a: { base64: '!' } } }, '`files.a.base64` in the body: "!" is not allowed here.'],
  [readUpdateBody, { name: 'a' }, '`name` in the body: unknown key "name".'],
  [
    readUpdateBody,
    { config: { timeout: [] } },
    '`config.timeout` in the body: [] is not a duration: write seconds as a number, or a text like 500ms, 30s or 5m.',
  ],
  [
    readUpdateBody,
    { config: { max_instances: 0 } },
    '`config.max_instances` in the body: must be at least 1; 0 does not mean unlimited.',
  ],
  [readUpdateBody, { files: null }, '`files` in the body: has no value; give one, or leave it out.'],
];

for (const [read, body, detail] of REFUSED) {
  test(`${read.name} refuses ${JSON.stringify(body)}`, (t) => {
    const error = t.throws(() => read(body), { instanceOf: FaasError });
    t.is(error?.code, 'bad_request');
    t.is(error?.detail, detail);
  });
}
