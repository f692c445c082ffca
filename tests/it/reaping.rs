//! What is collected without being asked: environments whose time is over, and orphans of every kind.

use std::time::Duration;

use serde_json::json;

use crate::support::{Daemon, Settings, eventually};

#[tokio::test]
async fn an_environment_is_collected_when_its_time_is_over_but_never_in_use() {
    let daemon = Daemon::start_with(Settings::default().set("reaper.interval", "1 s")).await;
    let client = daemon.client();
    let source = "export const handler = () => new Promise((done) => setTimeout(() => done('lived'), 4000))";
    let request = json!({ "mainModule": "a.js", "modules": { "a.js": source }, "runtime": "bun", "ttlSeconds": 1 });
    let made = client.set_up(request).await;
    let id = made.json["id"].as_str().unwrap();
    let answer = client.execute(id, json!({ "limits": { "timeoutMs": 20000 } })).await;
    assert_eq!(answer.expect("ok").result(), "lived");
    eventually("the environment's end", Duration::from_secs(10), async || {
        let answer = client.send("GET", &format!("/environments/{id}"), None).await;
        if answer.status == 404 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    let volumes = daemon.home.state().join("volumes");
    eventually("the volume's end", Duration::from_secs(10), async || {
        let left = std::fs::read_dir(&volumes).unwrap().count();
        if left == 0 { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn an_idle_environment_is_collected_where_that_is_asked_for() {
    let settings = Settings::default().set("reaper.interval", "1 s").set("reaper.idle_ttl", "2 s");
    let daemon = Daemon::start_with(settings).await;
    let client = daemon.client();
    client.environment("bun", "export const handler = () => 1").await;
    eventually("the environment's end", Duration::from_secs(10), async || {
        let list = client.send("GET", "/environments", None).await;
        if list.json == json!([]) { Ok(()) } else { Err(list.text) }
    })
    .await;
}

#[tokio::test]
async fn orphans_on_disk_and_in_the_store_are_collected_at_start() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let kept = client.environment("bun", "export const handler = () => 1").await;
    let lost = client.environment("bun", "export const handler = () => 1").await;
    let home = daemon.kill_only();
    let volumes = home.state().join("volumes");
    std::fs::remove_dir_all(volumes.join(format!("tee-env-{lost}"))).unwrap();
    let stray = volumes.join("tee-env-00000000-0000-4000-8000-000000000001");
    std::fs::create_dir_all(stray.join("workspace/deep")).unwrap();
    std::fs::create_dir_all(volumes.join(".making-tee-env-00000000-0000-4000-8000-000000000002")).unwrap();
    let daemon = Daemon::start_in(home, Settings::default()).await;
    let client = daemon.client();
    eventually("both sides to agree", Duration::from_secs(10), async || {
        let list = client.send("GET", "/environments", None).await;
        let ids: Vec<String> =
            list.json.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        let on_disk = std::fs::read_dir(&volumes).unwrap().count();
        if ids == [kept.clone()] && on_disk == 1 { Ok(()) } else { Err(format!("{ids:?}, {on_disk} on disk")) }
    })
    .await;
}
