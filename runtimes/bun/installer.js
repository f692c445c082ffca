// The set-up's side of npm packages: Bun's own installer, without scripts, over the way out to the registries. What it put
// in place is sent back as plain files: no links, no modes, no owners. See ../PROTOCOL.md.

import fs from "node:fs";
import { forward } from "./egress.js";

const HOME = "/tmp/home";
const WORK = "/tmp/work";
const LOCK = "bun.lock";
const PIECE = 1 << 20;
const INSTALL = ["install", "--ignore-scripts", "--no-progress", "--no-summary", "--linker=hoisted", "--backend=hardlink",
  "--save-text-lockfile", "--network-concurrency=16"];

function write(bytes) {
  for (let sent = 0; sent < bytes.length;) sent += fs.writeSync(3, bytes, sent);
}

function send(body) {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  write(head);
  write(body);
}

const tell = (message) => send(Buffer.from(JSON.stringify(message)));

function readExactly(length) {
  const bytes = Buffer.alloc(length);
  for (let got = 0; got < length;) {
    const more = fs.readSync(4, bytes, got, length - got, null);
    if (more === 0) process.exit(0);
    got += more;
  }
  return bytes;
}

const receive = () => JSON.parse(readExactly(readExactly(4).readUInt32BE()).toString());

async function install({ packages, registry, most }) {
  fs.mkdirSync(WORK);
  fs.mkdirSync(HOME);
  fs.writeFileSync(`${WORK}/package.json`, JSON.stringify({ name: "environment", private: true, dependencies: packages }));
  // Its words, not a package's: no script has run.
  const child = Bun.spawn([process.execPath, ...INSTALL, `--registry=${registry}`], {
    cwd: WORK,
    env: { ...process.env, HOME, BUN_INSTALL_CACHE_DIR: "/tmp/cache" },
    stdout: "ignore",
    stderr: "pipe",
  });
  const told = await new Response(child.stderr).text();
  if (await child.exited !== 0) return { message: reasonIn(told) };
  return { files: found(most) };
}

/** Paths and sizes of what was put in place. */
function found(most) {
  const files = [];
  let bytes = 0;
  const take = (path) => {
    const { size } = fs.lstatSync(`${WORK}/${path}`);
    bytes += size;
    files.push([path, size]);
    if (bytes > most.bytes) throw new Error(`the packages are larger than ${most.bytes} bytes`);
    if (files.length > most.files) throw new Error(`the packages have more than ${most.files} files`);
  };
  const walk = (path) => {
    for (const entry of fs.readdirSync(`${WORK}/${path}`, { withFileTypes: true })) {
      const below = `${path}/${entry.name}`;
      if (entry.isDirectory()) walk(below);
      else if (entry.isFile()) take(below);
    }
  };
  if (fs.existsSync(`${WORK}/node_modules`)) walk("node_modules");
  take(LOCK);
  return files;
}

/** The files' bytes, in the order of their announcement, in frames of at most PIECE. */
function deliver(files) {
  const piece = Buffer.alloc(PIECE);
  let filled = 0;
  for (const [path, size] of files) {
    const file = fs.openSync(`${WORK}/${path}`);
    for (let read = 0; read < size;) {
      const more = fs.readSync(file, piece, filled, Math.min(PIECE - filled, size - read), null);
      if (more === 0) throw new Error(`${path} became shorter`);
      read += more;
      filled += more;
      if (filled === PIECE) {
        send(piece);
        filled = 0;
      }
    }
    fs.closeSync(file);
  }
  if (filled > 0) send(piece.subarray(0, filled));
}

function reasonIn(told) {
  const lines = told.split("\n").map((line) => line.trim()).filter((line) => line.startsWith("error"));
  return lines.join("; ").slice(0, 400) || "the installer failed and does not say why";
}

async function answer(request) {
  try {
    return await install(request);
  } catch (error) {
    return { message: String(error?.message ?? error) };
  }
}

await forward();
tell({ type: "ready", protocol: 1, runtime: "bun", version: Bun.version });
const { nonce, ...request } = receive();
const answered = await answer(request);
tell({ type: "installed", nonce, ...answered });
if (answered.files) deliver(answered.files);
process.exit(0);
