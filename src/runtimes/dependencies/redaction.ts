import { printable } from '../../errors.ts';

const LINE_MAX_CHARACTERS = 300;
/** Shorter ones would blot out ordinary words, and guard nothing. */
const SECRET_MIN_CHARACTERS = 4;

/** Passwords, tokens and user names without a password in these texts, which may be URLs; each as it stands and decoded. */
export function secretsIn(texts: readonly (string | undefined)[]): readonly string[] {
  const secrets = new Set<string>();
  for (const text of texts) {
    for (const [, user = '', password] of (text ?? '').matchAll(/:\/\/([^/\s:@]*)(?::([^/\s@]*))?@/g)) {
      const secret = password === undefined || password === '' ? user : password;
      secrets.add(secret);
      secrets.add(decoded(secret));
    }
  }
  return [...secrets].filter((secret) => secret.length >= SECRET_MIN_CHARACTERS);
}

/** Whether a URL among these texts holds credentials. */
export function hasCredentials(texts: readonly (string | undefined)[]): boolean {
  return texts.some((text) => /:\/\/[^/\s@]+@/.test(text ?? ''));
}

/** A line of an installer, fit to be shown to whoever pushed: no credentials, no control characters, not too long. */
export function showable(line: string, secrets: readonly string[]): string {
  let text = line.replaceAll(/(:\/\/)[^/\s@]+@/g, '$1***@');
  for (const secret of secrets) text = text.replaceAll(secret, '***');
  return printable(text).replaceAll('\n', ' ').slice(0, LINE_MAX_CHARACTERS);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
