import { FaasError } from '../errors.ts';
import type { StatusSource } from './ports.ts';

/** Why the table has no function of this name: there is none, or nothing serves yet. */
export function unknownFunction(name: string, status: StatusSource): FaasError {
  return status.serving
    ? new FaasError('unknown_function', { detail: `There is no function ${name}.` })
    : new FaasError('not_ready');
}
