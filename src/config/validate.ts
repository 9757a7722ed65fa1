import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import createFunctionSchema from '../../schemas/create-function.schema.json' with { type: 'json' };
import faasConfigSchema from '../../schemas/faas-config.schema.json' with { type: 'json' };
import functionConfigSchema from '../../schemas/function-config.schema.json' with { type: 'json' };
import updateFunctionSchema from '../../schemas/update-function.schema.json' with { type: 'json' };
import { FaasError } from '../errors.ts';
import { explain, FORMATS } from './explain.ts';
import type { CreateFunctionBody } from './generated/create-function.ts';
import type { UpdateFunctionBody } from './generated/update-function.ts';
import { isObject } from './merge-patch.ts';
import type { Fault } from './parse.ts';

export interface Shape {
  /** One for each mistake. */
  readonly faults: readonly Fault[];
  /** Whether every mistake is among them; if not, the value cannot be trusted apart from the places of the faults. */
  readonly isComplete: boolean;
}

/** Everything that is wrong with the shape of a configuration file's value. */
export function validateConfig(value: unknown): Shape {
  const validate = configValidator();
  if (validate(value)) return { faults: [], isComplete: true };
  const errors = validate.errors ?? [];
  return { faults: faultsOf(errors), isComplete: errors.length < MAX_FAULTS };
}

/** The body of `POST /functions`; throws FaasError `bad_request` that names the first mistake. */
export function readCreateBody(value: unknown): CreateFunctionBody {
  return readBody<CreateFunctionBody>(bodyValidators().create, value);
}

/** The body of `PUT /functions/<name>`; throws FaasError `bad_request` that names the first mistake. */
export function readUpdateBody(value: unknown): UpdateFunctionBody {
  return readBody<UpdateFunctionBody>(bodyValidators().update, value);
}

function readBody<Body>(validate: ValidateFunction, value: unknown): Body {
  if (!isObject(value)) throw new FaasError('bad_request', { detail: 'The body must be a JSON object.' });
  if (validate(value)) return value as Body;
  const [fault] = faultsOf(validate.errors ?? []);
  const where = fault === undefined || fault.path.length === 0 ? 'The body' : `\`${fault.path.join('.')}\` in the body`;
  const message = fault?.message ?? 'not as the schema says';
  throw new FaasError('bad_request', { detail: `${where}: ${message}${message.endsWith('?') ? '' : '.'}` });
}

const configValidator = once(() => compiler(true).compile(faasConfigSchema));

const bodyValidators = once(() => {
  // The first mistake is enough for a body: looking for all would let a small one cost much.
  const ajv = compiler(false);
  return { create: ajv.compile(createFunctionSchema), update: ajv.compile(updateFunctionSchema) };
});

function compiler(allErrors: boolean): Ajv2020 {
  const ajv = new Ajv2020({ strict: true, strictTypes: true, allowUnionTypes: true, allErrors, verbose: true });
  for (const [name, parse] of Object.entries(FORMATS)) ajv.addFormat(name, (text: string) => parse(text).problem === undefined);
  ajv.addSchema(functionConfigSchema);
  if (!allErrors) ajv.addSchema([createFunctionSchema, updateFunctionSchema]);
  return ajv;
}

/** More mistakes than this are not looked at one by one. */
export const MAX_FAULTS = 1000;

/** AJV reports every branch it tried; people get one fault for each mistake, at most `MAX_FAULTS`. */
function faultsOf(errors: readonly ErrorObject[]): Fault[] {
  const typeErrors = new Map<string, ErrorObject[]>();
  const withErrorsInside = new Set<string>();
  const own: ErrorObject[] = [];
  for (const error of errors) {
    // What only sums up other errors, and the branch that allows "nothing".
    if (['anyOf', 'if', 'propertyNames'].includes(error.keyword) || error.schema === 'null') continue;
    own.push(error);
    if (own.length === MAX_FAULTS) break;
    if (error.keyword === 'type') {
      const others = typeErrors.get(error.instancePath);
      if (others === undefined) typeErrors.set(error.instancePath, [error]);
      else others.push(error);
    }
    for (let end = error.instancePath.lastIndexOf('/'); end >= 0; end = error.instancePath.lastIndexOf('/', end - 1)) {
      withErrorsInside.add(error.instancePath.slice(0, end));
      if (end === 0) break;
    }
  }
  const faults = new Map<string, Fault>();
  for (const error of own) {
    // A value of an alternative type was looked into: what is wrong inside says more than that it is not the other type.
    if (error.keyword === 'type' && error.schemaPath.includes('/anyOf/') && withErrorsInside.has(error.instancePath)) continue;
    const fault = explain(error, typeErrors.get(error.instancePath) ?? []);
    const key = JSON.stringify([fault.path, fault.at]);
    if (!faults.has(key)) faults.set(key, fault);
  }
  return [...faults.values()];
}

function once<Value>(make: () => Value): () => Value {
  let made: { readonly value: Value } | undefined;
  return () => (made ??= { value: make() }).value;
}
