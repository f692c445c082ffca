//! No network: nothing is reachable that is not listed, and the refusal is quick (rows C1, C2). What is listed: `egress.rs`.

use serde_json::json;
use tokio::net::TcpListener;

use crate::support::tier::{Tier, on_every_tier};
use crate::support::{Daemon, RUNTIMES, Settings};

on_every_tier!(c1_nothing_is_reachable_not_even_the_daemon);

async fn c1_nothing_is_reachable_not_even_the_daemon(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let own_port = daemon.url.rsplit(':').next().unwrap();
    let source = r#"
import net from "node:net";
import dgram from "node:dgram";
import dns from "node:dns/promises";
const attempt = async (act) => {
  const late = new Promise((done) => setTimeout(() => done("late"), 8000));
  try { return await Promise.race([late, act()]) } catch (e) { return "refused" }
};
const tcp = (host, port) => new Promise((done, fail) => {
  const socket = net.connect(port, host, () => done("reached"));
  socket.on("error", fail);
});
export const handler = async (event) => {
  const seen = {};
  for (const url of event.data.urls) seen[url] = await attempt(async () => {
    const answer = await fetch(url);
    return answer.headers.has("proxy-status") ? "refused" : "reached";
  });
  for (const [host, port] of event.data.hosts) seen[host + ":" + port] = await attempt(() => tcp(host, port));
  seen.dns = await attempt(async () => { await dns.lookup("example.com"); return "reached" });
  // Without its permission Deno throws this one where no listener hears it.
  seen.udp = !event.data.udp ? "refused" : await attempt(() => new Promise((done, fail) => {
    const socket = dgram.createSocket("udp4");
    socket.on("error", fail);
    socket.send("x", 53, "8.8.8.8", (e) => e ? fail(e) : done("reached"));
  }));
  seen.ws = await attempt(() => new Promise((done, fail) => {
    const socket = new WebSocket("ws://127.0.0.1:" + event.data.hosts[0][1]);
    socket.onopen = () => done("reached"); socket.onerror = fail; socket.onclose = fail;
  }));
  return seen;
};"#;
    let hosts = json!([
        ["127.0.0.1", port],
        ["127.0.0.1", own_port.parse::<u16>().unwrap()],
        ["169.254.169.254", 80],
        ["fd00:ec2::254", 80],
        ["::1", port],
        ["10.0.0.1", 80],
        ["192.168.0.1", 80],
        ["1.1.1.1", 443],
    ]);
    let here = format!("http://127.0.0.1:{port}/");
    for runtime in RUNTIMES {
        // The switch opens what is public.
        for (permissions, third) in
            [(json!({}), "https://example.com/"), (json!({ "allowNet": true }), "https://10.0.0.1/")]
        {
            let urls = json!([here, "http://169.254.169.254/latest/meta-data", third]);
            let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime, "permissions": permissions });
            let made = client.set_up(request).await;
            assert_eq!(made.status, 200, "{}", made.text);
            let body = json!({ "data": { "urls": urls, "hosts": hosts, "udp": runtime == "bun" || permissions["allowNet"] == true }, "limits": { "timeoutMs": 60000 } });
            let answer = client.execute(made.json["id"].as_str().unwrap(), body).await;
            let seen = answer.expect("ok").result().as_object().unwrap().clone();
            assert_eq!(seen.len(), 14, "{seen:?}");
            for (what, how) in seen {
                assert_eq!(how, "refused", "{runtime} {permissions}: {what}");
            }
        }
    }
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(1), listener.accept()).await;
    assert!(nobody.is_err(), "a sandbox reached a listener of the host");
}

on_every_tier!(c2_no_socket_leads_out);

async fn c2_no_socket_leads_out(tier: Tier) {
    let daemon = Daemon::start_on(tier, Settings::default()).await;
    let client = daemon.client();
    let socket = daemon.health_socket();
    let source = r#"
import net from "node:net";
const tried = (path) => new Promise((done) => {
  try {
    const socket = net.connect({ path }, () => done("reached"));
    socket.on("error", (e) => done("refused"));
  } catch (e) { done("refused") }
});
export const handler = async (event) => {
  const seen = {};
  for (const path of event.data) seen[path] = await tried(path);
  return seen;
};"#;
    let paths = json!([socket, "/run/docker.sock", "\0cloister", "/dev/log", "/runtime/egress.sock"]);
    for (runtime, granted) in RUNTIMES.into_iter().flat_map(|runtime| [(runtime, false), (runtime, true)]) {
        let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
            "permissions": { "allowNet": granted, "allowRead": true, "allowWrite": true } });
        let made = client.set_up(request).await;
        let body = json!({ "data": paths, "limits": { "timeoutMs": 30000 } });
        let answer = client.execute(made.json["id"].as_str().unwrap(), body).await;
        for (path, how) in answer.expect("ok").result().as_object().unwrap() {
            let way_out = granted && path == "/runtime/egress.sock";
            assert_eq!(how, if way_out { "reached" } else { "refused" }, "{runtime} {granted}: {path:?}");
        }
    }
}
