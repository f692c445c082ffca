//! Environments that are changed: new modules, clones, a longer life; and kills in between.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Client, Daemon, RUNTIMES, Settings, eventually};

fn says(word: &str) -> String {
    format!("export const handler = () => ({{ says: \"{word}\" }});")
}

async fn update(client: &Client, id: &str, body: Value) -> Answer {
    client.send("PUT", &format!("/environments/{id}/modules"), Some(body.to_string())).await
}

async fn said(client: &Client, id: &str) -> Value {
    let answer = client.execute(id, json!({ "limits": { "timeoutMs": 30000 } })).await;
    answer.expect("ok");
    answer.result().clone()
}

fn volumes(daemon: &Daemon) -> Vec<String> {
    let entries = std::fs::read_dir(daemon.home.state().join("volumes")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn eventually_one_volume(daemon: &Daemon) {
    eventually("one volume", Duration::from_secs(10), async || {
        let names = volumes(daemon);
        if names.len() == 1 { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

#[tokio::test]
async fn calls_after_an_update_have_the_new_modules_and_one_that_runs_keeps_the_old() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for runtime in RUNTIMES {
        let slow = r#"
            export const handler = async () => {
                await new Promise((done) => setTimeout(done, 3000));
                return (await import("./word.js")).word;
            };"#;
        let modules = json!({ "main.js": slow, "word.js": "export const word = 'old';" });
        let id = client.environment_of(runtime, modules, "main.js").await;
        let running = {
            let (client, id) = (client.clone(), id.clone());
            tokio::spawn(async move { client.execute(&id, json!({ "limits": { "timeoutMs": 60000 } })).await })
        };
        eventually("a running call", Duration::from_secs(20), async || {
            let (_, picture) = daemon.health("/healthz").await?;
            if picture["pool"]["running"] == 1 { Ok(()) } else { Err(picture.to_string()) }
        })
        .await;
        let modules = json!({ "main.ts": format!("const x: number = 1;\n{}", says("new")) });
        let changed = update(&client, &id, json!({ "mainModule": "main.ts", "modules": modules })).await;
        assert_eq!((changed.status, &changed.json["revision"]), (200, &json!(2)), "{}", changed.text);
        assert_eq!((&changed.json["id"], &changed.json["mainModule"]), (&json!(id), &json!("main.ts")));
        assert_eq!(said(&client, &id).await, json!({ "says": "new" }));
        assert_eq!(running.await.unwrap().expect("ok").result(), "old", "{runtime}");
        eventually_one_volume(&daemon).await;
        assert_eq!(volumes(&daemon), [changed.json["volumeName"].as_str().unwrap()]);
        assert_eq!(client.delete(&id).await.status, 204);
        assert_eq!(volumes(&daemon), Vec::<String>::new());
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn an_update_that_is_none_is_refused_and_changes_nothing() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment("deno", &says("old")).await;
    update(&client, &id, json!({ "modules": {} })).await.expect_error(400, "validation_error");
    update(&client, &id, json!({ "modules": { "other.js": "1" } })).await.expect_error(400, "validation_error");
    update(&client, &id, json!({ "modules": { "../x": "1", "main.js": "" } }))
        .await
        .expect_error(400, "validation_error");
    let broken = json!({ "mainModule": "m.ts", "modules": { "m.ts": "const = 1" } });
    update(&client, &id, broken).await.expect_error(400, "validation_error");
    let absent = "0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55";
    update(&client, absent, json!({ "modules": { "main.js": "1" } })).await.expect_error(404, "not_found");
    assert_eq!(said(&client, &id).await, json!({ "says": "old" }));
    assert_eq!(volumes(&daemon).len(), 1);
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_clone_lives_on_without_the_other_and_is_changed_alone() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = client.environment_of("deno", json!({ "main.ts": says("first"), "data.json": "{}" }), "main.ts").await;
    let copy =
        client.send("POST", &format!("/environments/{id}/clone"), Some(json!({ "ttlSeconds": 60 }).to_string())).await;
    assert_eq!((copy.status, &copy.json["ttlSeconds"]), (200, &json!(60)), "{}", copy.text);
    let copy = copy.json["id"].as_str().unwrap().to_owned();
    let bare = client.send("POST", &format!("/environments/{id}/clone"), None).await;
    assert_eq!((bare.status, &bare.json["ttlSeconds"]), (200, &json!(3600)));
    client.delete(bare.json["id"].as_str().unwrap()).await;
    assert_eq!(update(&client, &id, json!({ "modules": { "main.ts": says("second") } })).await.status, 200);
    assert_eq!(said(&client, &copy).await, json!({ "says": "first" }));
    assert_eq!(said(&client, &id).await, json!({ "says": "second" }));
    assert_eq!(client.delete(&id).await.status, 204);
    assert_eq!(said(&client, &copy).await, json!({ "says": "first" }));
    client.send("POST", &format!("/environments/{id}/clone"), None).await.expect_error(404, "not_found");
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn an_environments_life_is_lengthened_and_shortened() {
    let daemon = Daemon::start_with(Settings::default().set("reaper.interval", "1 s")).await;
    let client = daemon.client();
    let set = json!({ "mainModule": "m.js", "modules": { "m.js": says("x") }, "ttlSeconds": 2 });
    let id = client.set_up(set).await.json["id"].as_str().unwrap().to_owned();
    let path = format!("/environments/{id}");
    let changed = client.send("PATCH", &path, Some(json!({ "ttlSeconds": 600 }).to_string())).await;
    assert_eq!((changed.status, &changed.json["ttlSeconds"]), (200, &json!(600)));
    for (body, code) in [
        ("{}", "invalid_request"),
        ("{\"ttlSeconds\": -1}", "invalid_request"),
        ("{\"ttlSeconds\": 999999999999}", "validation_error"),
    ] {
        client.send("PATCH", &path, Some(body.to_owned())).await.expect_error(400, code);
    }
    eventually("some rounds of the Reaper", Duration::from_secs(20), async || {
        let (_, picture) = daemon.health("/healthz").await?;
        if picture["reaper"]["rounds"].as_u64() >= Some(5) { Ok(()) } else { Err(picture["reaper"].to_string()) }
    })
    .await;
    assert_eq!(said(&client, &id).await, json!({ "says": "x" }), "its first life would have been over");
    assert_eq!(client.send("PATCH", &path, Some(json!({ "ttlSeconds": 1 }).to_string())).await.status, 200);
    eventually("the end of a life", Duration::from_secs(10), async || {
        let answer = client.send("GET", &path, None).await;
        if answer.status == 404 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    client.send("PATCH", &path, Some(json!({ "ttlSeconds": 600 }).to_string())).await.expect_error(404, "not_found");
    client.execute(&id, json!({})).await.expect_error(404, "not_found");
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn a_kill_in_the_middle_of_an_update_leaves_the_one_or_the_other_and_no_third_thing() {
    let mut daemon = Daemon::start().await;
    let id = daemon.client().environment("deno", &says("v0")).await;
    let mut seen = json!({ "says": "v0" });
    for round in 1..=8_u64 {
        let (client, id, word) = (daemon.client(), id.clone(), format!("v{round}"));
        let modules = json!({ "main.ts": format!("const x: number = 1;\n{}", says(&word)) });
        let asked = {
            let id = id.clone();
            tokio::spawn(async move {
                let body = json!({ "mainModule": "main.ts", "modules": modules });
                let request = client.request("PUT", &format!("/environments/{id}/modules"));
                drop(request.bearer_auth(crate::support::daemon::TOKEN).body(body.to_string()).send().await);
            })
        };
        // Anywhere between the request and its answer, which comes after some 300 ms.
        tokio::time::sleep(Duration::from_millis(round * 60)).await;
        let home = daemon.kill_only();
        asked.await.unwrap();
        daemon = Daemon::start_in(home, Settings::default()).await;
        eventually_one_volume(&daemon).await;
        let now = said(&daemon.client(), &id).await;
        assert!(now == seen || now == json!({ "says": word }), "{now} after {seen}");
        seen = now;
    }
    daemon.assert_nothing_left().await;
}
