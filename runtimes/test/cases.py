"""Handlers, good and hostile, and what a strict host must see of each."""

CASES = {}


def case(name, source, want="ok", main="main.js", modules=None, **more):
    CASES[name] = {"modules": {main: source, **(modules or {})}, "main": main, "want": want, **more}


def handler(body):
    return f"export async function handler(event, context) {{ {body} }}"


# What every handler may count on.
case("gives event and context", "export const handler = (e, c) => [e, c.requestId]", data={"a": [1, "ü"]}, env={"K": "v"},
     json=[{"data": {"a": [1, "ü"]}, "env": {"K": "v"}}, "r"])
case("sets the environment", handler("return [event.env.K, process.env.K, globalThis.Deno?.env.get('K') ?? 'v']"), env={"K": "v"}, json=["v"] * 3)
case("undefined is null", handler(""), json=None)
case("awaits a thenable", "export const handler = () => ({ then(done) { done(7) } })", json=7)
case("runs TypeScript", "interface E { data: number }\nenum X { A = 3 }\nnamespace N { export const q = 1 }\n"
     "class P { constructor(private readonly x: number) {} get y(): number { return this.x } }\n"
     "import type { T } from './t.ts'; import { U, u } from './t.ts';\n"
     "export const handler = (e: E): number => { const v: U = u; return X.A + N.q + new P(5).y + (v as number) satisfies T }",
     main="main.ts", modules={"t.ts": "export type T = number; export type U = number; export const u: U = 10;"}, json=19)
case("stack names the source line", "interface A {\n a: number\n}\n\nexport function handler(e: A) {\n  throw new TypeError('five')\n}", "handler_error",
     main="main.ts", error="five", check=lambda g: g["error"]["name"] == "TypeError" and "/workspace/main.ts:6:" in g["error"]["stack"] and "/runtime/" not in g["error"]["stack"])
case("odd file names", "import { x } from './aü b.js'; export const handler = () => x", main="dir é/m a%20i#n&+ש.js", modules={"dir é/aü b.js": "export const x = 1"}, json=1)
case("a question mark in the name", "export const handler = () => 1", {"deno": "ok", "bun": "handler_error"}, main="m?n.js", json=1)
case("levels and formats", handler("console.debug('%s-%d', 'a', 1); console.info({ a: 1 }); console.log(); console.warn(new Map([[1, 2]])); console.error('e\\n'); console.trace('t')"),
     check=lambda g: [(l["level"], l["message"].split("\n")[0]) for l in g["logs"]][:5] == [("debug", "a-1"), ("info", "{ a: 1 }"), ("log", ""), ("warn", "Map(1) { 1 => 2 }"), ("error", "e")]
     and len(g["logs"]) == 6 and "t" in g["logs"][5]["message"] and "main.js" in g["logs"][5]["message"])
case("logs while it imports", "console.log('early'); export const handler = () => 1", check=lambda g: g["logs"][0]["message"] == "early")
case("stdout is the handler's", handler("await (globalThis.Deno ? Deno.stdout.write(new TextEncoder().encode('hello')) : Bun.write(Bun.stdout, 'hello')); return 1"),
     check=lambda g: g["stdout"] == b"hello")
case("eleven megabytes of event", "export const handler = (e) => e.data.length", data="é" * 5_500_000, json=5_500_000)
case("eight megabytes of result", handler("return '\"'.repeat(4e6)"), limits={"resultBytes": 9_000_000}, check=lambda g: len(g["json"]) == 8_000_002)

