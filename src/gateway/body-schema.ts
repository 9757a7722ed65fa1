import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ErrorObject, ValidateFunction } from 'ajv/dist/2020.js';
import type { CreateFunctionBody } from '../config/generated/create-function.ts';
import type { UpdateFunctionBody } from '../config/generated/update-function.ts';
import { FaasError } from '../errors.ts';

const SCHEMA_FILES = ['function-config', 'create-function', 'update-function'];

export interface BodySchemas {
  /** FaasError `bad_request` that names the member. */
  checkCreate(body: Record<string, unknown>): CreateFunctionBody;
  /** FaasError `bad_request` that names the member. */
  checkUpdate(body: Record<string, unknown>): UpdateFunctionBody;
}

/** Compiles the bodies' schemas; the only reads of files in the gateway, once. */
export function loadBodySchemas(): BodySchemas {
  const ajv = new Ajv2020({
    strict: true,
    allowUnionTypes: true,
    // `required` stands apart from `properties` in the schemas' `if` and `not`.
    strictRequired: false,
    // One error is enough: gathering all of them lets a small body cost much.
    allErrors: false,
    // Values with units are read when the revision is validated, which reports all of them with their place (422).
    formats: { 'faas-duration': true, 'faas-bytes': true, 'faas-cpu': true },
  });
  for (const name of SCHEMA_FILES) {
    const url = new URL(`../../schemas/${name}.schema.json`, import.meta.url);
    ajv.addSchema(JSON.parse(readFileSync(url, 'utf8')) as Record<string, unknown>);
  }
  const create = ajv.getSchema<CreateFunctionBody>('create-function.schema.json');
  const update = ajv.getSchema<UpdateFunctionBody>('update-function.schema.json');
  if (create === undefined || update === undefined)
    throw new FaasError('internal', { detail: 'A schema of the bodies is missing.' });
  return {
    checkCreate: (body) => check(create as ValidateFunction<CreateFunctionBody>, body),
    checkUpdate: (body) => check(update as ValidateFunction<UpdateFunctionBody>, body),
  };
}

function check<Body>(validate: ValidateFunction<Body>, body: unknown): Body {
  if (validate(body)) return body;
  const [error] = validate.errors ?? [];
  throw new FaasError('bad_request', {
    detail: `The body does not fit: ${error === undefined ? 'unknown reason' : describe(error)}.`,
  });
}

function describe(error: ErrorObject): string {
  const place = error.instancePath === '' ? 'the body' : `\`${error.instancePath}\``;
  if (error.keyword === 'additionalProperties') {
    return `${place} has the unknown member \`${String(error.params['additionalProperty']).slice(0, 100)}\``;
  }
  if (error.keyword === 'propertyNames') {
    return `${place} has a member of the name \`${String(error.params['propertyName']).slice(0, 100)}\`, which is not allowed`;
  }
  if (error.keyword === 'not') return 'it has both `code` and `files`';
  return `${place} ${error.message ?? error.keyword}`;
}
