// The set-up's side of Deno's own dependencies: `deno cache` over the way out to where they come from. What it fetched and
// emitted is sent back as plain files. No module runs here: they are parsed, not imported. See ../PROTOCOL.md.

import { forward } from "./egress.js";
import { receive, send, tell } from "./frames.js";

const DIR = "/tmp/resolved";
const LOCK = "deno.lock";
const PIECE = 1 << 20;
const CACHE = ["cache", "--quiet", "--no-config", "--no-check", "--node-modules-dir=none", "--allow-import", `--lock=${DIR}/${LOCK}`];

async function resolve({ modules, jsr, registry, most }) {
  Deno.mkdirSync(DIR);
  const env = { DENO_DIR: DIR };
  if (jsr) env.JSR_URL = jsr;
  if (registry) env.NPM_CONFIG_REGISTRY = registry;
  const command = new Deno.Command(Deno.execPath(), { args: [...CACHE, ...modules], cwd: DIR, env, stdout: "null", stderr: "piped" });
  const { success, stderr } = await command.output();
  if (!success) return { message: reasonIn(new TextDecoder().decode(stderr)) };
  return { files: found(most) };
}

/** Paths and sizes of what was fetched and emitted. */
function found(most) {
  const files = [];
  let bytes = 0;
  const take = (path) => {
    const { size } = Deno.lstatSync(`${DIR}/${path}`);
    bytes += size;
    files.push([path, size]);
    if (bytes > most.bytes) throw new Error(`the modules are larger than ${most.bytes} bytes`);
    if (files.length > most.files) throw new Error(`the modules have more than ${most.files} files`);
  };
  const walk = (path) => {
    for (const entry of Deno.readDirSync(`${DIR}/${path}`)) {
      const below = `${path}/${entry.name}`;
      if (entry.isDirectory) walk(below);
      else if (entry.isFile) take(below);
    }
  };
  for (const path of ["remote/http", "remote/https", "gen/http", "gen/https"]) if (exists(path)) walk(path);
  if (exists(LOCK)) take(LOCK);
  return files;
}

function exists(path) {
  try {
    return Deno.lstatSync(`${DIR}/${path}`) !== undefined;
  } catch {
    return false;
  }
}

function deliver(files) {
  for (const [path] of files) {
    const bytes = Deno.readFileSync(`${DIR}/${path}`);
    for (let at = 0; at < bytes.length; at += PIECE) send(bytes.subarray(at, at + PIECE));
  }
}

function reasonIn(told) {
  const lines = told.split("\n").map((line) => line.trim());
  const first = lines.findIndex((line) => line.startsWith("error"));
  return lines.slice(first < 0 ? lines.length : first).join(" ").slice(0, 400) || "Deno failed and does not say why";
}

async function answer(request) {
  try {
    return await resolve(request);
  } catch (error) {
    return { message: String(error?.message ?? error) };
  }
}

forward();
tell({ type: "ready", protocol: 1, runtime: "deno", version: Deno.version.deno });
const { nonce, ...request } = receive();
const answered = await answer(request);
tell({ type: "installed", nonce, ...answered });
if (answered.files) deliver(answered.files);
Deno.exit(0);
