//! Packages of npm: installed in a sandbox over the way out, from the registries only, without scripts (row E1).

use serde_json::{Value, json};

use crate::support::registry::{Package, Registry};
use crate::support::{Answer, Daemon, RUNTIMES, Settings};

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

async fn daemon(registry: &Registry) -> Daemon {
    Daemon::start_with(
        Settings::default().set("sandbox.registries", &registry.url).set("sandbox.install_deadline", "20 s"),
    )
    .await
}

async fn set_up(daemon: &Daemon, runtime: &str, npm: Value, source: &str) -> Answer {
    let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
        "dependencies": { "npm": npm } });
    daemon.client().set_up(request).await
}

#[tokio::test]
async fn e1_packages_are_installed_without_scripts_and_used_offline() {
    let registry = registry();
    let daemon = daemon(&registry).await;
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
        let body = json!({ "data": registry.url, "limits": { "timeoutMs": 30000 } });
        let answer = daemon.client().execute(id, body).await;
        assert_eq!(
            answer.expect("ok").result(),
            &json!(["__x", "quiet", "refused", "refused", false, false]),
            "{runtime}"
        );
        let volume = daemon.home.state().join("volumes").join(made.json["volumeName"].as_str().unwrap());
        let lock = std::fs::read_to_string(volume.join("lock/bun.lock")).unwrap();
        assert!(lock.contains("@in/side"), "{lock}");
        assert_eq!(daemon.client().delete(id).await.status, 204);
    }
    daemon.assert_nothing_left().await;
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
    for name in ["files", "links"] {
        // Whether the installer takes them or not: nothing of the host is in them.
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
