// The set-up's side of Deno: turns TypeScript modules into the JavaScript that Deno itself would emit for them.
// See ../PROTOCOL.md. No code of the modules runs here: they are loaded behind a module that throws.

import { receive, tell } from "./frames.js";

const { readTextFileSync: read, writeTextFileSync: write } = Deno;
const WORKSPACE = "/workspace/";
const EMITTED = "/tmp/.deno/gen/file/workspace/";

/**
 * Lets Deno load, emit and link the graph of some modules, and evaluate nothing of it: what a module imports is evaluated in the order
 * of its imports, and ends with the first that throws. What cannot be loaded or linked is left for `emitted` to miss.
 */
async function load(name, urls) {
  const entry = `/tmp/${name}.js`;
  const imports = ["data:text/javascript,throw 0", ...urls].map((url) => `import ${JSON.stringify(url)};\n`);
  write(entry, imports.join(""));
  await import(`file://${entry}`).catch(() => {});
}

const urlOf = (name) => "file:///workspace/" + name.split("/").map(encodeURIComponent).join("/");

function emitted(names) {
  try {
    return Object.fromEntries(names.map((name) => [name, read(EMITTED + name + ".js")]));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The place that Deno's message names, or the first module when it names none. */
function faultOf(told, names) {
  const said = told.split("\n").find((line) => line.startsWith("error: "));
  const message = said?.replace(/^error: (SyntaxError: )?/, "") ?? "Deno's compiler could not read it; it may be nested too deeply";
  const [, module, line, column] = told.match(/at file:\/\/\/workspace\/(.+?):(\d+):(\d+)/) ?? [];
  if (!names.includes(module)) return { module: names[0], message };
  return { module, message, line: Number(line), column: Number(column) };
}

/** Parses each module by itself. */
async function faults(names) {
  const args = ["transpile", "--no-config", "--no-check", "--outdir", "/tmp/alone", ...names];
  const command = new Deno.Command(Deno.execPath(), { args, cwd: WORKSPACE, stdout: "null", stderr: "piped" });
  const { success, stderr } = await command.output();
  return success ? [] : [faultOf(new TextDecoder().decode(stderr), names)];
}

async function transpile(modules) {
  const names = Object.keys(modules);
  for (const name of names) {
    const path = WORKSPACE + name;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    write(path, modules[name]);
  }
  await load("all", names.map(urlOf));
  const whole = emitted(names);
  if (whole) return { modules: whole };
  // The modules' graph is not whole here: one may import what is not there, which is the handler's affair at its call.
  // What each module says by itself must be TypeScript, though. Deno's cache knows its own entries by their hash, so
  // that a source in an entry's place is passed over, and the module is compiled when it is called.
  const errors = await faults(names);
  return errors.length > 0 ? { errors } : { modules };
}

async function answer(modules) {
  try {
    return await transpile(modules);
  } catch (error) {
    return { errors: [{ module: Object.keys(modules)[0], message: `it could not be transpiled: ${error.message}` }] };
  }
}

await load("sample", ["file:///runtime/sample.ts"]);
tell({ type: "ready", protocol: 1, runtime: "deno", version: Deno.version.deno });
const { nonce, modules } = receive();
tell({ type: "transpiled", nonce, ...(await answer(modules)) });
Deno.exit(0);
