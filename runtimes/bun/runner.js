// The Bun runner. See ../PROTOCOL.md and ../README.md.

import fs from "node:fs";

// Constants: an imported name is a live binding, which `mock.module` of bun:test replaces.
const { closeSync, lstatSync, openSync, readSync, readdirSync, writeSync } = fs;
const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY, S_IFDIR, S_IFMT, S_IFREG } = fs.constants;

const { apply } = Reflect;
const { captureStackTrace } = Error;
const { inspect } = Bun;
const { env, reallyExit } = process;
const runtimeProcess = process;
const noop = () => {};
if (process.argv.includes("egress")) await (await import("./egress.js")).forward();
// Imported dynamically, so that the handler's import is not the first of its kind.
const { serve } = await import("./core.js");
// The heap is full by now and would be collected in the midst of that import. A runner that will wait has the time.
if (process.argv.includes("warm")) Bun.gc(true);

/** Node's console class in Bun: same formatting and groups as the global one, but it prints where it is told to. */
function makeConsole(print) {
  const stream = (warning) => ({ write: (text) => print(text, warning), on: noop, once: noop, removeListener: noop });
  const made = new console.Console({ stdout: stream(false), stderr: stream(true), ignoreErrors: false, colorMode: false });
  // Bun's own `trace` of this class prints the stack and drops the arguments.
  const { log } = made;
  made.trace = function trace(...args) {
    const mark = {};
    captureStackTrace(mark, trace);
    if (args.length > 0) apply(log, made, args);
    print(typeof mark.stack === "string" ? mark.stack : "", true);
  };
  return made;
}

serve({
  runtime: "bun",
  version: Bun.version,
  read: (bytes) => readSync(4, bytes),
  write: (bytes) => writeSync(3, bytes),
  seal: () => closeSync(4),
  setEnv: (name, value) => {
    env[name] = value;
  },
  exit: (code) => apply(reallyExit, runtimeProcess, [code]),
  inspect,
  list(folder, visit) {
    const names = readdirSync(folder);
    for (let i = 0; i < names.length; i++) visit(names[i]);
  },
  look(path) {
    const { mode, size } = lstatSync(path);
    const kind = mode & S_IFMT;
    return kind === S_IFREG ? size : kind === S_IFDIR ? -1 : -2;
  },
  readFile(path, bytes) {
    const file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    let got = 0;
    for (;;) {
      const more = readSync(file, bytes, got, bytes.length - got, null);
      got += more;
      if (more === 0 || got === bytes.length) break;
    }
    closeSync(file);
    return got;
  },
  makeConsole,
  onStray(listener) {
    process.on("uncaughtException", listener);
    process.on("unhandledRejection", listener);
  },
});
