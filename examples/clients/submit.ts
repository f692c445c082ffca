// Sends a sealed ComfyUI workflow to a Cloister or to a RunPod endpoint, and writes the outputs.
//
//   npm install tweetnacl
//   SERVER_PUBLIC_KEY_B64=… BEARER_TOKEN=… bun submit.ts workflow.json [folder]
//
// Runs on Bun, Deno (deno run -A) and Node 22.18 or newer. ENDPOINT_URL is a Cloister's `http://HOST:8080/v2/local`
// (the default, on this host) or `https://api.runpod.ai/v2/<endpoint>`; BEARER_TOKEN is the Cloister's token or
// RunPod's API key.

import { createHash, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import nacl from "tweetnacl";

interface Job {
  id: string;
  status: string;
  output?: { nonce?: string; ciphertext?: string };
  error?: string;
}

interface Reply {
  type: string;
  id: string;
  outputs: { filename: string; data: string }[];
  error?: unknown;
}

const url = process.env.ENDPOINT_URL ?? "http://127.0.0.1:8080/v2/local";
const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"));
const base64 = (data: Uint8Array) => Buffer.from(data).toString("base64");

/** One question to the endpoint: POST with a body, else GET. */
async function call(path: string, body?: unknown): Promise<Job> {
  const answer = await fetch(url + path, {
    method: body ? "POST" : "GET",
    headers: { Authorization: `Bearer ${process.env.BEARER_TOKEN}`, "Content-Type": "application/json" },
    body: body ? JSON.stringify(body) : undefined,
  });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return await answer.json() as Job;
}

const [file, folder = "."] = process.argv.slice(2);
const server = bytes(process.env.SERVER_PUBLIC_KEY_B64 ?? "");
const oneTime = nacl.box.keyPair(); // one for each request: it is what the answer is sealed to
const id = randomUUID();
const nonce = nacl.randomBytes(nacl.box.nonceLength);
const plain = { v: 2, type: "request", id, ts: Math.floor(Date.now() / 1000), workflow: JSON.parse(readFileSync(file, "utf8")) };
const sealed = nacl.box(new TextEncoder().encode(JSON.stringify(plain)), nonce, server, oneTime.secretKey);
let job = await call("/run", {
  input: {
    encrypted: true,
    v: 2,
    kid: createHash("sha256").update(server).digest("hex").slice(0, 16),
    epk: base64(oneTime.publicKey),
    nonce: base64(nonce),
    ciphertext: base64(sealed),
  },
});
while (["IN_QUEUE", "IN_PROGRESS"].includes(job.status)) {
  await new Promise((passed) => setTimeout(passed, 200));
  job = await call(`/status/${job.id}`);
}
if (!job.output?.ciphertext || !job.output.nonce) throw new Error(`${job.status}: ${job.error}`);
const opened = nacl.box.open(bytes(job.output.ciphertext), bytes(job.output.nonce), server, oneTime.secretKey);
const reply: Reply | undefined = opened && JSON.parse(new TextDecoder().decode(opened));
// Both directions of a box share one key: this tells the reply from anything else that was sealed with it.
if (reply?.type !== "reply" || reply.id !== id) throw new Error("this is not the reply to this request");
for (const output of reply.outputs) {
  const path = join(folder, basename(output.filename));
  writeFileSync(path, bytes(output.data));
  console.log(path);
}
if (job.error) throw new Error(`${job.status}: ${job.error}: ${JSON.stringify(reply.error)}`);
