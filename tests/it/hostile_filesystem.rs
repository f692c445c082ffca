//! What a handler can see, name and leave on disk (rows D1–D5), and the system calls it cannot make (F1).

use serde_json::{Value, json};

use crate::support::tier::{Tier, on_every_tier};
use crate::support::{Daemon, RUNTIMES, Settings};

on_every_tier!(d1_the_host_is_absent);

async fn d1_the_host_is_absent(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default().env("SECRET_OF_THE_DAEMON", "canary-4711")).await;
    let client = daemon.client();
    let source = r#"
import fs from "node:fs";
import os from "node:os";
const read = (path) => { try { return fs.readFileSync(path, "latin1").slice(0, 4000) } catch (e) { return null } };
const list = (path) => { try { return fs.readdirSync(path).sort() } catch (e) { return null } };
export const handler = (event) => ({
  files: Object.fromEntries(event.data.map((path) => [path, read(path)])),
  root: list("/"), proc: (list("/proc") ?? []).filter((name) => /^\d+$/.test(name)).length,
  dev: list("/dev"), sys: list("/sys") ?? [], env: Object.keys(process.env).sort(),
  host: (() => { try { return os.hostname() } catch { return null } })(),
});"#;
    let state = daemon.home.state();
    let paths = [
        "/etc/shadow",
        "/etc/passwd",
        "/proc/1/environ",
        "/proc/self/environ",
        "/proc/kallsyms",
        "/proc/kcore",
        "/root/.bashrc",
        "/var/lib/cloister/cloister.db",
        "/proc/self/mounts",
    ];
    let host_name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for runtime in RUNTIMES {
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
            "permissions": { "allowRead": true } });
        let made = client.set_up(request).await;
        let id = made.json["id"].as_str().unwrap();
        let answer = client.execute(id, json!({ "data": paths, "limits": { "timeoutMs": 30000 } })).await;
        let seen = answer.expect("ok").result();
        assert_eq!(seen["files"]["/etc/shadow"], Value::Null, "{runtime}");
        assert_eq!(seen["files"]["/root/.bashrc"], Value::Null);
        for secret in ["canary-4711", crate::support::daemon::TOKEN, &state.to_string_lossy()] {
            assert!(!answer.text.contains(secret), "{runtime} shows {secret}: {}", answer.text);
        }
        let passwd = seen["files"]["/etc/passwd"].as_str().unwrap_or_default();
        assert!(passwd.lines().count() <= 3, "{runtime}: {passwd}");
        assert_eq!(seen["sys"], json!([]), "{runtime}");
        assert!(seen["proc"].as_u64().unwrap() <= 2, "{runtime} sees {} processes", seen["proc"]);
        assert_ne!(seen["host"], json!(host_name));
        // Deno itself refuses /dev to whoever lacks all of its permissions.
        let devices = seen["dev"].as_array().cloned().unwrap_or_default();
        // The sentry's own devices, none of the host's.
        let harmless = [
            "fd", "full", "fuse", "net", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
            "urandom", "zero",
        ];
        assert!(devices.iter().all(|name| harmless.contains(&name.as_str().unwrap())), "{runtime}: {devices:?}");
    }
}

#[tokio::test]
async fn d2_module_names_stay_inside_or_are_refused() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let deep = vec!["d"; 50].join("/") + "/x.js";
    let long = "x".repeat(300);
    let names = [
        "../x",
        "/abs",
        "a/../../b",
        "nul\0",
        "new\nline",
        "-rf",
        "with space",
        "\u{202e}gnp.js",
        "e\u{301}.js",
        "node_modules/x",
        "deno.json",
        "package.json",
        ".npmrc",
        "bunfig.toml",
        ".env",
        deep.as_str(),
        long.as_str(),
    ];
    for name in names {
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": "", name: "" } });
        client.set_up(request).await.expect_error(400, "validation_error");
    }
    let twins = json!({ "mainModule": "main.js", "modules": { "main.js": "", "A.js": "", "a.js": "" } });
    client.set_up(twins).await.expect_error(400, "validation_error");
    let volumes = daemon.home.state().join("volumes");
    let left = std::fs::read_dir(volumes).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(left, 0, "a refused set-up left a volume");
}

