//! Sandboxes that stand ready: claimed once, by one caller, and gone with their environment and their daemon.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::tier::Tier;
use crate::support::{Daemon, RUNTIMES, Settings, eventually, host};

/// Notes whatever of the process, the file system and the random numbers it finds, and leaves what it can.
const KEEPER: &str = r#"
import fs from "node:fs";
globalThis.seen = (globalThis.seen ?? 0) + 1;
const atImport = { random: Math.random(), uuid: crypto.randomUUID() };
export const handler = (event) => {
  globalThis.secret ??= [];
  globalThis.secret.push(event.data);
  let left = null;
  try { left = fs.readFileSync("/tmp/left", "utf8") } catch {}
  try { fs.writeFileSync("/tmp/left", String(event.data)) } catch {}
  return { seen: globalThis.seen, secrets: globalThis.secret.length, left, atImport, uuid: crypto.randomUUID() };
};"#;

#[tokio::test]
async fn consecutive_callers_of_a_pool_share_nothing() {
    for tier in [Tier::Runtime, Tier::Environment] {
        let daemon = Daemon::start_on(tier, Settings::default()).await;
        let client = daemon.client();
        for runtime in RUNTIMES {
            let id = client.environment(runtime, KEEPER).await;
            let mut seen = Vec::new();
            for n in 0..6 {
                daemon.standing.settle().await;
                let answer = client.execute(&id, json!({ "data": n, "limits": { "timeoutMs": 30000 } })).await;
                seen.push(answer.expect("ok").result().clone());
            }
            for one in &seen {
                let own = (&one["seen"], &one["secrets"], &one["left"]);
                assert_eq!(own, (&json!(1), &json!(1), &json!(null)), "{tier:?} {runtime}: {one}");
            }
            for (n, one) in seen.iter().enumerate() {
                for other in &seen[..n] {
                    assert_ne!(one["atImport"], other["atImport"], "{tier:?} {runtime}");
                    assert_ne!(one["uuid"], other["uuid"], "{tier:?} {runtime}");
                }
            }
            client.delete(&id).await;
        }
        daemon.assert_nothing_left().await;
    }
}

#[tokio::test]
async fn a_call_with_variables_of_its_own_gets_no_module_that_missed_them() {
    let daemon = Daemon::start_on(Tier::Environment, Settings::default()).await;
    let client = daemon.client();
    let source = "const at = process.env.NAME ?? 'none'; export const handler = () => at;";
    for runtime in RUNTIMES {
        let id = client.ready_environment(runtime, source, json!({})).await;
        let bare = client.execute(&id, json!({})).await;
        assert_eq!((bare.result(), &bare.json["start"]), (&json!("none"), &json!("warm-environment")), "{runtime}");
        daemon.standing.settle().await;
        let named = client.execute(&id, json!({ "env": { "NAME": "ada" } })).await;
        assert_eq!((named.result(), &named.json["start"]), (&json!("ada"), &json!("cold")), "{runtime}");
        client.delete(&id).await;
    }
}

