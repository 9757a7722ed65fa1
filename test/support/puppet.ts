import type { FrameType } from '../../src/runtimes/protocol.ts';

/**
 * A handler that never returns from its import: it takes the channel over, says READY itself, and from then on does what each
 * INVOKE's body asks for. So a test can let a real process say anything at all in the runner's place.
 */
export const PUPPET = `
import json, os, stat, struct

def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False

channel = next(fd for fd in sorted(map(int, os.listdir("/proc/self/fd"))) if fd > 2 and is_socket(fd))
HEADER = struct.Struct(">IBQ")
seen = []

def send(kind, call, payload):
    data = HEADER.pack(len(payload) + 9, kind, call) + payload
    while data:
        data = data[os.write(channel, data):]

def receive(count):
    data = bytearray()
    while len(data) < count:
        piece = os.read(channel, min(count - len(data), 1 << 16))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)

send(18, 0, b'{"phases":{}}')
while True:
    length, kind, call = HEADER.unpack(receive(13))
    payload = receive(length - 9)
    facts = payload.decode() if kind in (3, 5, 6, 7) else ""
    seen.append([kind, call, len(payload), facts])
    if kind != 2:
        continue
    body = payload[4 + struct.unpack(">I", payload[:4])[0]:]
    for step in json.loads(body.split(b"\\n")[0]):
        if step == "seen":
            text = json.dumps(seen).encode()
            meta = b'{"status":200,"headers":[],"exec_us":1}'
            send(20, call, struct.pack(">I", len(meta)) + meta + text)
        else:
            kind, other, text, repeat = step
            send(kind, call + other, text.encode("latin1") * repeat)
`;

/** One frame that the puppet sends: its type, the number of its call as seen from the call that asks, its payload. */
export type PuppetStep = 'seen' | readonly [type: FrameType | number, other: number, payload: string, repeat: number];

export interface SeenFrame {
  readonly type: number;
  readonly call: number;
  readonly bytes: number;
  /** Payload of frames that carry little. */
  readonly facts: string;
}

/** The body of a call that asks for these steps. */
export function asks(steps: readonly PuppetStep[]): Buffer {
  return Buffer.from(`${JSON.stringify(steps)}\n`);
}

/** Payload of an ANSWER. */
export function answerPayload(text: string): string {
  const meta = '{"status":200,"headers":[],"exec_us":1}';
  return `\0\0\0${String.fromCharCode(meta.length)}${meta}${text}`;
}

export const HEAD_PAYLOAD = '{"status":200,"headers":[],"exec_us":1}';

/** What a call that asked for `seen` was answered. */
export function seenFrames(text: string): SeenFrame[] {
  return (JSON.parse(text) as [number, number, number, string][]).map(([type, call, bytes, facts]) => ({
    type,
    call,
    bytes,
    facts,
  }));
}
