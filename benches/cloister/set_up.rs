//! P7: a set-up of ten modules, without dependencies and with one that is kept already, beside the runtime's own work for the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::daemon::{Daemon, Settings, runtimes};
use super::support::registry::{Package, Registry};
use super::table::{Row, median, millis, ninetieth, worst};

const ROUNDS: usize = 15;
const MODULES: usize = 10;
/// About what the middle of npm's packages has.
const PACKAGE_FILES: usize = 40;
const PACKAGE_FILE: usize = 4096;

/// What is set up, and whose floor it has.
#[derive(Clone, Copy)]
struct Case {
    runtime: &'static str,
    ending: &'static str,
    what: &'static str,
}

const CASES: [Case; 3] = [
    Case { runtime: "deno", ending: "ts", what: "Deno, TypeScript" },
    Case { runtime: "deno", ending: "js", what: "Deno, JavaScript" },
    Case { runtime: "bun", ending: "ts", what: "Bun, TypeScript" },
];

pub async fn rows() -> Vec<Row> {
    let files = (0..PACKAGE_FILES).map(|number| {
        let name: &'static str = Box::leak(format!("lib/{number}.js").into_boxed_str());
        (name, vec![b'/'; PACKAGE_FILE])
    });
    let manifest = json!({ "type": "module", "main": "lib/0.js" });
    let registry = Registry::start(vec![Package { name: "dependency", manifest, files: files.collect() }]);
    let settings = Settings::default()
        .set("sandbox.registries", &registry.url)
        .set("sandbox.standing.enabled", "true")
        .set("sandbox.standing.runtimes", "0")
        .set("sandbox.standing.compilers", "1")
        .set("sandbox.standing.memory_mib", "1024");
    let daemon = Daemon::start_with(settings).await;
    let floor = Floor::start(&registry);
    let mut rows = Vec::new();
    for case in CASES {
        for packages in [&[][..], &["dependency"]] {
            rows.push(row(&daemon, &floor, case, packages).await);
        }
    }
    rows
}

async fn row(daemon: &Daemon, floor: &Floor, case: Case, packages: &[&str]) -> Row {
    let (mut ours, mut own, mut failed) = (Vec::new(), Vec::new(), 0);
    // The first round fills the page cache, and keeps the dependency.
    for round in 0..=ROUNDS {
        let modules = modules(case, round);
        let request = json!({ "mainModule": format!("m0.{}", case.ending), "modules": modules, "runtime": case.runtime,
            "dependencies": { "npm": packages } });
        // Deno's compiler, as P1 waits for a sandbox.
        daemon.standing.wait_for(1).await;
        let began = Instant::now();
        let made = daemon.client().set_up(request).await;
        let span = began.elapsed();
        failed += usize::from(made.status != 200);
        let bare = if packages.is_empty() { floor.transpile(case, &modules) } else { floor.install() };
        if round > 0 && made.status == 200 {
            ours.push(span);
            own.push(bare);
        }
        daemon.client().delete(made.json["id"].as_str().unwrap_or_default()).await;
    }
    let (goal, most, with) = match packages {
        [] => ("≤ 60 ms", 60, "without dependencies"),
        _ => ("≤ 120 ms", 120, "with one of npm, kept already"),
    };
    Row {
        name: "P7",
        what: format!("set-up of {MODULES} modules, {}, {with}", case.what),
        measure: "request sent → answer read, each with modules never seen before; one at a time, Deno's compiler stood; floor: spawn → exit"
            .into(),
        ours: millis(median(&ours)),
        p90: Some(millis(ninetieth(&ours))),
        worst: millis(worst(&ours)),
        floor: Some(millis(median(&own))),
        floor_is: match (packages, case.runtime) {
            ([], "deno") => "deno cache, empty DENO_DIR",
            ([], _) => "bun build of each module",
            _ => "bun install, cache and lock file warm",
        },
        unit: "ms",
        goal,
        met: median(&ours) <= Duration::from_millis(most),
        tried: ROUNDS + 1,
        failed,
    }
}

/// Modules that import one another, with some types where they may have them.
fn modules(case: Case, round: usize) -> Value {
    let typed = if case.ending == "ts" { ": number" } else { "" };
    let one = |number: usize| {
        let next = number + 1;
        let body: String = (0..40).map(|line| format!("export const v{line}{typed} = {line} + {round};\n")).collect();
        let import = format!("import {{ call as next }} from './m{next}.{}';\n", case.ending);
        let (import, call) = if next < MODULES { (import, "next(n)") } else { (String::new(), "n") };
        let handler = if number == 0 { "export const handler = () => call(1);\n" } else { "" };
        let text = format!("{import}export const call = (n{typed}){typed} => {call} + v1;\n{body}{handler}");
        (format!("m{number}.{}", case.ending), Value::from(text))
    };
    Value::Object((0..MODULES).map(one).collect())
}

/// The runtimes by themselves, outside of any sandbox.
struct Floor {
    folder: TempDir,
    registry: String,
}

impl Floor {
    fn start(registry: &Registry) -> Self {
        let floor = Self { folder: tempfile::tempdir().unwrap(), registry: registry.url.clone() };
        let project = floor.folder.path().join("project");
        std::fs::create_dir(&project).unwrap();
        let manifest = json!({ "name": "environment", "private": true, "dependencies": { "dependency": "latest" } });
        std::fs::write(project.join("package.json"), manifest.to_string()).unwrap();
        floor.install();
        floor
    }

    fn install(&self) -> Duration {
        let project = self.folder.path().join("project");
        drop(std::fs::remove_dir_all(project.join("node_modules")));
        let mut command = program("bun");
        command.args(["install", "--ignore-scripts", "--no-progress", "--no-summary", "--linker=hoisted"]);
        command.arg(format!("--registry={}", self.registry)).current_dir(&project);
        timed(command.env("BUN_INSTALL_CACHE_DIR", self.folder.path().join("cache")))
    }

    fn transpile(&self, case: Case, modules: &Value) -> Duration {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let mut paths: Vec<PathBuf> = Vec::new();
        for (name, text) in modules.as_object().unwrap() {
            paths.push(folder.path().join(name));
            std::fs::write(folder.path().join(name), text.as_str().unwrap()).unwrap();
        }
        let mut command = program(case.runtime);
        match case.runtime {
            "deno" => command.args(["cache", "--quiet", "--no-config", "--no-lock", "--no-check"]),
            _ => command.args(["build", "--target=bun", "--no-bundle", "--outdir"]).arg(folder.path().join("out")),
        };
        timed(command.args(paths).env("DENO_DIR", folder.path().join("cache")))
    }
}

fn program(runtime: &str) -> Command {
    let at: &Path = &runtimes().join(runtime).join("rootfs/usr/bin").join(runtime);
    Command::new(at)
}

fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(ended.success(), "{command:?}");
    began.elapsed()
}
