// The half of a runner that both runtimes share: frames, logs, errors and the one call.
//
// Everything the runner uses after user code has run is captured here, first. From then on no method is looked up
// on an object or a prototype that a handler can reach: no for-of, no spread, no destructuring of arrays, no template
// with objects, no `x.length` of anything but strings. Frames are made by joining primitive strings, so that neither a
// setter on Object.prototype nor a `toJSON` sees the nonce.

const { apply } = Reflect;
const { defineProperty: define, getOwnPropertyDescriptor, getPrototypeOf, keys, setPrototypeOf } = Object;
const { parse, stringify } = JSON;
const { now } = Date;
const Text = String;
const Bytes = Uint8Array;
const Later = Promise;
const encodeComponent = encodeURIComponent;
const after = setTimeout;
const soon = setImmediate;
const nap = Atomics.wait;
const pause = new Int32Array(new SharedArrayBuffer(4));

const method = (owner, name) => {
  const captured = owner[name];
  return (self, ...args) => apply(captured, self, args);
};
const getter = (prototype, name) => {
  const { get } = getOwnPropertyDescriptor(prototype, name);
  return (self) => apply(get, self, []);
};

const slice = method(String.prototype, "slice");
const indexOf = method(String.prototype, "indexOf");
const charCodeAt = method(String.prototype, "charCodeAt");
const wellFormed = method(String.prototype, "toWellFormed");
const split = method(String.prototype, "split");

const typedArray = getPrototypeOf(Uint8Array.prototype);
const bufferOf = getter(typedArray, "buffer");
const offsetOf = getter(typedArray, "byteOffset");
const sizeOf = getter(typedArray, "byteLength");

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });
const encode = method(encoder, "encode");
const encodeInto = method(encoder, "encodeInto");
const decode = method(decoder, "decode");

