// The set-up's side of Deno: turns TypeScript modules into the JavaScript that Deno itself would emit for them.
// See ../PROTOCOL.md. No code of the modules runs here: they are parsed, not imported.

import { receive, tell } from "./frames.js";

const WORKSPACE = "/workspace/";
const EMITTED = "/tmp/.deno/gen/file/workspace/";
const COMMON = ["--quiet", "--no-config", "--no-lock", "--no-check", "--node-modules-dir=manual"];

async function deno(...args) {
  const command = new Deno.Command(Deno.execPath(), { args, cwd: WORKSPACE, stdout: "null", stderr: "piped" });
  const { success, stderr } = await command.output();
  return { success, told: new TextDecoder().decode(stderr) };
}

/** The place that Deno's message names, or the first module when it names none. */
function faultOf(told, names) {
  const said = told.split("\n").find((line) => line.startsWith("error: "));
  const message = said?.replace(/^error: (SyntaxError: )?/, "") ?? "Deno's compiler could not read it; it may be nested too deeply";
  const [, module, line, column] = told.match(/at file:\/\/\/workspace\/(.+?):(\d+):(\d+)/) ?? [];
  if (!names.includes(module)) return { module: names[0], message };
  return { module, message, line: Number(line), column: Number(column) };
}

async function transpile(modules) {
  const names = Object.keys(modules);
  for (const name of names) {
    const path = WORKSPACE + name;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(path, modules[name]);
  }
  const paths = names.map((name) => WORKSPACE + name);
  const cached = await deno("cache", ...COMMON, ...paths);
  const emitted = (name) => Deno.readTextFileSync(EMITTED + name + ".js");
  if (cached.success) return { modules: Object.fromEntries(names.map((name) => [name, emitted(name)])) };
  // The modules' graph is not whole here: one may import what is not there, which is the handler's affair at its call.
  // What each module says by itself must be TypeScript, though. Deno's cache knows its own entries by their hash, so
  // that a source in an entry's place is passed over, and the module is compiled when it is called.
  const alone = await deno("transpile", "--no-config", "--no-check", "--outdir", "/tmp/alone", ...names);
  return alone.success ? { modules } : { errors: [faultOf(alone.told, names)] };
}

async function answer(modules) {
  try {
    return await transpile(modules);
  } catch (error) {
    return { errors: [{ module: Object.keys(modules)[0], message: `it could not be transpiled: ${error.message}` }] };
  }
}

tell({ type: "ready", protocol: 1, runtime: "deno", version: Deno.version.deno });
const { nonce, modules } = receive();
tell({ type: "transpiled", nonce, ...(await answer(modules)) });
Deno.exit(0);