#[tokio::test]
async fn a_burst_on_an_idle_daemon_is_served_whole() {
    let settings = Settings::default().set("sandbox.queue_wait", "5 min");
    let daemon = Daemon::start_on(Tier::Runtime, settings).await;
    let client = daemon.client();
    let id = client.environment("bun", "export const handler = (event) => event.data;").await;
    daemon.standing.wait_for(2).await;
    let calls = (0..100).map(|n| {
        let (client, id) = (client.clone(), id.clone());
        async move { client.execute(&id, json!({ "data": n, "limits": { "timeoutMs": 10000 } })).await }
    });
    for (n, answer) in futures_util::future::join_all(calls).await.iter().enumerate() {
        assert_eq!(answer.expect("ok").result(), &json!(n));
        assert!(answer.json["timings"]["handlerMs"].as_f64().unwrap() <= 10250.0);
    }
    daemon.standing.wait_for(2).await;
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn what_stands_goes_with_its_environment_and_with_its_daemon() {
    let mut daemon = Daemon::start_on(Tier::Environment, Settings::default()).await;
    let client = daemon.client();
    let [kept, deleted] = [
        client.ready_environment("bun", "export const handler = () => 1", json!({})).await,
        client.ready_environment("bun", "export const handler = () => 2", json!({})).await,
    ];
    daemon.standing.wait_for(2).await;
    assert_eq!(client.delete(&deleted).await.status, 204);
    eventually("one that stands", Duration::from_secs(10), async || match host::frozen_slots(&daemon.home).len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(client.execute(&kept, json!({})).await.json["start"], "warm-environment");
    daemon.standing.wait_for(1).await;
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended(Duration::from_secs(30)).await.success());
    host::leftovers_beside(&daemon.home, &std::collections::BTreeSet::new()).unwrap();
}

#[tokio::test]
async fn a_daemon_that_is_killed_with_full_pools_leaves_nothing_to_its_next_life_and_fills_them_again() {
    let settings = Settings::default().set("sandbox.standing.runtimes", "2");
    let daemon = Daemon::start_on(Tier::Runtime, settings.clone()).await;
    daemon.standing.wait_for(2).await;
    let before = host::slot_cgroups(&daemon.home);
    assert!(!before.is_empty());
    let home = daemon.kill_only();
    let again = Daemon::start_in(home, Tier::Runtime.settings(Settings { tier: Tier::Runtime, ..settings })).await;
    again.standing.wait_for(2).await;
    let after = host::slot_cgroups(&again.home);
    assert!(before.iter().all(|slot| !after.contains(slot)), "{before:?} {after:?}");
    again.client().try_out("bun", "export const handler = () => 1", json!({})).await.expect("ok");
    again.assert_nothing_left().await;
}

#[tokio::test]
async fn one_that_dies_while_it_stands_is_replaced_and_no_caller_notices() {
    let daemon = Daemon::start_on(Tier::Runtime, Settings::default()).await;
    let client = daemon.client();
    daemon.standing.wait_for(2).await;
    let before = host::frozen_slots(&daemon.home);
    host::kill_frozen(&daemon.home);
    daemon.noticed("slot.lost", 2).await;
    for runtime in RUNTIMES {
        let id = client.environment(runtime, "export const handler = () => 'served'").await;
        let answer = client.execute(&id, json!({ "limits": { "timeoutMs": 30000 } })).await;
        assert_eq!(answer.expect("ok").result(), "served");
    }
    eventually("others that stand", Duration::from_secs(30), async || {
        let after = host::frozen_slots(&daemon.home);
        if after.len() == 2 && after.is_disjoint(&before) { Ok(()) } else { Err(format!("{after:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_module_that_misbehaves_at_its_import_gets_its_outcomes_and_no_sandbox_that_stands() {
    let daemon = Daemon::start_on(Tier::Environment, Settings::default()).await;
    let client = daemon.client();
    let body = || json!({ "limits": { "timeoutMs": 1000 } });
    for (source, outcome) in [
        ("for (;;);", "timeout"),
        ("throw new Error('at import')", "handler_error"),
        ("const kept = []; for (;;) kept.push(new Array(10000).fill(1.5));", "out_of_memory"),
    ] {
        let id = client.environment("bun", source).await;
        for _ in 0..3 {
            let answer = client.execute(&id, body()).await;
            assert!([outcome, "timeout"].contains(&answer.outcome()), "{source}: {}", answer.text);
            assert_eq!(answer.json["start"], "cold");
        }
        client.delete(&id).await;
    }
    eventually("an idle pool", Duration::from_secs(30), async || {
        let pool = daemon.standing.pool().await;
        if pool["standing"] == 0 && pool["warming"] == 0 { Ok(()) } else { Err(pool.to_string()) }
    })
    .await;
    client.ready_environment("bun", "export const handler = () => 1", json!({})).await;
    daemon.standing.wait_for(1).await;
}
