//! Packages of npm: installed in a sandbox over the way out, from the registries only, without scripts (row E1).

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TOKEN;
use crate::support::far;
use crate::support::registry::{self, Package, Registry};
use crate::support::tier::{Tier, on_every_tier};
use crate::support::{Answer, Daemon, RUNTIMES, Settings, eventually};

const MIB: usize = 1 << 20;

fn package(name: &'static str, manifest: Value, source: &str) -> Package {
    Package { name, manifest, files: vec![("index.js", source.as_bytes().to_vec())] }
}

fn registry() -> Registry {
    let scripts = json!({ "scripts": { "preinstall": "exit 1", "install": "exit 1", "postinstall": "exit 1" } });
    let needing = |what: &str| json!({ "dependencies": { "needed": what } });
    Registry::start(vec![
        package(
            "pad",
            json!({ "type": "module", "dependencies": { "@in/side": "^1.0.0" } }),
            "import { side } from '@in/side'; export default (text) => side + text;",
        ),
        package("@in/side", json!({ "type": "module" }), "export const side = '__';"),
        package("scripted", scripts, "module.exports = 'quiet';"),
        package("gits", needing("git+ssh://git@127.0.0.1/x.git"), ""),
        package("hubs", needing("github:someone/something"), ""),
        package("files", needing("file:/etc"), ""),
        package("links", needing("link:/etc"), ""),
        package("away", needing("http://127.0.0.2:9/x.tgz"), ""),
        // 100 MB of nothing in 100 kB.
        Package { name: "bomb", manifest: json!({}), files: vec![("zeros", vec![0; 100 * MIB])] },
    ])
}

/// All set-ups of a test may install at once, whatever the cores.
async fn daemon(registry: &Registry) -> Daemon {
    daemon_on(Tier::Cold, registry).await
}

async fn daemon_on(tier: Tier, registry: &Registry) -> Daemon {
    let settings = Settings::default().set("sandbox.registries", &registry.url);
    let settings = settings.set("sandbox.install_deadline", "20 s").set("sandbox.boots_at_once", "8");
    Daemon::start_on(tier, settings.set("log.level", "debug")).await
}

async fn set_up(daemon: &Daemon, runtime: &str, npm: Value, source: &str) -> Answer {
    let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
        "dependencies": { "npm": npm } });
    daemon.client().set_up(request).await
}

fn volume(daemon: &Daemon, made: &Answer) -> PathBuf {
    daemon.home.state().join("volumes").join(made.json["volumeName"].as_str().unwrap())
}

on_every_tier!(e1_packages_are_installed_without_scripts_and_used_offline);
async fn e1_packages_are_installed_without_scripts_and_used_offline(tier: Tier) {
    let registry = registry();
    let daemon = daemon_on(tier, &registry).await;
    let source = "import pad from 'pad'; import fs from 'node:fs'; import quiet from 'scripted';
export const handler = async (event) => {
  let written = 'written', reached = 'reached';
  try { fs.writeFileSync('/workspace/node_modules/pad/index.js', '') } catch { written = 'refused' }
  try { await fetch(event.data) } catch { reached = 'refused' }
  return [pad('x'), quiet, written, reached, fs.existsSync('/workspace/node_modules/pad/link'), fs.existsSync('/runtime/egress.sock') && fs.statSync('/runtime/egress.sock').isSocket()];
};";
    for runtime in RUNTIMES {
        let made = set_up(&daemon, runtime, json!(["pad@1.0.0", "scripted"]), source).await;
        assert_eq!(made.status, 200, "{}", made.text);
        assert_eq!(made.json["metadata"]["dependencyCount"], 2);
        let id = made.json["id"].as_str().unwrap();
        for answer in called_until_it_is_hot(&daemon, &made, json!(registry.url)).await {
            assert_eq!(
                answer.expect("ok").result(),
                &json!(["__x", "quiet", "refused", "refused", false, false]),
                "{runtime}"
            );
        }
        let lock = std::fs::read_to_string(volume(&daemon, &made).join("lock/bun.lock")).unwrap();
        assert!(lock.contains("@in/side"), "{lock}");
        assert_eq!(daemon.client().delete(id).await.status, 204);
    }
    // The second runtime's set-up found what the first one's had installed.
    assert_eq!(registry.asked_for("pad"), 1);
    daemon.assert_nothing_left().await;
}

