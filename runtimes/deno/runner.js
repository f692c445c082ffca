// The Deno runner. See ../PROTOCOL.md and ../README.md.

const { apply } = Reflect;
const { Console } = Deno[Deno.internal];
const { inspect, exit, env, lstatSync, openSync, readDirSync } = Deno;
const setEnv = env.set;
const listen = globalThis.addEventListener;
const { close, readSync, writeSync } = Deno.FsFile.prototype;
const { preventDefault } = Event.prototype;
const reasonOf = Object.getOwnPropertyDescriptor(PromiseRejectionEvent.prototype, "reason").get;
const nextOf = Object.getPrototypeOf([][Symbol.iterator]()).next;
const Bytes = Uint8Array;
const errorOf = Object.getOwnPropertyDescriptor(ErrorEvent.prototype, "error").get;

// The first use of `process` or of any node: module takes 200 ms inside gVisor. A runner that will wait has the time.
if (Deno.args.includes("warm")) await import("node:fs");

const FRAMES = "/proc/self/fd/3";
const REQUEST = "/proc/self/fd/4";
const frames = Deno.openSync(FRAMES, { write: true });
const request = Deno.openSync(REQUEST, { read: true });
Deno.permissions.revokeSync({ name: "write", path: FRAMES });
Deno.permissions.revokeSync({ name: "read", path: REQUEST });

// Not a literal: Deno would read and parse the file at every start.
const FORWARDER = "./egress.js";
if (Deno.args.includes("egress")) (await import(FORWARDER)).forward();

// Imported dynamically, so that the handler's import is not the first of its kind.
const { serve } = await import("./core.js");

serve({
  runtime: "deno",
  version: Deno.version.deno,
  read: (bytes) => apply(readSync, request, [bytes]),
  write: (bytes) => apply(writeSync, frames, [bytes]),
  seal: () => apply(close, request, []),
  setEnv: (name, value) => apply(setEnv, env, [name, value]),
  exit,
  inspect,
  list(folder, visit) {
    const entries = readDirSync(folder);
    for (;;) {
      const { done, value } = apply(nextOf, entries, []);
      if (done) return;
      visit(value.name);
    }
  },
  look(path) {
    const { isFile, isDirectory, isSymlink, size } = lstatSync(path);
    return isSymlink ? -2 : isFile ? size : isDirectory ? -1 : -2;
  },
  readFile(path, bytes) {
    const file = openSync(path, { read: true });
    const { buffer, length } = bytes;
    let got = 0;
    while (got < length) {
      const more = apply(readSync, file, [new Bytes(buffer, got, length - got)]);
      if (!more) break;
      got += more;
    }
    apply(close, file, []);
    return got;
  },
  makeConsole: (print) => new Console((text, level) => print(text, level >= 2)),
  onStray(listener) {
    const hear = (valueOf) => (event) => {
      apply(preventDefault, event, []);
      listener(apply(valueOf, event, []));
    };
    apply(listen, globalThis, ["unhandledrejection", hear(reasonOf)]);
    apply(listen, globalThis, ["error", hear(errorOf)]);
  },
});
