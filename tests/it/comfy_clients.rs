//! Clients that others wrote, and the two examples, at the daemon's own doors: RunPod's SDK, PyNaCl, tweetnacl.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::comfy_caller::Caller;
use crate::support::daemon::TOKEN;
use crate::support::gpu::{Gpu, workflow};

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the set-up step made.
fn set_up(what: &str) -> PathBuf {
    let state = std::env::var_os("CLOISTER_STATE_DIR").map_or_else(|| checkout().join(".cloister"), PathBuf::from);
    let path = state.join(what);
    assert!(path.exists(), "there is no {}: run `make setup` first", path.display());
    path
}

/// A program in a home of its own, that sees nothing else of this process's environment.
fn program(path: &Path, home: &TempDir) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin").current_dir(home.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it with this on its standard input.
async fn run(mut command: Command, input: String) -> Output {
    let work = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_runpod_sdk_is_served_at_the_daemons_own_doors() {
    let gpu = Gpu::double().start().await;
    let home = tempfile::tempdir().unwrap();
    let mut client = program(&set_up("oracle/bin/python"), &home);
    client.arg(checkout().join("tests/oracle/job_client.py"));
    client.env("RUNPOD_ENDPOINT_BASE_URL", format!("{}/v2", gpu.daemon.url));
    client.env("RUNPOD_ENDPOINT_ID", "any-name").env("RUNPOD_API_KEY", TOKEN);
    let requests = [workflow::save_one(), workflow::save_one(), workflow::steps(100_000, 0.05)];
    let sealed = requests.map(|workflow| gpu.keys.workflow(&workflow));
    let inputs: Vec<_> = sealed.iter().map(|request| &request.input).collect();
    let ended = run(client, json!(inputs).to_string()).await;
    assert!(ended.status.success(), "{}\n{}", text(&ended.stderr), gpu.daemon.log_text());
    let seen: Value = serde_json::from_slice(&ended.stdout).unwrap();

    assert!(["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].contains(&seen["first"].as_str().unwrap()), "{seen}");
    assert_eq!(seen["last"], "COMPLETED");
    let id = seen["id"].as_str().unwrap();
    let data = |reply: Value| reply["outputs"][0]["data"].as_str().unwrap().to_owned();
    assert_eq!(data(sealed[0].reply(&seen["output"], id)), data(sealed[1].reply(&seen["sync"], "")));
    assert!(["CANCELLED", "IN_PROGRESS"].contains(&seen["cancelled"]["status"].as_str().unwrap()), "{seen}");
    assert_eq!(seen["after_cancel"], "CANCELLED");
    assert_eq!(seen["health"]["jobs"]["completed"], 2, "{}", seen["health"]);
    assert_eq!(seen["health"]["jobs"]["inProgress"], 0, "{}", seen["health"]);
}

/// Runs one of the examples on a workflow; its output, and the files that it wrote with their content.
async fn example(gpu: &Gpu, mut command: Command, script: &Path, workflow: &Value, home: &TempDir) -> Example {
    let (file, folder) = (home.path().join("workflow.json"), home.path().join("out"));
    std::fs::write(&file, workflow.to_string()).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    command.arg(script).arg(&file).arg(&folder);
    command.env("ENDPOINT_URL", format!("{}/v2/local", gpu.daemon.url)).env("BEARER_TOKEN", TOKEN);
    command.env("SERVER_PUBLIC_KEY_B64", gpu.keys.public_base64());
    let ended = run(command, String::new()).await;
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap());
    let files = files.into_iter().map(read).collect();
    Example { good: ended.status.success(), said: text(&ended.stdout) + &text(&ended.stderr), files }
}

struct Example {
    good: bool,
    said: String,
    files: Vec<(String, Vec<u8>)>,
}

/// What the daemon answers to the suite's own caller, by the last part of each name.
async fn expected(gpu: &Gpu, workflow: &Value) -> Vec<(String, Vec<u8>)> {
    let ended = Caller::new(&gpu.daemon.url, &gpu.keys).run(workflow).await.done();
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let mut files: Vec<_> = ended.outputs().into_iter().map(|output| (last(&output.filename), output.data)).collect();
    files.sort();
    files
}

/// Shows that an example writes what it should, and says what went wrong when something did.
async fn is_right(gpu: &Gpu, command: impl Fn(&TempDir) -> Command, script: &Path) {
    let several = workflow::fixture("02_save_batch4");
    let home = tempfile::tempdir().unwrap();
    let seen = example(gpu, command(&home), script, &several, &home).await;
    assert!(seen.good, "{}\n{}", seen.said, gpu.daemon.log_text());
    assert_eq!(seen.files, expected(gpu, &several).await);
    assert_eq!(seen.files.len(), 4);
    assert!(seen.files.iter().all(|(name, _)| seen.said.contains(name)), "{}", seen.said);

    let home = tempfile::tempdir().unwrap();
    let seen = example(gpu, command(&home), script, &workflow::fixture("41_exec_error_test"), &home).await;
    assert!(!seen.good && seen.files.is_empty());
    // What the public line leaves out, the sealed part tells.
    assert!(seen.said.contains("execution_failed: node_error") && seen.said.contains("SECRET-INPUT"), "{}", seen.said);
}

#[tokio::test]
async fn the_python_example_opens_what_it_sealed() {
    let gpu = Gpu::double().start().await;
    let script = checkout().join("examples/clients/submit.py");
    is_right(&gpu, |home| program(&set_up("oracle/bin/python"), home), &script).await;
}

#[tokio::test]
async fn the_typescript_example_opens_what_it_sealed_on_bun_and_on_deno() {
    let gpu = Gpu::double().start().await;
    // Modules are looked for beside the script.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("submit.ts");
    std::fs::copy(checkout().join("examples/clients/submit.ts"), &script).unwrap();
    std::os::unix::fs::symlink(set_up("oracle/node_modules"), folder.path().join("node_modules")).unwrap();
    std::fs::copy(set_up("oracle/package.json"), folder.path().join("package.json")).unwrap();
    is_right(&gpu, |home| program(&set_up("runtimes/bun/rootfs/usr/bin/bun"), home), &script).await;
    let deno = |home: &TempDir| {
        let mut command = program(&set_up("runtimes/deno/rootfs/usr/bin/deno"), home);
        command.args(["run", "-A"]);
        command
    };
    is_right(&gpu, deno, &script).await;
}
