// The forwarder of a sandbox that may reach something: from the proxy's address in the environment to the one socket that
// leads out. It decides nothing, the daemon behind the socket does. What a handler breaks here it breaks for itself.

import net from "node:net";

const SOCKET = "/runtime/egress.sock";

/** Listens; nothing of it keeps the event loop alive, so that a handler which never settles is seen. */
export function forward() {
  const server = net.createServer({ allowHalfOpen: true }, carry);
  return new Promise((done, fail) => {
    server.once("error", fail);
    server.listen(3128, "127.0.0.1", () => {
      server.unref();
      done();
    });
  });
}

function carry(near) {
  const far = net.connect({ path: SOCKET, allowHalfOpen: true });
  near.on("error", () => far.destroy());
  far.on("error", () => near.destroy());
  near.pipe(far);
  far.pipe(near);
  near.unref();
  far.unref();
}
