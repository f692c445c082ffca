//! `cloister health` and `cloister status` against a played health socket.

use super::played::{Did, Played, Setting};

const HEALTHZ: &str = r#"{"version":"9.9.9","live":true,"ready":false,"draining":false,"warnings":["sandboxes run without gVisor"],
"parts":[{"name":"sandbox-pool","state":"crash_loop","essential":true,"restarts":6,"reasons":["runsc is not found"]},
{"name":"reaper","state":"running","essential":false,"restarts":0,"beatAgeMs":120,"reasons":[]}],
"pool":{"running":1,"queued":2,"booting":0,"standing":4,"warming":1,"destroying":0,"wedged":0,"setUps":0,"setUpsQueued":0,"executionsTotal":41},
"reaper":{"rounds":4,"expiredEnvironments":1,"brokenRecords":0,"orphanVolumes":0,"orphanSlots":0,"reapedZombies":0,"forgottenExecutions":0,"lastFailures":["tee-env-x: busy"]}}"#;

/// Runs a command whose health socket lies where the variable says.
fn run(answers: Vec<(u16, &str)>, arguments: &[&str]) -> (Did, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let played = Played::on_socket(&folder.path().join("health.sock"), answers);
    let variables = vec![("CLOISTER_RUN_DIR", folder.path().to_str().unwrap().to_owned())];
    let did = Setting { variables, ..Setting::default() }.run(arguments);
    (did, played.asked().into_iter().map(|asked| asked.line).collect())
}

fn did(code: u8, out: &str) -> Did {
    Did { code, out: out.to_owned(), err: String::new() }
}