# No result, no handler.
case("no handler", "export const x = 1", "no_handler", error='does not export "handler"')
case("handler is no function", "export const handler = 5", "no_handler", error="number")
case("handler in its dead zone", "export { handler }; await 0; setTimeout(() => {}, 0); class X { static { throw new Error('never') } } let handler = 1", "handler_error")
case("missing module", "import './gone.js'; export const handler = () => 1", "handler_error", error="gone.js")
case("syntax error", "export const handler = (", "handler_error")
case("syntax error in TypeScript", "export const handler = (a: ) => 1", "handler_error", main="main.ts")
case("throws at top level", "throw new RangeError('top')", "handler_error", error="top", check=lambda g: not g["imported"])
case("remote import", "import 'https://example.com/x.js'; export const handler = () => 1", "handler_error")
case("remote dynamic import", handler("await import('https://example.com/x.js')"), "handler_error")
case("npm import", "import 'npm:left-pad@1.3.0'; export const handler = () => 1", "handler_error")
case("bare import", "import 'left-pad'; export const handler = () => 1", "handler_error")
case("jsr import", "import 'jsr:@std/assert'; export const handler = () => 1", "handler_error")
case("namespace with then", "export const handler = () => 1; export function then(done) { done({ handler: () => 2 }) }", json=2)
case("namespace whose then never calls", "export const handler = () => 1; export function then() {}", "no_result")
case("pending promise, empty loop", "export const handler = () => new Promise(() => {})", "no_result")
case("pending import, empty loop", "await new Promise(() => {}); export const handler = () => 1", ("no_result", "handler_error"))
case("pending promise, busy loop", handler("setInterval(() => {}, 10); await new Promise(() => {})"), "timeout", timeout=1)
case("endless loop", handler("for (;;);"), "timeout", timeout=1, check=lambda g: g["phase"] == "handler")
case("endless import", "for (;;);", "timeout", timeout=1, check=lambda g: g["phase"] == "import")
case("process.exit", handler("process.exit(3)"), "no_result", check=lambda g: g["exit"] == 3)
case("Deno.exit", handler("Deno.exit(0)"), "no_result", only=["deno"], check=lambda g: g["exit"] == 0)
case("abort", handler("process.abort()"), "no_result")
case("kills itself", handler("process.kill(process.pid, 9)"), "no_result", check=lambda g: g["exit"] == 137)
case("an exit listener that never returns", handler("process.on('exit', () => { for (;;); }); return 1"), timeout=5)

# Throwing.
for text, shown in (("null", "null"), ("undefined", "undefined"), ("'text'", "text"), ("Symbol('s')", "Symbol(s)"), ("10n", "10"), ("{ code: 5 }", "code: 5"),
                    ("Object.create(null)", ""), ("() => 1", "")):
    case(f"throws {text}", handler(f"throw {text}" if text[0] != "{" else f"throw ({text})"), "handler_error", error=shown)
case("throws 100 MB", handler("throw new Error('é'.repeat(5e7))"), "handler_error",
     check=lambda g: len(g["error"]["message"].encode()) <= 65536 and g["error"]["message"].endswith("… [truncated]"))
case("throws lone surrogates", handler("throw new Error('\\ud800x\\udc00')"), "handler_error", error="\ufffdx\ufffd")
TRAPS = "new Proxy(function () {}, new Proxy({}, { get() { throw new Error('trap') } }))"
case("throws a proxy that throws", handler(f"throw {TRAPS}"), "handler_error")
case("returns a proxy that throws", handler(f"return {{ a: {TRAPS} }}"), ("invalid_result", "ok"))
case("logs a proxy that throws", handler(f"console.log({TRAPS}); return 1"), check=lambda g: len(g["logs"]) == 1)
case("throws hostile getters", handler("throw { get name() { throw 1 }, get message() { throw 2 }, get stack() { throw 3 }, [Symbol.for('nodejs.util.inspect.custom')]() { throw 4 }, [Symbol.for('Deno.customInspect')]() { throw 4 } }"), "handler_error")
case("throws a message with toString", handler("throw { name: 5, message: { toString() { return 'made' } } }"), "handler_error", error="made")
case("throws from prepareStackTrace", handler("Error.prepareStackTrace = () => { throw new Error('p') }; throw new Error('q')"), "handler_error")
case("stack overflow", handler("(function f() { f() })()"), "handler_error")
case("unhandled rejection while it runs", handler("Promise.reject(new Error('stray')); await new Promise((r) => setTimeout(r, 3000))"), "handler_error", error="stray", seconds=2)
case("uncaught in a timer", handler("setTimeout(() => { throw new Error('timer') }, 1); await new Promise((r) => setTimeout(r, 3000))"), "handler_error", error="timer", seconds=2)
case("rejection after return", handler("setTimeout(() => Promise.reject(1)); Promise.reject(2); return 1"), json=1)
case("work left behind", handler("setInterval(() => {}, 1); new Worker(URL.createObjectURL(new Blob(['for(;;);'])), { type: 'module' }); return 1"), json=1)

