// Frames of the set-up's programs, as ../PROTOCOL.md has them.

const frames = Deno.openSync("/proc/self/fd/3", { write: true });
const request = Deno.openSync("/proc/self/fd/4", { read: true });

function write(bytes) {
  for (let sent = 0; sent < bytes.length;) sent += frames.writeSync(bytes.subarray(sent));
}

/** One frame of raw bytes. */
export function send(body) {
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, body.length);
  write(head);
  write(body);
}

export const tell = (message) => send(new TextEncoder().encode(JSON.stringify(message)));

function readExactly(length) {
  const bytes = new Uint8Array(length);
  for (let got = 0; got < length;) {
    const more = request.readSync(bytes.subarray(got));
    if (more === null) Deno.exit(0);
    got += more;
  }
  return bytes;
}

export function receive() {
  const length = new DataView(readExactly(4).buffer).getUint32(0);
  return JSON.parse(new TextDecoder().decode(readExactly(length)));
}