const SMALL = 48 * 1024;
const scratch = new ArrayBuffer(4 + SMALL);
const scratchHeader = new Bytes(scratch, 0, 4);
const scratchBody = new Bytes(scratch, 4);
const NEWLINE = 10;
const OUT = "/tmp/out";
const OUT_DEPTH = 16;
const OUT_PATH = 255;
const ALPHABET = encode(encoder, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
const PADDING = 61;
const LEVELS = { __proto__: null, debug: "debug", trace: "debug", info: "info", warn: "warn", error: "error", assert: "error" };
const TRUNCATED = "… [truncated]";
const TRUNCATED_BYTES = 15;

/** The longest start of `string` that fits `cap` UTF-8 bytes, well-formed, with a mark where something was cut. */
function clip(string, cap) {
  const cut = string.length > cap;
  const text = wellFormed(cut ? slice(string, 0, cap) : string);
  if (!cut && text.length * 3 <= cap) return text;
  const whole = new Bytes(cap);
  const read = encodeInto(encoder, text, whole).read;
  if (!cut && read === text.length) return text;
  if (cap < 4 * TRUNCATED_BYTES) return slice(text, 0, read);
  const kept = encodeInto(encoder, text, new Bytes(cap - TRUNCATED_BYTES)).read;
  return slice(text, 0, kept) + TRUNCATED;
}

/** JSON escapes a lone surrogate (`\ud800`), which strict readers refuse: make it U+FFFD, as UTF-8 encoding would. */
function withoutLoneSurrogates(json) {
  let clean = "";
  let done = 0;
  let at = indexOf(json, "\\", 0);
  while (at !== -1) {
    const unit = escapedSurrogate(json, at);
    if (unit === 0) {
      at = indexOf(json, "\\", at + 2);
    } else if (unit < 0xdc00 && escapedSurrogate(json, at + 6) >= 0xdc00) {
      at = indexOf(json, "\\", at + 12);
    } else {
      clean += slice(json, done, at) + "\ufffd";
      done = at + 6;
      at = indexOf(json, "\\", done);
    }
  }
  return done === 0 ? json : clean + slice(json, done);
}

function escapedSurrogate(json, at) {
  if (charCodeAt(json, at) !== 0x5c || charCodeAt(json, at + 1) !== 0x75) return 0;
  let unit = 0;
  for (let i = at + 2; i < at + 6; i++) {
    const code = charCodeAt(json, i);
    const digit = code < 0x40 ? code - 0x30 : (code | 0x20) - 0x57;
    unit = unit * 16 + digit;
  }
  return unit >= 0xd800 && unit <= 0xdfff ? unit : 0;
}

/** Base64 with padding. */
function toBase64(bytes, size) {
  const text = new Bytes(((size + 2 - ((size + 2) % 3)) / 3) * 4);
  let at = 0;
  for (let i = 0; i < size; i += 3) {
    const left = size - i;
    const group = (bytes[i] << 16) | (left > 1 ? bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
    text[at++] = ALPHABET[group >>> 18];
    text[at++] = ALPHABET[(group >>> 12) & 63];
    text[at++] = left > 1 ? ALPHABET[(group >>> 6) & 63] : PADDING;
    text[at++] = left > 2 ? ALPHABET[group & 63] : PADDING;
  }
  return decode(decoder, text);
}

function hasControls(text) {
  for (let i = 0; i < text.length; i++) {
    const code = charCodeAt(text, i);
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) return true;
  }
  return false;
}

const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

/** What was thrown, as three strings. Runs code of the handler's (getters, traps, toString), each time in a `try`. */
function describe(thrown, format, cap) {
  if (!isObject(thrown)) return { __proto__: null, name: "Error", message: clip(Text(thrown), cap), stack: "" };
  const read = (key) => {
    try {
      const value = thrown[key];
      if (typeof value === "string") return value;
      return value === undefined || value === null ? undefined : Text(value);
    } catch {
      return undefined;
    }
  };
  const stack = read("stack");
  let message = read("message");
  if (message === undefined) {
    try {
      message = Text(format(thrown));
    } catch {
      message = "a thrown object that cannot be shown";
    }
  }
  const name = clip(read("name") ?? "Error", 256);
  return { __proto__: null, name, message: clip(message, cap), stack: clip(withoutRunner(slice(stack ?? "", 0, cap)), cap) };
}

/** The runner's own frames say nothing to the handler's author. */
function withoutRunner(stack) {
  let kept = "";
  let start = 0;
  while (start <= stack.length) {
    const newline = indexOf(stack, "\n", start);
    const end = newline === -1 ? stack.length : newline;
    const line = slice(stack, start, end);
    if (indexOf(line, "/runtime/") === -1) kept += (start === 0 ? "" : "\n") + line;
    start = end + 1;
  }
  return kept;
}

/** Not a literal with a tail in `import()`: Deno would scan the workspace for it before anything runs. */
function fileUrl(main) {
  const parts = split(main, "/");
  let url = "file:///workspace";
  for (let i = 0; i < parts.length; i++) url += "/" + encodeComponent(parts[i]);
  return url;
}

/**
 * Serves one request.
 *
 * `host`: `runtime`, `version`, `read(bytes)` and `write(bytes)` (synchronous, may be partial, return a count),
 * `seal()` (the last call is read: close its descriptor), `setEnv(name, value)`, `exit(code)`, `inspect(value)`,
 * `makeConsole(print)` (an object with the runtime's console methods, each of which calls `print(text, isWarning)`),
 * `onStray(listener)` (uncaught errors and unhandled rejections), and for files: `list(folder, visit)` (each name), `look(path)`
 * (a plain file's size, -1 for a folder, -2 for all else; no link is followed), `readFile(path, bytes)` (how many came).
 *
 * What can be done before the request is known is done before `ready`: a runner often waits long before it is asked.
 */
export function serve(host) {
  const { read, write, exit, inspect, list, look, readFile } = host;
  let settled = false;
  let limits;
  let tag;
  let event;
  let context;
  let out;
  let keep = false;
  let called = false;
  let logBudget = 0;
  let printed;
  replaceConsole();
  host.onStray((error) => fail("handler_error", error));
  send(`{"type":"ready","protocol":1,"runtime":${stringify(host.runtime)},"version":${stringify(host.version)}}`);
  begin(receive());

  function begin(request) {
    ({ limits } = request);
    tagWith(request.nonce);
    if (request.task === "execute") takeCall(request);
    execute(request.main);
  }

  function tagWith(nonce) {
    tag = `"nonce":${stringify(nonce)}`;
    logBudget = limits.logBytes;
  }

  function takeCall(request) {
    called = true;
    ({ event, context, out } = request);
    keep = request.keep === true;
    if (!keep) host.seal();
    const names = keys(event.env ?? {});
    for (let i = 0; i < names.length; i++) {
      try {
        host.setEnv(names[i], event.env[names[i]]);
      } catch {
        // Outside the list that the host allows: such a variable is in event.env only.
      }
    }
  }

  async function execute(main) {
    let handler;
    try {
      handler = (await import(fileUrl(main))).handler;
    } catch (error) {
      return fail("handler_error", error);
    }
    if (typeof handler !== "function") {
      const found = handler === undefined ? "does not export" : `exports something of type ${handler === null ? "null" : typeof handler} as`;
      return failWith("no_handler", "TypeError", `${main} ${found} "handler": export a function handler(event, context)`);
    }
    if (settled) return;
    send(`{"type":"imported",${tag}}`);
    // A prepared environment waits here, with its event loop at rest, for the call that it was made for.
    if (!called) takeCall(receive());
    for (;;) {
      let value;
      try {
        value = await apply(handler, undefined, [event, context]);
      } catch (error) {
        return fail("handler_error", error);
      }
      if (settled) return;
      answer(value);
      // What this call left behind has its say now, while nobody listens; then the thread stands still until the next one comes.
      await turn();
      const next = receive();
      settled = false;
      tagWith(next.nonce);
      takeCall(next);
    }
  }

  /**
   * Waits for the shortest timer, 1 ms: those that were set before ring before it. In gVisor, where every sleep may take 1 ms longer, a loop
   * that sleeps for it takes 2 to 3 ms, one that turns again and again at the end 1.1.
   */
  async function turn() {
    let rung = false;
    after(() => {
      rung = true;
    }, 0);
    nap(pause, 0, 0, 0.5);
    while (!rung) await new Later((then) => soon(then));
  }

  function answer(value) {
    let json;
    try {
      json = value === undefined ? "null" : stringify(value);
    } catch (error) {
      return fail("invalid_result", error);
    }
    if (typeof json !== "string") {
      return failWith("invalid_result", "TypeError", `JSON cannot carry the result, of type ${typeof value}`);
    }
    const cap = limits.resultBytes;
    if (json.length > cap) return tooLarge(cap);
    if (indexOf(json, "\\u") !== -1) json = withoutLoneSurrogates(json);
    if (json.length * 3 > cap && sizeOf(encode(encoder, json)) > cap) return tooLarge(cap);
    const frame = `{"type":"result",${tag},"json":${stringify(json)}}`;
    if (out !== undefined && !sendFiles()) return;
    if (!keep) return settle(frame);
    settled = true;
    send(frame);
  }

  /** Sends the plain files below /tmp/out. False when there is too much of them, or one that cannot be sent: that settles. */
  function sendFiles() {
    let { bytes, files } = out;
    const walk = (folder, below, depth) => {
      const names = { __proto__: null, count: 0 };
      try {
        list(folder, (name) => {
          names[names.count++] = name;
        });
      } catch {
        // Nobody made the folder, or could.
        if (depth === 0) return true;
        return unreadable(below);
      }
      for (let i = 0; i < names.count; i++) {
        const name = names[i];
        if (typeof name !== "string") return unreadable("a name");
        const path = below === "" ? name : below + "/" + name;
        if (path.length > OUT_PATH || hasControls(path)) return unreadable("a name");
        const whole = folder + "/" + name;
        let size;
        let content;
        let got = 0;
        try {
          size = look(whole);
          if (typeof size !== "number") return unreadable(path);
          if (size >= 0 && size <= bytes) {
            content = new Bytes(size + 1);
            got = readFile(whole, content);
          }
        } catch {
          return unreadable(path);
        }
        if (size === -1) {
          if (depth >= OUT_DEPTH) return unreadable(path);
          if (!walk(whole, path, depth + 1)) return false;
        } else if (size >= 0) {
          files -= 1;
          bytes -= size > bytes ? size : got;
          if (files < 0 || bytes < 0) {
            failWith("output_limit", "RangeError", `${OUT} holds more than ${out.files} files or ${out.bytes} bytes`);
            return false;
          }
          send(`{"type":"file",${tag},"path":${stringify(path)},"content":"${toBase64(content, got)}"}`);
        }
      }
      return true;
    };
    return walk(OUT, "", 0);
  }

  function unreadable(what) {
    failWith("invalid_result", "Error", `${what} in ${OUT} cannot be read, is nested too deep, or has a name that is too long or holds a control character`);
    return false;
  }

  function tooLarge(cap) {
    failWith("output_limit", "RangeError", `the result is larger than ${cap} bytes`);
  }

  function fail(kind, thrown) {
    if (settled) return;
    const error = describe(thrown, inspect, limits.messageBytes);
    failWith(kind, error.name, error.message, error.stack);
  }

  function failWith(kind, name, message, stack = "") {
    const error = `{"name":${stringify(name)},"message":${stringify(message)},"stack":${stringify(stack)}}`;
    settle(`{"type":"failure",${tag},"kind":"${kind}","error":${error}}`);
  }

  function settle(frame) {
    if (settled) return;
    settled = true;
    try {
      send(frame);
      // The daemon ends the sandbox when it has answered: one that went at once would take the processor from the answer.
      if (limits.lingerMs > 0) nap(pause, 0, 0, limits.lingerMs);
    } finally {
      exit(0);
    }
  }

  function log(level, text) {
    if (settled || logBudget <= 0) return;
    let end = text.length;
    while (end > 0 && charCodeAt(text, end - 1) === NEWLINE) end--;
    const message = stringify(clip(slice(text, 0, end), limits.messageBytes));
    const frame = `{"type":"log",${tag},"level":"${level}","message":${message},"timestamp":${now()}}`;
    logBudget -= frame.length;
    send(logBudget > 0 ? frame : `{"type":"log",${tag},"level":"truncated"}`);
  }

  /** Each method keeps the runtime's own formatting and grouping; what one call prints becomes one frame of its level. */
  function replaceConsole() {
    const made = host.makeConsole((text, warning) => {
      if (printed === undefined || typeof text !== "string") return;
      printed.text = printed.text === undefined ? text : printed.text + text;
      printed.warning ||= warning;
    });
    const target = globalThis.console;
    const methods = keys(made);
    for (let i = 0; i < methods.length; i++) {
      const name = methods[i];
      const captured = made[name];
      if (typeof captured === "function") {
        define(target, name, { __proto__: null, value: speak(made, name, captured), writable: true, enumerable: true, configurable: true });
      }
    }
  }

  function speak(made, name, captured) {
    const own = LEVELS[name] ?? "log";
    const speaker = {
      [name](...args) {
        if (settled || logBudget <= 0) return;
        const outer = printed;
        printed = { __proto__: null, text: undefined, warning: false };
        try {
          apply(captured, made, args);
        } catch {
          printed.text ??= "[a value that cannot be shown]";
        }
        const { text, warning } = printed;
        printed = outer;
        if (text !== undefined) log(own === "log" && warning ? "warn" : own, name === "trace" ? withoutRunner(text) : text);
      },
    };
    return speaker[name];
  }

  function send(frame) {
    if (frame.length * 3 <= SMALL) {
      const size = encodeInto(encoder, frame, scratchBody).written;
      putSize(size);
      return writeAll(scratch, 0, 4 + size);
    }
    const body = encode(encoder, frame);
    putSize(sizeOf(body));
    writeAll(scratch, 0, 4);
    writeAll(bufferOf(body), offsetOf(body), sizeOf(body));
  }

  function putSize(size) {
    scratchHeader[0] = size >>> 24;
    scratchHeader[1] = size >>> 16;
    scratchHeader[2] = size >>> 8;
    scratchHeader[3] = size;
  }

  function writeAll(buffer, offset, size) {
    const end = offset + size;
    while (offset < end) offset += patiently(write, new Bytes(buffer, offset, end - offset));
  }

  function receive() {
    const header = receiveExactly(4);
    const size = ((header[0] << 24) | (header[1] << 16) | (header[2] << 8) | header[3]) >>> 0;
    // Of its own: what a handler put on Object.prototype is no part of a later request.
    return setPrototypeOf(parse(decode(decoder, receiveExactly(size))), null);
  }

  function receiveExactly(size) {
    const buffer = new ArrayBuffer(size);
    let got = 0;
    while (got < size) {
      const count = patiently(read, new Bytes(buffer, got, size - got));
      // The daemon hung up before it sent a request: this sandbox is not wanted any more.
      if (!count) return exit(0);
      got += count;
    }
    return new Bytes(buffer);
  }

  function patiently(operation, bytes) {
    for (;;) {
      try {
        return operation(bytes);
      } catch (error) {
        if (error.code !== "EAGAIN" && error.code !== "EINTR") throw error;
        nap(pause, 0, 0, 1);
      }
    }
  }
}