#[test]
fn a_probe_asks_for_life_or_for_readiness() {
    let (live, asked) = run(vec![(200, r#"{"live":true,"reasons":[]}"#)], &["health"]);
    assert_eq!((live, asked), (did(0, "live\n"), vec!["GET /livez HTTP/1.1".to_owned()]));
    let not_ready = r#"{"ready":false,"reasons":["sandbox-pool is in a crash loop: runsc is not found"]}"#;
    let (ready, asked) = run(vec![(503, not_ready)], &["health", "--ready"]);
    let said = "not ready\n  sandbox-pool is in a crash loop: runsc is not found\n";
    assert_eq!((ready, asked), (did(1, said), vec!["GET /readyz HTTP/1.1".to_owned()]));
    let (json, _) = run(vec![(503, not_ready)], &["health", "--ready", "--json"]);
    assert_eq!(json, did(1, &format!("{not_ready}\n")));
}

#[test]
fn a_yes_with_the_wrong_status_or_shape_is_a_no() {
    let (did_not, _) = run(vec![(503, r#"{"live":true,"reasons":[]}"#)], &["health"]);
    assert_eq!(did_not.code, 1);
    let (foreign, _) = run(vec![(200, "OK")], &["health"]);
    assert!(foreign.code == 1 && foreign.err.contains("not a Cloister's"), "{foreign:?}");
}

#[test]
fn nobody_there_is_a_no_that_says_where() {
    let health = Setting::default().run(&["health", "--socket", "/nonexistent/health.sock"]);
    assert_eq!(health.code, 1);
    insta::assert_snapshot!(health.err, @"cloister: cannot reach /nonexistent/health.sock (No such file or directory (os error 2)): is the daemon running? start it with `cloister serve`");
    assert_eq!(Setting::default().run(&["status", "--socket", "/nonexistent/health.sock"]).code, 69);
}

#[test]
fn the_status_is_a_table() {
    let (status, asked) = run(vec![(200, HEALTHZ)], &["status"]);
    assert_eq!((status.code, asked), (0, vec!["GET /healthz HTTP/1.1".to_owned()]));
    insta::assert_snapshot!(status.out, @"
    cloister 9.9.9: live, not ready
    warning: sandboxes run without gVisor

    PART               STATE            RESTARTS  LAST BEAT   REASONS
    sandbox-pool       in a crash loop  6         -           runsc is not found
    reaper (optional)  running          0         120 ms ago

    RUNNING  QUEUED  BOOTING  STANDING  WARMING  DESTROYING  WEDGED  SET-UPS  WAITING SET-UPS  CALLS SO FAR
    1        2       0        4         1        0           0       0        0                41

    REAPED: ROUNDS  EXPIRED  BROKEN  VOLUMES  SLOTS  PACKAGES  ZOMBIES  OLD CALLS
    4               1        0       0        0      0         0        0
      not removed: tee-env-x: busy
    ");
}

#[test]
fn runtimes_that_come_from_images_have_a_table() {
    let images = r#","images":[
{"runtime":"deno","serving":"sha256:0123456789abcdef","onTrial":"sha256:fedcba9876543210","passed":57,"needed":200},
{"runtime":"bun","passed":0,"needed":0,"problem":"the image r.example/bun:1 cannot be fetched"}]}"#;
    let with = HEALTHZ.strip_suffix('}').unwrap().to_owned() + images;
    let (status, _) = run(vec![(200, &with)], &["status"]);
    let table = status.out.split_once("IMAGE OF").unwrap().1;
    assert_eq!(
        table.lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            "  SERVES        ON TRIAL      STARTS     PROBLEM",
            "deno      0123456789ab  fedcba987654  57 of 200",
            "bun       -             -             -          the image r.example/bun:1 cannot be fetched",
        ]
    );
}

#[test]
fn a_status_without_an_answering_part_says_so() {
    let (json, _) = run(vec![(503, HEALTHZ)], &["status", "--json"]);
    assert_eq!(json, did(0, &format!("{HEALTHZ}\n")));
    let silent = r#"{"error":"the supervisor does not answer","code":"unavailable"}"#;
    let (refused, _) = run(vec![(503, silent)], &["status"]);
    assert_eq!((refused.code, refused.err.as_str()), (1, "cloister: the supervisor does not answer (unavailable)\n"));
    let quiet = HEALTHZ.split(",\n\"pool\"").next().unwrap().to_owned() + r#","pool":null,"reaper":null}"#;
    let (status, _) = run(vec![(200, &quiet)], &["status"]);
    assert!(status.out.ends_with("the pool does not answer\n\nthe reaper does not answer\n"), "{}", status.out);
}

#[test]
fn sandboxes_that_are_switched_off_are_not_called_silent() {
    let off = r#"{"version":"9.9.9","live":true,"ready":true,"draining":false,"warnings":[],"parts":[
        {"name":"sandbox_pool","state":"off","essential":false,"restarts":0,"reasons":["sandbox.enabled is false"]},
        {"name":"reaper","state":"off","essential":false,"restarts":0,"reasons":["sandbox.enabled is false"]}],
        "pool":null,"reaper":null}"#;
    let (status, _) = run(vec![(200, off)], &["status"]);
    assert!(status.out.ends_with("\n\nsandboxes are off: sandbox.enabled is false\n"), "{}", status.out);
}

#[test]
fn the_status_shows_instances_and_gpus_where_there_are_any() {
    let with = |more: &str| HEALTHZ.strip_suffix('}').unwrap().to_owned() + more + "}";
    let more = r#","instances":[{"name":"comfy-0","state":"busy","device":"GPU-1","port":8188,"jobs":7,"memoryMib":900,"job":"job-1","complaints":[]},
        {"name":"comfy-1","state":"wedged","port":8189,"jobs":0,"complaints":["wedged: it survives"]}],
        "gpus":{"driver":"well","gpus":[{"index":0,"uuid":"GPU-1","name":"Stub","memoryTotal":2097152,"memoryUsed":1048576,"temperature":41,"xid":119,"unfit":"XID 119 needs a reset"}]}"#;
    let (status, _) = run(vec![(200, &with(more))], &["status"]);
    insta::assert_snapshot!(status.out.split("not removed: tee-env-x: busy\n").nth(1).unwrap(), @"

    INSTANCE  STATE   PORT  JOBS  MEMORY   JOB IN HAND  REASONS
    comfy-0   busy    8188  7     900 MiB  job-1
    comfy-1   wedged  8189  0     -        -            wedged: it survives

    GPU  NAME  MEMORY      TEMPERATURE  LAST XID  UNFIT
    0    Stub  1 of 2 MiB  41 °C        119       XID 119 needs a reset
    ");
    for (gpus, line) in [
        (r#","gpus":{"driver":"absent","gpus":[]}"#, "no GPU driver\n"),
        (r#","gpus":{"driver":"unwell","reason":"slow","gpus":[]}"#, "the GPU driver gives no answer: slow\n"),
        (r#","gpus":{"driver":"well","gpus":[]}"#, "no GPUs\n"),
    ] {
        let (status, _) = run(vec![(200, &with(gpus))], &["status"]);
        assert!(status.out.ends_with(line), "{}", status.out);
    }
}

#[test]
fn a_daemon_that_does_not_listen_to_the_signal_yet_is_not_ended_by_it() {
    // Who listens is this process, which SIGHUP would end.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("health.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let reload = || Setting::default().run(&["reload", "--socket", path.to_str().unwrap()]);
    let pid = std::process::id();
    let told = format!("cloister: the daemon (pid {pid}) does not listen to SIGHUP yet: it is starting, try again\n");
    assert_eq!(reload(), Did { code: 1, out: String::new(), err: told });
    drop(listener);
    let gone = reload();
    assert!(gone.code == 69 && gone.err.contains("is the daemon running?"), "{gone:?}");
}
