//! The adapter against scripted platforms, and against the recorded one.

mod dialogue;
mod replay;
mod statuses;
mod stopping;

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use slog::{Discard, Logger, o};

use super::{RunPod, Settings, Templates};
use crate::adapters::doubles::Server;
use crate::boot::http;

fn settings(address: SocketAddr) -> Settings {
    let base = format!("http://{address}/v2/ep");
    Settings {
        templates: Templates {
            take: format!("{base}/job-take/$ID?gpu=A+B"),
            done: format!("{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=A+B"),
            ping: Some(format!("{base}/ping/$RUNPOD_POD_ID?gpu=A+B")),
            gpu_type: None,
        },
        pod_id: Some("pod0".into()),
        api_key: Some(SecretString::from("key-of-the-worker")),
        ping_every: Duration::from_secs(2),
        poll: Duration::from_secs(90),
        grace: Duration::from_millis(200),
        result_bytes: 10_000_000,
        sync_result_bytes: 20_000_000,
    }
}

fn source_with(settings: Settings) -> RunPod {
    let client = http::builder(&http::Tls::of_this_host().expect("TLS")).build().expect("a client");
    RunPod::new(settings, client, Logger::root(Discard, o!())).expect("addresses")
}

fn source(server: &Server) -> RunPod {
    source_with(settings(server.address))
}
