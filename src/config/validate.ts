import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';
import createFunctionSchema from '../../schemas/create-function.schema.json' with { type: 'json' };
import faasConfigSchema from '../../schemas/faas-config.schema.json' with { type: 'json' };
import functionConfigSchema from '../../schemas/function-config.schema.json' with { type: 'json' };
import updateFunctionSchema from '../../schemas/update-function.schema.json' with { type: 'json' };
import { FaasError } from '../errors.ts';
import { explain, FORMATS } from './explain.ts';
import type { CreateFunctionBody } from './generated/create-function.ts';
import type { UpdateFunctionBody } from './generated/update-function.ts';
import type { Fault } from './parse.ts';

/** Everything that is wrong with the shape of a configuration file's value: one fault for each mistake. */
export function validateConfig(value: unknown): Fault[] {
  const validate = configValidator();
  return validate(value) ? [] : faultsOf(validate.errors ?? []);
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
  if (validate(value)) return value as Body;
  const [fault] = faultsOf(validate.errors ?? []);
  const where = fault === undefined || fault.path.length === 0 ? 'The body' : `\`${fault.path.join('.')}\` in the body`;
  throw new FaasError('bad_request', { detail: `${where}: ${fault?.message ?? 'not as the schema says'}.` });
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

/** AJV reports every branch it tried; people get one fault for each mistake. */
function faultsOf(errors: readonly ErrorObject[]): Fault[] {
  // What only sums up other errors, and the branch that allows "nothing".
  const own = errors.filter(({ keyword, schema }) => !['anyOf', 'if', 'propertyNames'].includes(keyword) && schema !== 'null');
  const faults = new Map<string, Fault>();
  for (const error of own) {
    // A value of an alternative type was looked into: what is wrong inside says more than that it is not the other type.
    const isAlternative = error.keyword === 'type' && error.schemaPath.includes('/anyOf/');
    if (isAlternative && own.some(({ instancePath }) => instancePath.startsWith(`${error.instancePath}/`))) continue;
    const siblings = own.filter((other) => other.keyword === 'type' && other.instancePath === error.instancePath);
    const fault = explain(error, siblings);
    const key = JSON.stringify([fault.path, fault.at]);
    if (!faults.has(key)) faults.set(key, fault);
  }
  return [...faults.values()];
}

function once<Value>(make: () => Value): () => Value {
  let made: { readonly value: Value } | undefined;
  return () => (made ??= { value: make() }).value;
}
