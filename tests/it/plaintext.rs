//! What users send and get is found nowhere but where it has to be: not in logs, records, command lines or metrics.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Daemon, RUNTIMES, Settings};

const CANARY: &str = "canary-8f3b1c";

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn files_with_the_canary(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_below(folder, &mut files);
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    };
    files.into_iter().filter(holds).collect()
}

#[tokio::test]
async fn a_canary_is_found_in_no_log_no_record_and_no_command_line() {
    let daemon = Daemon::start_with(Settings::default().set("log.level", "trace")).await;
    let client = daemon.client();
    let sources = [
        format!(
            "export const handler = (e) => {{ console.log('{CANARY}'); console.error('{CANARY}'); return [e, '{CANARY}'] }}"
        ),
        format!("export const handler = () => {{ throw new Error('{CANARY}') }}"),
        format!("throw new Error('{CANARY}')"),
        format!("export const handler = () => {{ process.stdout.write('{CANARY}'); process.exit(1) }}"),
        format!("export const handler = () => {{ console.log('{CANARY}'); for (;;); }}"),
    ];
    for runtime in RUNTIMES {
        for source in &sources {
            let id = client.environment(runtime, source).await;
            let body = json!({ "data": CANARY, "env": { "SECRET": CANARY }, "limits": { "timeoutMs": 1500 } });
            let call = tokio::spawn({
                let (client, id) = (client.clone(), id.clone());
                async move { client.execute(&id, body).await }
            });
            let mut lines = Vec::new();
            while !call.is_finished() {
                lines.extend(command_lines());
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert_eq!(call.await.unwrap().status, 200);
            assert!(!lines.iter().any(|line| line.contains(CANARY)), "{runtime}: on a command line");
            client.delete(&id).await;
        }
        let source = format!("const = '{CANARY}'");
        let broken = json!({ "mainModule": "a.ts", "runtime": runtime, "modules": { "a.ts": source } });
        let refused = client.set_up(broken).await;
        // Only Deno's TypeScript is read at set-up; a volume holds its source for as long as it lives.
        if let Some(id) = refused.json["id"].as_str() {
            client.delete(id).await;
        }
        let query = format!("/environments/{CANARY}?token={CANARY}");
        client.send("GET", &query, None).await;
    }
    daemon.assert_nothing_left().await;
    assert!(daemon.log_text().contains("call.ended"), "the log is being read");
    assert!(!daemon.log_text().contains(CANARY), "in the log");
    assert!(!daemon.log_text().contains(crate::support::daemon::TOKEN), "the token is in the log");
    assert_eq!(files_with_the_canary(daemon.home.root.path()), Vec::<PathBuf>::new());
    let (_, picture) = daemon.health("/healthz").await.unwrap();
    assert!(!picture.to_string().contains(CANARY));
}

fn command_lines() -> Vec<String> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect()
}