# Results.
case("prepared, then called", "console.log('early'); export const handler = (e, c) => [e, c.requestId, globalThis.process.env.K]", data=1, env={"K": "v"}, prepare=True, json=[{"data": 1, "env": {"K": "v"}}, "r", "v"])
case("prepared, but throws", "throw new Error('top')", "handler_error", prepare=True, error="top")
case("prepared, then reads the channel", "const fs = await import('node:fs'); export const handler = (e) => { try { return fs.readSync(4, new Uint8Array(9)) } catch { return 0 } }", prepare=True, json=0)
case("cycle", handler("const a = {}; a.a = a; return a"), "invalid_result")
case("BigInt", handler("return { a: 1n }"), "invalid_result")
case("function", handler("return () => 1"), "invalid_result", error="function")
case("symbol", handler("return Symbol()"), "invalid_result", error="symbol")
case("toJSON throws", handler("return { toJSON() { throw new Error('tj') } }"), "invalid_result", error="tj")
case("toJSON throws null", handler("return { toJSON() { throw null } }"), "invalid_result", error="null")
case("toJSON gives undefined", handler("return { toJSON() {} }"), "invalid_result")
case("toJSON loops", handler("return { toJSON() { for (;;); } }"), "timeout", timeout=1)
case("too large", handler("return 'x'.repeat(5e6)"), "output_limit")
case("too large in bytes only", handler("return 'é'.repeat(3e6)"), "output_limit")
# Bun needs 10 s and more to make and refuse this: a real host's time limit ends it first.
case("1 GB of toJSON", handler("return Array(1024).fill({ toJSON() { return 'x'.repeat(1 << 20) } })"), ("invalid_result", "output_limit", "no_result"), timeout=60, seconds=60)
case("deep result", handler("let a = []; for (let i = 0; i < 5e5; i++) a = [a]; return a"), ("invalid_result", "ok"))
case("lone surrogates in the result", handler("return ['\\ud800', '\\\\ud800', '\\udfff!', '😀', {'\\udc00': 1}]"), json=["\ufffd", "\\ud800", "\ufffd!", "😀", {"\ufffd": 1}])
case("raw JSON surrogates", handler("return [JSON.rawJSON ? JSON.rawJSON('\"\\\\uD83D\\\\uDE00\\\\uD800\"') : '😀\ufffd']"), json=["😀\ufffd"])
case("__proto__ keys", handler("return JSON.parse('{\"__proto__\": {\"x\": 1}, \"a\": event.data}'.replace('event.data', '2'))"), json={"__proto__": {"x": 1}, "a": 2})

# Polluted prototypes.
POISON = """
const poison = () => { throw new Error('poisoned') };
const steal = [];
Object.prototype.toJSON = function () { steal.push(this); return 'owned' };
for (const proto of [Array.prototype, String.prototype, Function.prototype, Promise.prototype, Uint8Array.prototype, Object.getPrototypeOf(Uint8Array.prototype),
  ArrayBuffer.prototype, TextEncoder.prototype, TextDecoder.prototype, Number.prototype, Date.prototype, RegExp.prototype, Map.prototype, Error.prototype, DataView.prototype, Symbol.prototype])
  for (const key of Reflect.ownKeys(proto)) { if (key === 'constructor') continue; try { Object.defineProperty(proto, key, { configurable: true, get: poison, set: poison }) } catch {} }
for (const [o, ks] of [[JSON, ['parse', 'stringify']], [Reflect, Reflect.ownKeys(Reflect)], [Object, ['keys', 'defineProperty', 'getOwnPropertyDescriptor']], [Date, ['now']], [globalThis, ['String', 'Uint8Array', 'Promise', 'Error', 'encodeURIComponent', 'TextEncoder', 'Date', 'Atomics']]])
  for (let i = 0; i < ks.length; i++) try { o[ks[i]] = poison } catch {}
""".replace("for (const proto of [", "const protos = [", 1).replace("Symbol.prototype])\n  for (const key of Reflect.ownKeys(proto)) {", "Symbol.prototype];\nconst own = Reflect.ownKeys, def = Object.defineProperty;\nconst all = []; for (let i = 0; i < protos.length; i++) all[i] = own(protos[i]);\nconst tables = [[JSON, ['parse', 'stringify']], [Reflect, own(Reflect)], [Object, ['keys', 'defineProperty', 'getOwnPropertyDescriptor']], [Date, ['now']], [globalThis, ['String', 'Uint8Array', 'Promise', 'Error', 'encodeURIComponent', 'TextEncoder', 'Date', 'Atomics']]];\nfor (let i = 0; i < protos.length; i++) for (let j = 0; j < all[i].length; j++) { const proto = protos[i], key = all[i][j];").replace(
    "for (const [o, ks] of [[JSON, ['parse', 'stringify']], [Reflect, Reflect.ownKeys(Reflect)], [Object, ['keys', 'defineProperty', 'getOwnPropertyDescriptor']], [Date, ['now']], [globalThis, ['String', 'Uint8Array', 'Promise', 'Error', 'encodeURIComponent', 'TextEncoder', 'Date', 'Atomics']]])\n",
    "for (let t = 0; t < tables.length; t++) { const o = tables[t][0], ks = tables[t][1];\n").replace("try { o[ks[i]] = poison } catch {}", "try { o[ks[i]] = poison } catch {} }")
