import { hash, timingSafeEqual } from 'node:crypto';
import type { ApiKey, Scope } from '../config/spec.ts';
import { FaasError } from '../errors.ts';
import type { Keys } from './ports.ts';

/** Whose key a request carries. */
export interface Caller {
  readonly keyName: string;
  readonly scopes: readonly Scope[];
  readonly rateLimit: ApiKey['rateLimit'];
}

interface KnownKey extends Caller {
  readonly digest: Buffer;
}

const DEMO_KEYS: readonly KnownKey[] = [
  { keyName: 'demo-key', scopes: ['invoke', 'manage'], rateLimit: undefined, digest: digestOf('demo-key') },
  { keyName: 'admin-key', scopes: ['invoke', 'manage', 'admin'], rateLimit: undefined, digest: digestOf('admin-key') },
];

/** Keys are 256 random bits in base64 or hex; anything much longer is not hashed at all. */
const KEY_MAX_CHARACTERS = 512;

/** Tells whose key a request carries. Only digests are held; a change of the keys takes effect with the next request. */
export class Authenticator {
  readonly #keys: Keys;
  #seenKeys: readonly ApiKey[] | undefined;
  #seenDemo = false;
  #known: readonly KnownKey[] = [];

  constructor(keys: Keys) {
    this.#keys = keys;
  }

  /** The caller behind an `Authorization` header; `basic` also takes Basic, whose password is the key. FaasError `unauthorized`. */
  identify(authorization: string | undefined, basic: 'bearer' | 'basic' = 'bearer'): Caller {
    if (authorization === undefined) throw new FaasError('unauthorized', { detail: 'The request carries no key.' });
    const key = readBearer(authorization) ?? (basic === 'basic' ? readBasicPassword(authorization) : undefined);
    if (key === undefined || key.length > KEY_MAX_CHARACTERS) {
      throw new FaasError('unauthorized', {
        detail: 'The `Authorization` header carries no key in the form that this call reads.',
      });
    }
    const digest = digestOf(key);
    let found: KnownKey | undefined;
    // Every key is compared, so that the time tells nothing about which one was near.
    for (const known of this.#current()) if (timingSafeEqual(known.digest, digest)) found = known;
    if (found === undefined) throw new FaasError('unauthorized', { detail: 'The key is not known.' });
    return found;
  }

  #current(): readonly KnownKey[] {
    const { apiKeys, demo } = this.#keys.current();
    if (apiKeys !== this.#seenKeys || demo !== this.#seenDemo) {
      this.#seenKeys = apiKeys;
      this.#seenDemo = demo;
      const configured = apiKeys.map(({ name, scopes, rateLimit, sha256 }) => ({
        keyName: name,
        scopes,
        rateLimit,
        digest: Buffer.from(sha256, 'hex'),
      }));
      this.#known = demo ? [...configured, ...DEMO_KEYS] : configured;
    }
    return this.#known;
  }
}

export function hasScope(caller: { readonly scopes: readonly Scope[] }, scope: Scope): boolean {
  return caller.scopes.includes(scope) || caller.scopes.includes('admin');
}

/** A key has exactly its scopes; `admin` has all. FaasError `forbidden`. */
export function requireScope(caller: Caller, scope: Scope): void {
  if (hasScope(caller, scope)) return;
  throw new FaasError('forbidden', { detail: `The key ${caller.keyName} lacks the scope ${scope}.`, context: { scope } });
}

function readBearer(authorization: string): string | undefined {
  if (authorization.length <= 7 || authorization.charCodeAt(6) !== 32) return undefined;
  return authorization.slice(0, 6).toLowerCase() === 'bearer' ? authorization.slice(7).trim() : undefined;
}

/** RFC 7617: base64 of `user:password`; the user's name is anything. */
function readBasicPassword(authorization: string): string | undefined {
  if (authorization.slice(0, 6).toLowerCase() !== 'basic ') return undefined;
  const pair = Buffer.from(authorization.slice(6), 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  return colon < 0 ? undefined : pair.slice(colon + 1);
}

function digestOf(key: string): Buffer {
  return hash('sha256', key, 'buffer');
}
