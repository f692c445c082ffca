// The set-up's side of npm packages: Bun's own installer, without scripts, over the way out to the registries. What it put
// in place is sent back as plain files: no links, no modes, no owners. See ../PROTOCOL.md.

import fs from "node:fs";
import { forward } from "./egress.js";

const HOME = "/tmp/home";
const WORK = "/tmp/work";
const LOCK = "bun.lock";
const INSTALL = ["install", "--ignore-scripts", "--no-progress", "--no-summary", "--linker=hoisted", "--backend=copyfile",
  "--save-text-lockfile", "--network-concurrency=16"];

function send(message) {
  const body = Buffer.from(JSON.stringify(message));
  const frame = Buffer.alloc(4 + body.length);
  frame.writeUInt32BE(body.length);
  body.copy(frame, 4);
  for (let sent = 0; sent < frame.length;) sent += fs.writeSync(3, frame, sent);
}

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
  const files = {};
  let bytes = 0;
  let count = 0;
  const take = (path, full) => {
    const content = fs.readFileSync(full);
    bytes += content.length;
    count += 1;
    if (bytes > most.bytes) throw new Error(`the packages are larger than ${most.bytes} bytes`);
    if (count > most.files) throw new Error(`the packages have more than ${most.files} files`);
    files[path] = content.toString("base64");
  };
  const walk = (path) => {
    for (const entry of fs.readdirSync(`${WORK}/${path}`, { withFileTypes: true })) {
      const below = `${path}/${entry.name}`;
      if (entry.isDirectory()) walk(below);
      else if (entry.isFile()) take(below, `${WORK}/${below}`);
    }
  };
  if (fs.existsSync(`${WORK}/node_modules`)) walk("node_modules");
  if (fs.existsSync(`${WORK}/${LOCK}`)) take(LOCK, `${WORK}/${LOCK}`);
  return { files };
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
send({ type: "ready", protocol: 1, runtime: "bun", version: Bun.version });
const { nonce, ...request } = receive();
send({ type: "installed", nonce, ...(await answer(request)) });
process.exit(0);
