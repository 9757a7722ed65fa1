/** A pack without objects: its header and the SHA-1 of that. */
const EMPTY_PACK = Buffer.from('5041434b0000000200000000029d08823bd8a8eab510ad6ac75c823cfd3ed31e', 'hex');

export const PUSH_CONTENT_TYPE = 'application/x-git-receive-pack-request';

/**
 * The body of a push as no git client would write it. Each command is `<old> <new> <ref>` as bytes (latin1), also with names that
 * clients refuse; what they name must be in the repository already.
 */
export function rawPushBody(commands: readonly string[]): Buffer {
  const lines = commands.map((command, index) => {
    const line = Buffer.from(index === 0 ? `${command}\0report-status` : command, 'latin1');
    return Buffer.concat([Buffer.from((line.length + 4).toString(16).padStart(4, '0')), line]);
  });
  return Buffer.concat([...lines, Buffer.from('0000'), EMPTY_PACK]);
}
