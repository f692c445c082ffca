//! The command line against a running daemon.

use std::process::{Command, Output, Stdio};

use crate::support::daemon::TOKEN;
use crate::support::{Daemon, Settings};

fn cloister(daemon: &Daemon, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("BEARER_TOKEN", TOKEN).env("CLOISTER_URL", &daemon.url);
    command.env("CLOISTER_RUN_DIR", daemon.home.run()).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn an_environment_from_the_command_line() {
    let daemon = Daemon::start().await;
    let folder = daemon.home.root.path().join("handler");
    std::fs::create_dir_all(folder.join("lib")).unwrap();
    std::fs::write(folder.join("main.ts"), "import { twice } from './lib/twice.ts';\nexport const handler = (event: any) => twice(event.data.n);").unwrap();
    std::fs::write(folder.join("lib/twice.ts"), "export const twice = (n: number): number => n * 2;").unwrap();
    let made = cloister(&daemon, &["env", "setup", folder.to_str().unwrap(), "--main", "main.ts", "--json"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let environment: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let id = environment["id"].as_str().unwrap();
    let executed = cloister(&daemon, &["env", "execute", id, "--data", r#"{"n":21}"#, "--timeout-ms", "20000"]);
    assert!(executed.status.success(), "{}", text(&executed.stderr));
    assert_eq!(text(&executed.stdout).trim(), "42");
    assert!(text(&cloister(&daemon, &["env", "list"]).stdout).contains(id));
    assert!(cloister(&daemon, &["env", "delete", id]).status.success());
    let gone = cloister(&daemon, &["env", "show", id]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("does not exist"), "{}", text(&gone.stderr));
}

#[tokio::test]
async fn health_status_and_errors_that_say_what_to_do() {
    let mut daemon = Daemon::start().await;
    assert_eq!(cloister(&daemon, &["health"]).status.code(), Some(0));
    assert_eq!(cloister(&daemon, &["health", "--ready"]).status.code(), Some(0));
    assert!(text(&cloister(&daemon, &["status"]).stdout).contains("sandbox_pool"));
    let mistyped = cloister(&daemon, &["helth"]);
    assert_eq!(mistyped.status.code(), Some(64));
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.ended(std::time::Duration::from_secs(10)).await;
    assert_eq!(cloister(&daemon, &["health"]).status.code(), Some(1));
    let unreachable = cloister(&daemon, &["env", "list"]);
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(text(&unreachable.stderr).contains("cloister serve"), "{}", text(&unreachable.stderr));
}

#[test]
fn every_configuration_error_is_told_at_once_with_its_place() {
    let home = crate::support::daemon::Home::new();
    let file = home.root.path().join("cloister.toml");
    std::fs::write(&file, "[server]\nport = \"many\"\nprot = 1\n\n[sandbox]\ncpu = -1\n").unwrap();
    let settings = Settings { args: vec!["--config".into(), file.to_str().unwrap().into()], ..Settings::default() };
    let output = crate::support::daemon::command(&home, &settings.env("MAX_TIMEOUT_MS", "soon")).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    for part in ["cloister.toml:3", "prot", "cloister.toml:6", "cpu", "MAX_TIMEOUT_MS"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}