case("everything poisoned in the handler", "export function handler() {" + POISON + "return 5 }", json=5)
case("everything poisoned at import", POISON + "export function handler() { return 5 }", json=5)
case("poisoned and logging", "export function handler() {" + POISON + "console.log('x'); return 5 }", json=5, check=lambda g: len(g["logs"]) == 1)
case("poisoned and throwing", "export function handler() {" + POISON + "throw 'x' }", "handler_error", error="x")
case("toJSON on Object.prototype", handler("Object.prototype.toJSON = function () { return 'owned' }; console.log('a'); return { a: 1 }"), json="owned", check=lambda g: g["logs"][0]["message"] == "a")
SPY = "const record = (v) => { if (busy) return; busy = true; try { const d = bare(null); d.value = v; define(seen, n++, d) } finally { busy = false } }; const bare = Object.create; const seen = []; const spy = { configurable: true, get() { record(this); return undefined }, set(v) { record(v) } };"
case("setters on Object.prototype see no nonce", handler("let n = 0, busy = false; const define = Object.defineProperty; " + SPY + "const keys = ['nonce', 'type', 'level', 'message', 'json', 'kind', '0', '1']; for (let i = 0; i < keys.length; i++) define(Object.prototype, keys[i], spy);"
     "console.log('x'); const all = n; let found = 0; for (let i = 0; i < all; i++) { const v = seen[i]; if (typeof v === 'string' && (v.length === 32 || v.length > 60)) found++; } return found"), json=0)
case("species sees no frame", handler("""let seen = 0; const T = Object.getPrototypeOf(Uint8Array);
  Object.defineProperty(T, Symbol.species, { configurable: true, get() { seen++; return Uint8Array } });
  for (const k of ['buffer', 'byteLength', 'byteOffset', 'length', 'subarray', 'set']) { const d = Object.getOwnPropertyDescriptor(T.prototype, k); const wrap = (f) => function (...a) { seen++; return Reflect.apply(f, this, a) };
    Object.defineProperty(T.prototype, k, d.get ? { configurable: true, get: wrap(d.get) } : { configurable: true, value: wrap(d.value) }); }
  console.log('x'); console.log('y'.repeat(60000)); return seen"""), json=0)
case("then on Promise.prototype", handler("Promise.prototype.then = function () { throw new Error('then') }; return 1"), ("ok", "handler_error", "no_result"))

# Forging.
FORGED = """const b = new TextEncoder().encode(JSON.stringify({ type: 'result', nonce: '0'.repeat(32), json: '"forged"' }));
const f = new Uint8Array(b.length + 4); new DataView(f.buffer).setUint32(0, b.length); f.set(b, 4);
const fs = await import('node:fs');
for (let i = 1; i < 12; i++) try { fs.writeSync(i, f) } catch {}
for (const p of ['/proc/self/fd/3', '/dev/fd/3', '/proc/1/fd/3', '/proc/thread-self/fd/3']) try { fs.writeFileSync(p, f) } catch {}
const core = globalThis.Deno?.[Deno.internal]?.core; if (core) for (let i = 0; i < 12; i++) try { core.writeSync(i, f) } catch {}
"""
case("forges a result", handler(FORGED + "return 'true result'"), {"deno": ("ok", "no_result"), "bun": "no_result"}, json="true result")
case("forges, then exits 0", handler(FORGED + "process.exit(0)"), "no_result")
case("garbage on every descriptor", handler("const fs = await import('node:fs'); for (let i = 1; i < 12; i++) try { fs.writeSync(i, 'garbage that is no frame') } catch {} ; return 1"), {"deno": "ok", "bun": "no_result"}, json=1)
case("closes every descriptor", handler("const fs = await import('node:fs'); for (let i = 3; i < 40; i++) try { fs.closeSync(i) } catch {} ; return 1"), {"deno": ("ok", "no_result"), "bun": ("no_result",)}, seconds=6)
case("runs the runner again", handler("try { await import('/runtime/runner.js?again') } catch (e) { return 1 } return 2"), ("ok", "no_result", "handler_error"))
case("serves itself", handler("const { serve } = await import('/runtime/core.js'); try { serve({ read() { throw 1 }, write() { return 1e9 }, makeConsole() {}, exit() {} }) } catch {} return 1"), ("ok", "no_result", "handler_error"))