#[tokio::test]
async fn d3_a_link_in_a_volume_is_removed_and_never_followed() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let outside = daemon.home.root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "kept").unwrap();
    let id = client.environment("bun", "export const handler = () => 1").await;
    let volume = daemon.home.state().join("volumes").join(format!("tee-env-{id}"));
    std::os::unix::fs::symlink(&outside, volume.join("workspace").join("link")).unwrap();
    std::os::unix::fs::symlink("/", volume.join("root")).unwrap();
    assert_eq!(client.delete(&id).await.status, 204);
    assert!(!volume.exists());
    assert_eq!(std::fs::read_to_string(outside.join("precious")).unwrap(), "kept");
}

#[tokio::test]
async fn d4_calls_share_nothing() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let source = r#"
import fs from "node:fs";
globalThis.count = (globalThis.count ?? 0) + 1;
export const handler = () => {
  let left = null;
  try { left = fs.readFileSync("/tmp/left", "utf8") } catch {}
  try { fs.writeFileSync("/tmp/left", "mine") } catch {}
  return { left, count: globalThis.count, random: Math.random(), uuid: crypto.randomUUID(),
    workspace: fs.readdirSync("/workspace").sort() };
};"#;
    for runtime in RUNTIMES {
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
            "permissions": { "allowWrite": true } });
        let made = client.set_up(request).await;
        let id = made.json["id"].as_str().unwrap();
        let other = client.environment(runtime, "export const handler = () => 1").await;
        let body = || json!({ "limits": { "timeoutMs": 30000 } });
        let (first, second) = (client.execute(id, body()).await, client.execute(id, body()).await);
        let (first, second) = (first.expect("ok").result(), second.expect("ok").result());
        for seen in [first, second] {
            assert_eq!((&seen["left"], &seen["count"]), (&Value::Null, &json!(1)), "{runtime}: {seen}");
            assert_eq!(seen["workspace"], json!(["main.js"]), "{runtime} sees more than its own modules");
        }
        assert_ne!(first["random"], second["random"]);
        assert_ne!(first["uuid"], second["uuid"]);
        client.delete(&other).await;
    }
}

on_every_tier!(f1_dangerous_system_calls_fail_and_the_sandbox_lives);

async fn f1_dangerous_system_calls_fail_and_the_sandbox_lives(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let source = r#"
import { dlopen, FFIType } from "bun:ffi";
import fs from "node:fs";
const { symbols } = dlopen("libc.so.6", {
  syscall: { args: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], returns: "i64" },
});
const call = (number, ...args) => {
  while (args.length < 6) args.push(0);
  return Number(symbols.syscall(number, ...args));
};
const CLONE_NEWUSER = 0x10000000, CLONE_NEWNS = 0x20000;
export const handler = () => ({
  mount: call(165, 0, 0, 0, 0, 0), bpf: call(321, 0, 0, 0), io_uring: call(425, 1, 0), userfaultfd: call(323, 0),
  keyctl: call(250, 0, 0, 0, 0, 0), ptrace: call(101, 16, 1, 0, 0), init_module: call(175, 0, 0, 0),
  reboot: call(169, 0xfee1dead, 672274793, 0, 0), setns: call(308, 0, 0), chroot_root: call(161, 0),
  kexec: call(246, 0, 0, 0, 0), perf: call(298, 0, 0, 0, 0, 0), unshare_ns: call(272, CLONE_NEWNS),
  raw: call(41, 2, 3, 1), packet: call(41, 17, 3, 0), vsock: call(41, 40, 1, 0), pidfd_getfd: call(438, 0, 0, 0),
  alive: true,
});"#;
    let answer = client.try_out("bun", source, json!({ "limits": { "timeoutMs": 30000 } })).await;
    let seen = answer.expect("ok").result().as_object().unwrap().clone();
    assert_eq!(seen["alive"], true);
    for (name, returned) in seen.iter().filter(|(name, _)| *name != "alive") {
        assert!(returned.as_i64().unwrap() < 0, "{name} succeeded with {returned}");
    }
    daemon.assert_nothing_left().await;
    client.assert_healthy_call("bun").await;
}
