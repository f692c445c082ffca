//! Many rounds of create, execute and delete: nothing may grow.

use serde_json::json;

use crate::support::{Client, Daemon, host};

/// `CLOISTER_TEST_ROUNDS` shortens this while one works on it.
fn rounds() -> usize {
    std::env::var("CLOISTER_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

async fn some(client: &Client, count: usize) {
    for round in 0..count {
        let runtime = if round % 4 == 0 { "deno" } else { "bun" };
        let body = json!({ "data": round, "limits": { "timeoutMs": 30000 } });
        client.try_out(runtime, "export const handler = (e) => e.data", body).await.expect("ok");
    }
}

#[tokio::test]
async fn a_thousand_rounds_leave_descriptors_threads_memory_cgroups_and_mounts_flat() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    some(&client, 30).await;
    daemon.assert_nothing_left().await;
    let before = host::footprint(daemon.pid());
    let half = rounds() / 2;
    tokio::join!(some(&client, half), some(&client, half));
    daemon.assert_nothing_left().await;
    let after = host::footprint(daemon.pid());
    println!("over {} rounds: {before:?} → {after:?}", half * 2);
    // Two callers at once keep a connection each; nothing else may be open that was not.
    assert!(after.descriptors <= before.descriptors + 4, "{before:?} → {after:?}");
    assert!(after.threads <= before.threads + 4, "{before:?} → {after:?}");
    assert!(after.resident_kib <= before.resident_kib + 6 * 1024, "{before:?} → {after:?}");
    let volumes = daemon.home.state().join("volumes");
    assert_eq!(std::fs::read_dir(volumes).unwrap().count(), 0);
}