const READS_AND_WRITES: &str = "import pad from 'pad'; import fs from 'node:fs';
export const handler = () => {
  const tried = (act) => { try { act(); return 'done' } catch (error) { return error.code ?? error.name } };
  return [pad('x'), tried(() => fs.writeFileSync('/workspace/node_modules/pad/index.js', '')),
    tried(() => fs.appendFileSync('/workspace/node_modules/pad/index.js', 'x')),
    tried(() => fs.chmodSync('/workspace/node_modules/pad/index.js', 0o777)),
    tried(() => fs.linkSync('/workspace/node_modules/pad/index.js', '/tmp/x')),
    tried(() => fs.utimesSync('/workspace/node_modules/pad/index.js', 0, 0))];
};";

#[tokio::test]
async fn environments_with_the_same_packages_share_one_installation_that_none_of_them_can_change() {
    let registry = registry();
    let daemon = daemon(&registry).await;
    // All at once, on both runtimes, in either order.
    let orders = [json!(["pad", "scripted"]), json!(["scripted", "pad@latest"])];
    let set_ups =
        (0..4).map(|number| set_up(&daemon, RUNTIMES[number % 2], orders[number / 2].clone(), READS_AND_WRITES));
    let made = futures_util::future::join_all(set_ups).await;
    for answer in &made {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(registry.asked_for("pad"), 1, "{:?}", registry.asked.lock().unwrap());
    let file = |answer: &Answer| volume(&daemon, answer).join("workspace/node_modules/pad/index.js");
    let shared = std::fs::metadata(file(&made[0])).unwrap();
    assert_eq!(shared.nlink(), 5, "four environments, and what is kept for more");
    for answer in &made {
        assert_eq!(std::fs::metadata(file(answer)).unwrap().ino(), shared.ino());
        let id = answer.json["id"].as_str().unwrap();
        let body = json!({ "limits": { "timeoutMs": 30000 } });
        let told = daemon.client().execute(id, body).await;
        let [text, attempts @ ..] = told.expect("ok").result().as_array().unwrap().as_slice() else { panic!() };
        assert_eq!(text, "__x");
        assert!(attempts.iter().all(|attempt| attempt != "done"), "{attempts:?}");
    }
    let after = std::fs::metadata(file(&made[0])).unwrap();
    assert_eq!((after.len(), after.mode(), after.mtime()), (shared.len(), shared.mode(), shared.mtime()));
    // What one environment's end takes away is its own.
    for answer in &made[..3] {
        assert_eq!(daemon.client().delete(answer.json["id"].as_str().unwrap()).await.status, 204);
    }
    assert_eq!(std::fs::metadata(file(&made[3])).unwrap().nlink(), 2);
    // Nothing boots for what is kept.
    let booted = || daemon.log_text().matches("\"slot.created\"").count();
    let before = booted();
    let again = set_up(&daemon, "bun", orders[1].clone(), READS_AND_WRITES).await;
    assert_eq!((again.status, booted() - before), (200, 0), "{}", again.text);
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn packages_go_when_they_are_unused_or_old_and_environments_keep_theirs() {
    let registry = registry();
    let settings = Settings::default()
        .set("sandbox.registries", &registry.url)
        .set("sandbox.dependencies_fresh", "4 s")
        .set("reaper.unused_packages", "0 s")
        .set("reaper.interval", "1 s");
    let daemon = Daemon::start_with(settings).await;
    let source = "import pad from 'pad'; export const handler = () => pad('x')";
    let first = set_up(&daemon, "bun", json!(["pad"]), source).await;
    let kept = || std::fs::read_dir(daemon.home.state().join("packages")).unwrap().count();
    eventually("the kept packages' end", Duration::from_secs(20), async || match kept() {
        0 => Ok(()),
        number => Err(format!("{number} are kept")),
    })
    .await;
    let id = first.json["id"].as_str().unwrap();
    let told = daemon.client().execute(id, json!({ "limits": { "timeoutMs": 30000 } })).await;
    assert_eq!(told.expect("ok").result(), "__x");
    // The range is resolved anew.
    assert_eq!(set_up(&daemon, "bun", json!(["pad"]), source).await.status, 200);
    assert_eq!(registry.asked_for("pad"), 2);
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_loop_of_set_ups_and_deletions_does_not_fill_the_disk_and_used_packages_stay() {
    let large = |name| package(name, json!({}), &format!("module.exports = '{}'", "x".repeat(600 << 10)));
    let registry = Registry::start(["one", "two", "three"].map(large).into());
    let settings = Settings::default()
        .set("sandbox.registries", &registry.url)
        .set("sandbox.dependencies_mib", "1")
        .set("sandbox.packages_mib", "1");
    let daemon = Daemon::start_with(settings).await;
    let kept = || std::fs::read_dir(daemon.home.state().join("packages")).unwrap().count();
    let set_up = async |name| set_up(&daemon, "bun", json!([name]), "export const handler = () => 1").await;
    let delete = async |made: &Answer| daemon.client().delete(made.json["id"].as_str().unwrap()).await;
    for name in ["one", "two", "three"] {
        let made = set_up(name).await;
        assert_eq!((made.status, kept()), (200, 1), "{name}: {}", made.text);
        assert_eq!(delete(&made).await.status, 204);
    }
    let used = set_up("three").await;
    assert_eq!((used.status, registry.asked_for("three")), (200, 1));
    let refused = set_up("one").await;
    assert_eq!((refused.status, &refused.json["code"]), (500, &json!("setup_failed")));
    assert!(
        refused.text.contains("sandbox.packages_mib") && !refused.headers.contains_key("retry-after"),
        "{}",
        refused.text
    );
    assert_eq!(delete(&used).await.status, 204);
    assert_eq!((set_up("one").await.status, kept()), (200, 1));
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_while_it_installs_leaves_nothing_half_made() {
    let registry = registry();
    let daemon = daemon(&registry).await;
    let client = daemon.client();
    let begun = tokio::spawn(async move {
        let body =
            json!({ "mainModule": "main.js", "modules": { "main.js": "" }, "dependencies": { "npm": ["hangs"] } });
        drop(client.request("POST", "/environments/setup").bearer_auth(TOKEN).json(&body).send().await);
    });
    eventually("the install", Duration::from_secs(20), async || match registry.asked_for("hangs") {
        0 => Err("the registry was not asked".to_owned()),
        _ => Ok(()),
    })
    .await;
    let home = daemon.kill_only();
    begun.await.unwrap();
    // As if it had been killed a moment later, too.
    let packages = home.state().join("packages");
    std::fs::create_dir_all(packages.join(".making-0123.4/workspace/node_modules/pad")).unwrap();
    let settings = Settings::default().set("sandbox.registries", &registry.url);
    let daemon = Daemon::start_in(home, settings).await;
    daemon.assert_nothing_left().await;
    eventually("empty folders", Duration::from_secs(20), async || {
        let left = |folder: &str| std::fs::read_dir(daemon.home.state().join(folder)).map_or(0, Iterator::count);
        match (left("packages"), left("volumes")) {
            (0, 0) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    let listed = daemon.client().send("GET", "/environments", None).await;
    assert_eq!(listed.json, json!([]));
}

#[tokio::test]
async fn e1_what_is_no_package_is_refused_before_any_work() {
    let registry = registry();
    let daemon = daemon(&registry).await;
    for entry in [
        "git+ssh://git@host/x",
        "pad@file:../x",
        "pad@link:x",
        "https://host/x.tgz",
        "--registry=http://x",
        "../x",
        "pad@npm:other",
    ] {
        let made = set_up(&daemon, "bun", json!([entry]), "export const handler = () => 1").await;
        made.expect_error(400, "validation_error");
    }
    assert!(registry.asked.lock().unwrap().is_empty());
    let without = Daemon::start().await;
    let made = set_up(&without, "bun", json!(["pad"]), "export const handler = () => 1").await;
    made.expect_error(400, "validation_error");
}

#[tokio::test]
async fn e1_what_a_registry_may_do_is_contained_and_nothing_half_made_is_left() {
    let registry = registry();
    let daemon = daemon(&registry).await;
    for name in ["absent", "wanders", "far", "gits", "hubs", "away", "bomb", "hangs"] {
        let made = set_up(&daemon, "bun", json!([name]), "export const handler = () => 1").await;
        assert_eq!((made.status, made.json["code"].as_str()), (500, Some("setup_failed")), "{name}: {}", made.text);
        assert!(made.text.contains("installing the dependencies"), "{name}: {}", made.text);
    }
    assert_eq!(std::fs::read_dir(daemon.home.state().join("packages")).map_or(0, Iterator::count), 0);
    // Whether the installer takes them or not, and whether they are installed or kept already: nothing of the host is in them.
    for name in ["files", "files", "links", "links"] {
        let made = set_up(&daemon, "bun", json!([name]), "import fs from 'node:fs'; export const handler = () => fs.existsSync('/workspace/node_modules/needed/passwd')").await;
        if made.status == 200 {
            let answer = daemon
                .client()
                .execute(made.json["id"].as_str().unwrap(), json!({ "limits": { "timeoutMs": 30000 } }))
                .await;
            assert_eq!(answer.expect("ok").result(), &json!(false), "{name}");
            daemon.client().delete(made.json["id"].as_str().unwrap()).await;
        }
    }
    let listed = daemon.client().send("GET", "/environments", None).await;
    assert_eq!(listed.json, json!([]));
    assert_eq!(std::fs::read_dir(daemon.home.state().join("volumes")).map_or(0, Iterator::count), 0);
    daemon.assert_nothing_left().await;
    daemon.client().assert_healthy_call("bun").await;
}

/// A registry with modules of JSR and by address, and a daemon that takes them from there.
async fn modules(tier: Tier) -> (Registry, Daemon) {
    let mut pages = registry::jsr(
        "demo",
        &[
            (
                "/mod.ts",
                "import { deep } from './deep.ts'; import { other } from 'jsr:@in/other@^1'; export enum Kind { A = 7 }
export const demo = (text: string): string => deep(text) + other() + Kind.A;",
            ),
            ("/deep.ts", "export const deep = (text: string): string => `<${text}>`;"),
            ("/sub.ts", "export const sub: number = 5;"),
        ],
    );
    pages.extend(registry::jsr("other", &[("/mod.ts", "export const other = (): string => 'other';")]));
    let web = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
    pages.extend([
        web("/web/mod.ts", "import { b } from './b.ts'; export const a = (n: number): number => b + n;"),
        web("/web/b.ts", "export const b = 40;"),
        web("/web/file.ts", "import 'file:///etc/passwd'; export const f = 1;"),
        web("/web/far.ts", "import 'http://127.0.0.2:9/x.ts'; export const f = 1;"),
        web("/web/broken.ts", "export const ="),
    ]);
    let registry =
        Registry::start_with(vec![package("pad", json!({ "type": "module" }), "export default (x) => '_' + x")], pages);
    let settings = Settings::default()
        .set("sandbox.registries", &registry.url)
        .set("sandbox.jsr", &registry.url)
        .set("sandbox.module_hosts", registry.url.trim_start_matches("http://"))
        .set("sandbox.install_deadline", "20 s");
    let daemon = Daemon::start_on(tier, settings).await;
    (registry, daemon)
}

/// Calls often enough for a sandbox to stand for the environment, where that is what the daemon's tier has.
async fn called_until_it_is_hot(daemon: &Daemon, made: &Answer, data: Value) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..if daemon.standing.tier.stands() { 4 } else { 1 } {
        daemon.standing.settle().await;
        let body = json!({ "data": data, "limits": { "timeoutMs": 30000 } });
        answers.push(daemon.client().execute(made.json["id"].as_str().unwrap(), body).await);
    }
    answers
}

async fn set_up_deno(daemon: &Daemon, deno: Value, main: &str, source: &str) -> Answer {
    let request = json!({ "mainModule": main, "modules": { main: source }, "dependencies": { "deno": deno } });
    daemon.client().set_up(request).await
}

on_every_tier!(modules_of_jsr_and_by_address_are_resolved_at_set_up_and_used_offline);
async fn modules_of_jsr_and_by_address_are_resolved_at_set_up_and_used_offline(tier: Tier) {
    let (registry, daemon) = modules(tier).await;
    let address = format!("{}/web/mod.ts", registry.url);
    let source = format!(
        "import {{ demo }} from 'jsr:@in/demo@1'; import {{ sub }} from 'jsr:@in/demo@1/sub';
import {{ a }} from '{address}'; import pad from 'pad'; import padded from 'npm:pad';
import fs from 'node:fs';
export const handler = async (event) => {{
  let late = 'loaded', reached = 'reached', written = 'written';
  try {{ await import(event.data + '/web/never.ts') }} catch {{ late = 'refused' }}
  try {{ await fetch(event.data) }} catch {{ reached = 'refused' }}
  try {{ fs.writeFileSync('/tmp/.deno/remote/x', '') }} catch {{ written = 'refused' }}
  return [demo('x'), sub, a(2), pad('y'), padded('z'), late, reached, written];
}};"
    );
    for main in ["main.js", "main.ts"] {
        let source = if main == "main.ts" { source.replace("(event)", "(event: any)") } else { source.clone() };
        let named = json!(["jsr:@in/demo@1", "jsr:@in/demo@1/sub", address, "npm:pad@1.0.0"]);
        let made = set_up_deno(&daemon, named, main, &source).await;
        assert_eq!(made.status, 200, "{}", made.text);
        assert_eq!(made.json["metadata"]["dependencyCount"], 4);
        let volume = volume(&daemon, &made);
        let lock = std::fs::read_to_string(volume.join("lock/deno.lock")).unwrap();
        assert!(lock.contains("@in/other@1.0.0"), "{lock}");
        // What is TypeScript among all of it was emitted already, and the environment's own with it.
        assert!(volume.join("emitted/http").is_dir());
        let own = volume.join("emitted/file/workspace/main.ts.js");
        let emitted = std::fs::read_to_string(own).unwrap_or_default();
        assert_eq!(emitted.contains("sourceMappingURL"), main == "main.ts", "{emitted}");
        let expected = json!(["<x>other7", 5, 42, "_y", "_z", "refused", "refused", "refused"]);
        for told in called_until_it_is_hot(&daemon, &made, json!(registry.url)).await {
            assert_eq!(told.expect("ok").result(), &expected, "{main}");
        }
        assert_eq!(daemon.client().delete(made.json["id"].as_str().unwrap()).await.status, 204);
    }
    let asked = registry.asked.lock().unwrap().iter().filter(|path| *path == "/@in/demo/meta.json").count();
    assert_eq!(asked, 1, "the second set-up found what the first had resolved");
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn e1_what_modules_may_do_is_contained_and_nothing_half_made_is_left() {
    let (registry, daemon) = modules(Tier::Cold).await;
    let source = "export const handler = () => 1";
    for entry in ["file:///etc/passwd", "--allow-all", "data:text/javascript,1", "https://user@host/x.ts", "jsr:@in"] {
        set_up_deno(&daemon, json!([entry]), "main.js", source).await.expect_error(400, "validation_error");
    }
    let unlisted = set_up_deno(&daemon, json!(["https://elsewhere.example/x.ts"]), "main.js", source).await;
    unlisted.expect_error(400, "validation_error");
    assert!(unlisted.text.contains("elsewhere.example:443"), "{}", unlisted.text);
    let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": "bun",
        "dependencies": { "deno": ["jsr:@in/demo"] } });
    daemon.client().set_up(request).await.expect_error(400, "validation_error");
    assert!(registry.asked.lock().unwrap().is_empty());
    let at = |path: &str| format!("{}/{path}", registry.url);
    for entry in [
        at("web/absent.ts"),
        at("web/file.ts"),
        at("web/far.ts"),
        at("web/broken.ts"),
        at("wanders"),
        at("hangs"),
        "jsr:@in/absent".to_owned(),
        "jsr:@in/demo@7".to_owned(),
    ] {
        let made = set_up_deno(&daemon, json!([entry]), "main.js", source).await;
        assert_eq!((made.status, made.json["code"].as_str()), (500, Some("setup_failed")), "{entry}: {}", made.text);
        assert!(made.text.contains("installing the dependencies"), "{entry}: {}", made.text);
    }
    for folder in ["packages", "volumes"] {
        assert_eq!(std::fs::read_dir(daemon.home.state().join(folder)).map_or(0, Iterator::count), 0, "{folder}");
    }
    daemon.assert_nothing_left().await;
}

const TOKEN_OF_REGISTRY: &str = "npm-canary-7c31aa";

#[tokio::test]
async fn a_private_registry_gets_its_token_from_the_proxy_in_tls_and_in_clear_and_nobody_else_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let certified = far::Certified::in_folder(folder.path());
    let tokens = folder.path().join("tokens");
    for secured in [true, false] {
        let mut pages = registry::jsr("demo", &[("/mod.ts", "export const demo = (): string => 'demo';")]);
        let elsewhere = far::web(None).await;
        // A module of an open host beside the private ones, which is asked without a token.
        let open = format!("http://127.0.0.1:{}/x.ts", elsewhere.port);
        pages.insert("/web/mod.ts".to_owned(), b"export const a = 1;".to_vec());
        let manifest = json!({ "type": "module", "dependencies": { "inner": "1" } });
        let inner = package("inner", json!({ "type": "module" }), "export default 'inner'");
        let outer = package("outer", manifest, "import inner from 'inner'; export default 'outer' + inner");
        let registry = Registry::start_with(vec![inner, outer], pages);
        let port: u16 = registry.url.rsplit(':').next().unwrap().parse().unwrap();
        let url = match secured {
            true => format!("https://localhost:{}", far::front(&certified, port).await),
            false => registry.url.clone(),
        };
        registry.close(&url, &format!("Bearer {TOKEN_OF_REGISTRY}"));
        std::fs::write(&tokens, format!("# ours\n{url}/ {TOKEN_OF_REGISTRY}\n")).unwrap();
        std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = Settings::default()
            .set("sandbox.registries", &url)
            .set("sandbox.jsr", &url)
            .set("sandbox.module_hosts", &format!("127.0.0.1:{}", elsewhere.port))
            .set("sandbox.install_deadline", "20 s")
            .set("log.level", "trace")
            .env("SSL_CERT_FILE", certified.file.to_str().unwrap());
        let without = Daemon::start_with(settings.clone()).await;
        let refused = set_up(&without, "bun", json!(["outer"]), "export const handler = () => 1").await;
        refused.expect_error(500, "setup_failed");
        drop(without);
        let daemon = Daemon::start_with(settings.set("sandbox.registry_tokens_file", tokens.to_str().unwrap())).await;
        let source = "import outer from 'outer'; import { demo } from 'jsr:@in/demo@1';
export const handler = () => outer + demo();";
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": source },
            "dependencies": { "npm": ["outer"], "deno": ["jsr:@in/demo@1"] } });
        let made = daemon.client().set_up(request).await;
        assert_eq!(made.status, 200, "secured: {secured}: {}", made.text);
        let id = made.json["id"].as_str().unwrap();
        let told = daemon.client().execute(id, json!({ "limits": { "timeoutMs": 30000 } })).await;
        assert_eq!(told.expect("ok").result(), "outerinnerdemo");
        // Its text is no module, and that it was asked for is all that counts.
        set_up_deno(&daemon, json!([open]), "main.js", source).await;
        let asked = elsewhere.take();
        assert!(
            !asked.is_empty() && asked.iter().all(|head| !head.to_lowercase().contains("authorization")),
            "{asked:?}"
        );
        assert!(!daemon.log_text().contains(TOKEN_OF_REGISTRY));
        let mut search = std::process::Command::new("grep");
        let found = search.args(["-rl", TOKEN_OF_REGISTRY]).arg(daemon.home.root.path()).output().unwrap();
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "", "on the disk");
        daemon.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn installed_packages_outlive_a_change_of_the_modules_and_go_when_others_are_asked_for() {
    let registry = registry();
    let daemon = daemon(&registry).await;
    let client = daemon.client();
    let source = |word: &str| format!("export const handler = async () => (await import('pad')).default('{word}');");
    for runtime in RUNTIMES {
        let made = set_up(&daemon, runtime, json!(["pad@1.0.0"]), &source("a")).await;
        let id = made.json["id"].as_str().unwrap().to_owned();
        let path = format!("/environments/{id}/modules");
        let body = json!({ "limits": { "timeoutMs": 30000 } });
        let change = json!({ "modules": { "main.js": source("b") } });
        let changed = client.send("PUT", &path, Some(change.to_string())).await;
        assert_eq!(
            (changed.status, &changed.json["metadata"]["dependencyCount"]),
            (200, &json!(1)),
            "{}",
            changed.text
        );
        assert_eq!(client.execute(&id, body.clone()).await.expect("ok").result(), "__b", "{runtime}");
        let copy = client.send("POST", &format!("/environments/{id}/clone"), None).await.json["id"].clone();
        let change = json!({ "modules": { "main.js": source("c") }, "dependencies": { "npm": [] } });
        let changed = client.send("PUT", &path, Some(change.to_string())).await;
        assert_eq!(changed.json["metadata"]["hasDependencies"], false);
        client.execute(&id, body.clone()).await.expect("handler_error");
        assert_eq!(client.execute(copy.as_str().unwrap(), body).await.expect("ok").result(), "__b", "{runtime}");
    }
    daemon.assert_nothing_left().await;
}
