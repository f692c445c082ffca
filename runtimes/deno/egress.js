// The forwarder of a sandbox that may reach something: from the proxy's address in the environment to the one socket that
// leads out. It decides nothing, the daemon behind the socket does. What a handler breaks here it breaks for itself.

const SOCKET = "/runtime/egress.sock";

/** Listens; nothing of it keeps the event loop alive, so that a handler which never settles is seen. */
export function forward() {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 3128 });
  listener.unref();
  accept(listener);
}

async function accept(listener) {
  // A caller may be gone before it was accepted; a listener that gives nothing any more is closed.
  for (let failures = 0; failures < 10;) {
    try {
      carry(await listener.accept());
      failures = 0;
    } catch {
      failures++;
    }
  }
}

async function carry(near) {
  try {
    near.unref();
    const far = await Deno.connect({ transport: "unix", path: SOCKET });
    far.unref();
    await Promise.allSettled([near.readable.pipeTo(far.writable), far.readable.pipeTo(near.writable)]);
  } catch {
    near.close();
  }
}
