import { FaasError } from '../../../errors.ts';
import { findInterpreter } from '../interpreters.ts';
import { EgressNetworks, type EgressOptions } from './egress.ts';

/** The networks of `egress`, or why there are none. */
export type OpenedEgress = AsyncDisposable &
  ({ readonly networks: EgressNetworks; readonly lack?: undefined } | { readonly networks: undefined; readonly lack: FaasError });

export interface OpenEgressOptions extends Omit<EgressOptions, 'python'> {
  /** False: nothing is tried. */
  readonly isWanted: boolean;
}

/** Opens them where they are wanted. Never rejects. */
export async function openEgress({ isWanted, ...options }: OpenEgressOptions): Promise<OpenedEgress> {
  try {
    if (!isWanted) throw new FaasError('isolation_unavailable', { detail: 'Network egress was not opened.' });
    const networks = await EgressNetworks.open({ ...options, python: findInterpreter('python3', 0) });
    return { networks, [Symbol.asyncDispose]: () => networks[Symbol.asyncDispose]() };
  } catch (error) {
    const lack = error instanceof FaasError ? error : new FaasError('isolation_unavailable', { cause: error });
    return { networks: undefined, lack, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
}