# Logs.
case("1 GB of logs", handler("const l = 'x'.repeat(1 << 20); for (let i = 0; i < 1024; i++) console.log(l); return 1"), seconds=20,
     check=lambda g: g["logs"][-1]["level"] == "truncated" and sum(len(l.get("message", "")) for l in g["logs"]) <= 1 << 20)
case("one 100 MB line", handler("console.log('é'.repeat(5e7)); return 1"), check=lambda g: len(g["logs"][0]["message"].encode()) <= 65536, seconds=10)
case("endless empty logs", handler("for (let i = 0; i < 1e6; i++) console.log(); return 1"), seconds=20, check=lambda g: len(g["logs"]) < 20000 and g["logs"][-1]["level"] == "truncated")
case("NUL, ANSI and lone surrogates", handler("console.log('\\0\\x1b[31m\\ud800'); return 1"), check=lambda g: g["logs"][0]["message"] == "\0\x1b[31m\ufffd")
case("console that logs itself", handler("console.log({ get a() { return 1 }, [Symbol.for('nodejs.util.inspect.custom')]() { console.log('inner'); return 'outer' } }); return 1"), check=lambda g: [l["message"] for l in g["logs"]][0] == "inner")
case("odd console methods", handler("for (const k of Object.keys(console)) if (!['record','takeHeapSnapshot','screenshot','profile','profileEnd'].includes(k) && typeof console[k] === 'function') try { console[k]('x') } catch (e) {} return 1"))

# Steering by files of the workspace.
STEER = {"bunfig.toml": 'preload = ["./steer.js"]\n', ".env": "STEERED=1\n", "package.json": '{"type": "module", "imports": {"#x": "./x.js"}, "scripts": {"preload": "x"}}', "deno.json": '{"imports": {"steer": "./steer.js"}, "compilerOptions": {"jsx": "x"}, "lock": "x"}',
         "deno.lock": "broken", "tsconfig.json": '{"compilerOptions": {"paths": {"steer": ["./steer.js"]}}}', ".npmrc": "registry=http://127.0.0.1:1/", "steer.js": "globalThis.steered = 1"}
case("files that would steer", handler("return [globalThis.steered ?? 0, globalThis.process.env.STEERED ?? 0]"), modules=STEER, json=[0, 0])
case("reads the workspace", handler("const fs = await import('node:fs'); return fs.readFileSync('/workspace/a.txt', 'utf8')"), modules={"a.txt": "text"}, json="text")
case("writes nowhere but /tmp", handler("const fs = await import('node:fs'); const r = []; for (const d of ['/workspace', '/', '/runtime', '/usr', '/dev']) try { fs.writeFileSync(d + '/x', 'x'); r.push(d) } catch {} return r"), json=[])
case("sees no host", handler("const fs = await import('node:fs'); const r = []; for (const f of ['/etc/shadow', '/proc/kallsyms', '/sys/kernel', '/sys/devices', '/dev/sda', '/root']) try { fs.statSync(f); r.push(f) } catch {} return r"), json=[])

# With the runtime's own modules already loaded, as in a warm pool.
for name in ("sets the environment", "levels and formats", "unhandled rejection while it runs", "uncaught in a timer", "pending promise, empty loop", "forges, then exits 0",
             "everything poisoned in the handler", "rejection after return", "process.exit", "work left behind"):
    CASES["warm: " + name] = {**CASES[name], "only": ["deno"], "arguments": ["warm"]}
