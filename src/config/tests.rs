//! The layers, their errors as a person reads them, and the shipped files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::value::Rule;
use super::*;
use crate::domain::image::ImageSource;

/// What a test gives, with a token unless it says otherwise.
struct Given {
    directory: TempDir,
    sources: Sources,
}

fn given(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Given {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cloister.toml");
    std::fs::write(&path, text).expect("written");
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let flag = |(flag, key, value): &(&str, &str, &str)| FlagValue {
        flag: (*flag).to_owned(),
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    let sources = Sources {
        file: Some(path),
        standard_file: "/nonexistent/cloister.toml".into(),
        environment: environment.iter().map(pair).collect(),
        flags: flags.iter().map(flag).collect(),
        serving: true,
    };
    Given { directory, sources }
}

const TOKEN: (&str, &str) = ("BEARER_TOKEN", "a-token-that-nobody-guesses");

impl Given {
    fn loaded(&self) -> Loaded {
        load(&self.sources).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// All errors, with the directory taken out.
    fn errors(&self) -> String {
        let errors = load(&self.sources).map(|_| ()).expect_err("errors");
        errors.to_string().replace(&format!("{}/", self.directory.path().display()), "")
    }
}

#[test]
fn nothing_but_a_token_is_needed() {
    let loaded = given("", &[TOKEN], &[]).loaded();
    let config = &loaded.config;
    assert_eq!(config.server.port, 8080);
    assert_eq!(config.server.bearer_tokens[0].expose_secret(), TOKEN.1);
    assert_eq!(config.store.path, Path::new("/var/lib/cloister/cloister.db"));
    assert_eq!(config.daemon.health_socket, Path::new("/run/cloister/health.sock"));
    assert_eq!(config.store.keep_executions, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(config.reaper.idle_ttl, None);
    assert!(config.sandbox.boots_at_once >= 1);
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_first_systems_variables_set_how_jobs_are_answered() {
    let environment =
        [TOKEN, ("NO_HISTORY", "1"), ("DRY_RUN", "1"), ("CLOISTER__JOBS__URL_HOSTS", "a.example, ,*.b.example")];
    let jobs = given("[jobs]\nspool_mib = 2\n", &environment, &[]).loaded().config.jobs;
    assert_eq!((jobs.no_history, jobs.dry_run, jobs.spool_bytes), (true, true, 2 << 20));
    assert_eq!(jobs.url_hosts, ["a.example", "*.b.example"]);
    assert_eq!((jobs.keep.as_secs(), jobs.fetch_bytes), (1800, 64 << 20));
}

#[test]
fn flags_outrank_the_environment_which_outranks_the_file() {
    let file = "[server]\nport = 1\nmax_connections = 2\nheader_timeout = \"3 s\"\n";
    let environment = [TOKEN, ("PORT", "11"), ("CLOISTER__SERVER__MAX_CONNECTIONS", "12")];
    let loaded = given(file, &environment, &[("--port", "server.port", "21")]).loaded();
    let server = &loaded.config.server;
    assert_eq!((server.port, server.max_connections, server.header_timeout.as_secs()), (21, 12, 3));
    let origins = ["server.port", "server.max_connections", "server.body_timeout", "store.path"];
    let told = origins.map(|key| loaded.origin(key).map(ToString::to_string).unwrap_or_default());
    assert_eq!(
        told,
        [
            "flag --port",
            "environment variable CLOISTER__SERVER__MAX_CONNECTIONS",
            "default",
            "default, from daemon.state_dir"
        ]
    );
    let line = loaded.origin("server.header_timeout").expect("known").to_string();
    assert!(line.ends_with("cloister.toml:4"), "{line}");
}

#[test]
fn the_first_systems_variables_set_what_they_did() {
    let environment = [
        ("PORT", "9000"),
        ("DISABLE_BEARER_TOKEN", "true"),
        ("BEARER_TOKEN", ""),
        ("LOG_LEVEL", "DEBUG"),
        ("RUNTIME_IMAGE", "/runtimes/any"),
        ("RUNTIME_IMAGE_DENO", "/runtimes/deno"),
        ("RUNTIME_IMAGE_BUN", "/runtimes/bun"),
        ("DISABLE_GVISOR", "1"),
        ("SETUP_CONCURRENCY", "3"),
        ("MAX_TIMEOUT_MS", "2000"),
        ("MAX_MEMORY_MB", "64"),
        ("CLOISTER_STATE_DIR", "/state"),
        ("CLOISTER_RUN_DIR", "/run/c"),
        ("DB_HOST", ""),
        ("COMFYUI_DIR", "/comfy"),
        ("COMFYUI_PYTHON", "/comfy/venv/bin/python"),
        ("COMFYUI_ARGS", "--cpu --front-end-root '/my front'"),
        ("COMFY_PORT", "8200"),
        ("COMFYUI_MODEL_DIR", "/models"),
        ("LOG_SILENT", "0"),
    ];
    let loaded = given("", &environment, &[]).loaded();
    let config = &loaded.config;
    assert_eq!(config.log.level, slog::Level::Debug);
    assert_eq!(config.sandbox.runtime_deno, ImageSource::Place("/runtimes/deno".into()));
    assert_eq!(config.store.path, Path::new("/state/cloister.db"));
    assert_eq!(config.daemon.health_socket, Path::new("/run/c/health.sock"));
    assert_eq!(
        (config.sandbox.default_timeout_ms, config.sandbox.default_memory_mb),
        (2000, 64),
        "defaults follow caps"
    );
    assert_eq!(loaded.warnings.len(), 4, "{:?}", loaded.warnings);
    let comfy = &config.comfy;
    assert_eq!(comfy.dir.as_deref(), Some(Path::new("/comfy")));
    assert_eq!((comfy.python.as_str(), comfy.port, comfy.silent), ("/comfy/venv/bin/python", 8200, false));
    assert_eq!(comfy.args, ["--cpu", "--front-end-root", "/my front"]);
    assert_eq!(comfy.model_dir, Path::new("/models"));
}

#[test]
fn comfyui_has_defaults_that_follow_its_checkout_and_its_limits() {
    let none = given("", &[TOKEN], &[]).loaded().config.comfy;
    assert_eq!((none.dir, none.python.as_str(), none.port, none.instances), (None, "python3", 8188, 0));
    assert_eq!((none.recycle_after_jobs, none.recycle_above_mib, none.memory_mib), (None, None, None));
    assert_eq!(none.model_dir, Path::new("/runpod-volume/models"));

    let checkout = tempfile::tempdir().expect("a directory");
    let python = checkout.path().join("venv/bin/python");
    std::fs::create_dir_all(python.parent().expect("a parent")).expect("made");
    std::fs::write(&python, "").expect("written");
    let file = format!("[comfy]\ndir = {:?}\nmemory_mib = 1000\n", checkout.path());
    let own = given(&file, &[TOKEN], &[]).loaded().config.comfy;
    assert_eq!((Path::new(&own.python), own.ram_mib), (python.as_path(), 1000));
}

#[test]
fn a_folder_that_is_no_comfyui_is_warned_of() {
    let folder = tempfile::tempdir().expect("a directory");
    let warnings = |dir: &Path| given(&format!("comfy.dir = {dir:?}"), &[TOKEN], &[]).loaded().warnings;
    let said = warnings(folder.path());
    assert!(said.len() == 1 && said[0].contains("has no main.py") && said[0].contains("COMFYUI_DIR"), "{said:?}");
    assert!(warnings(&folder.path().join("x"))[0].contains("is not a directory"));
    std::fs::write(folder.path().join("main.py"), "").expect("written");
    assert_eq!(warnings(folder.path()), Vec::<String>::new());
}

#[test]
fn keys_come_from_files_and_no_file_has_two_meanings() {
    let text = "crypto.private_key_file = '/k/new'\ncrypto.former_key_files = '/k/old::/k/older'\n";
    let loaded = given(text, &[TOKEN, ("ENCRYPTION_REQUIRED", "0"), ("CLOISTER_STATE_DIR", "/state")], &[]).loaded();
    let crypto = &loaded.config.crypto;
    assert_eq!(crypto.former_key_files, [Path::new("/k/old"), Path::new("/k/older")]);
    assert_eq!((crypto.required, crypto.replay_path.as_path()), (false, Path::new("/state/replay.db")));
    assert!(loaded.warnings.iter().any(|warning| warning.contains("taken in clear")), "{:?}", loaded.warnings);
    let clashing = "crypto.private_key_file = '/k/a'\ncrypto.former_key_files = '/k/b:/k/a'\n\
                    crypto.replay_path = '/s.db'\nstore.path = '/s.db'\n";
    let errors = given(clashing, &[TOKEN], &[]).errors();
    assert!(errors.contains("crypto.former_key_files: it names the same file as"), "{errors}");
    assert!(errors.contains("crypto.replay_path: it is the same file as"), "{errors}");
}

#[test]
fn one_installation_is_no_larger_than_all_of_them_may_be() {
    let errors = given("sandbox.dependencies_mib = 64\nsandbox.packages_mib = 32\n", &[TOKEN], &[]).errors();
    assert!(errors.contains("sandbox.dependencies_mib: 64 MiB is above sandbox.packages_mib = 32 MiB"), "{errors}");
}

#[test]
fn a_command_that_only_asks_needs_no_token() {
    let mut asking = given("", &[], &[]);
    asking.sources.serving = false;
    assert!(asking.loaded().config.server.bearer_tokens.is_empty());
}

#[test]
fn the_file_is_named_by_flag_then_variable_then_custom() {
    let mut here = given("[server]\nport = 7\n", &[TOKEN], &[]);
    let path = here.sources.file.take().expect("a file");
    assert_eq!(here.loaded().config.server.port, 8080);
    here.sources.environment.push(("CLOISTER_CONFIG".into(), path.display().to_string()));
    assert_eq!(here.loaded().config.server.port, 7);
    here.sources.environment.pop();
    here.sources.standard_file = path;
    assert_eq!(here.loaded().config.server.port, 7);
}

#[test]
fn all_errors_are_told_at_once() {
    let file = r#"
[sever]
[server]
prot = 1
port = 70000
address = "localhost"
bearer_tokens = "secret-token-in-the-wrong-shape"
header_timeout = 10
max_connections = "12"
disable_bearer_token = 1
[sandbox]
default_timeout_ms = 9000
max_timeout_ms = 5000
cpu = -0.5
queue_wait = "soon"
output_keep_kib = 2048
output_discard_mib = 1
[log]
level = "loud"
[store]
path = { file = "x" }
[comfy]
dir = "/comfy"
args = "--listen '0.0.0.0"
port = 65535
instances = 2
recycle_above_mib = 100
memory_mib = 100
ram_mib = 101
[[reaper]]
interval = "1 s"
[supervision]
beat_every = "1 min"
backoff_first = "2 min"
"#;
    let environment = [
        ("PORT", "8080"),
        ("CLOISTER__SERVER__PORT", "8081"),
        ("SETUP_CONCURRENCY", "0"),
        ("CLOISTER__SANDBOX__MAX_EXECUTION", "3"),
        ("RUNTIME_IMAGE_DENO", "denoland/deno:alpine-1.40.0"),
        ("DB_HOST", "db.example"),
        ("DB_PASSWORD", "hunter2"),
    ];
    let flags = [("--port", "server.port", "many"), ("--set", "server.colour", "red")];
    insta::assert_snapshot!(given(file, &environment, &flags).errors());
}

#[test]
fn a_missing_token_says_how_to_set_one() {
    insta::assert_snapshot!(given("", &[("BEARER_TOKEN", "")], &[]).errors(), @"server.bearer_tokens: no bearer token is set; set BEARER_TOKEN to a secret, or DISABLE_BEARER_TOKEN=true to serve everybody");
}

#[test]
fn a_syntax_error_is_placed_and_quotes_nothing() {
    let text = "[server]\nport = 1\nbearer_tokens = [\"tip-top-secret]\n";
    insta::assert_snapshot!(given(text, &[], &[]).errors(), @"cloister.toml:3:34: not TOML: unclosed array, expected `]`");
    insta::assert_snapshot!(given("[server]\nport = 1\nport = 2\n", &[TOKEN], &[]).errors(), @"cloister.toml:3:1: not TOML: duplicate key");
    let missing = given("", &[TOKEN], &[]);
    std::fs::remove_file(missing.sources.file.as_ref().expect("a file")).expect("removed");
    insta::assert_snapshot!(missing.errors(), @"cloister.toml: it cannot be read: No such file or directory (os error 2)");
}

#[test]
fn a_token_is_shown_nowhere() {
    let secret = "tip-top-secret-token";
    let file = format!("[server]\nbearer_tokens = [\"{secret}\", \"second-{secret}\"]\n");
    let loaded = given(&file, &[], &[]).loaded();
    assert_eq!(loaded.config.server.bearer_tokens.len(), 2);
    let shown = [
        format!("{loaded:?}"),
        format!("{:#?}", loaded.config),
        render(&loaded, true, false),
        render(&loaded, false, true),
    ];
    assert!(shown.iter().all(|text| !text.contains(secret)));
    assert!(shown[2].contains(r#"bearer_tokens = ["***", "***"]"#));

    let wrong = [
        given(&format!("[server]\nbearer_tokens = [\"{secret} \"]\n"), &[], &[]).errors(),
        given(&format!("[server]\nbearer_tokens = \"{secret}\"\n"), &[], &[]).errors(),
        given(&format!("[server]\nbearer_token = \"{secret}\"\n"), &[], &[]).errors(),
        given("", &[("BEARER_TOKEN", &format!("{secret}\n"))], &[]).errors(),
        given("", &[("BEARER_TOKEN", secret), ("CLOISTER__SERVER__BEARER_TOKENS", "x")], &[]).errors(),
    ];
    assert!(wrong.iter().all(|text| !text.contains(secret)), "{wrong:#?}");
    insta::assert_snapshot!(wrong.join("\n"));
}

#[test]
fn a_public_file_with_tokens_and_a_weak_token_are_warned_of() {
    let loose = given("[server]\nbearer_tokens = [\"short\"]\n", &[], &[]);
    let path = loose.sources.file.clone().expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(&path, mode(0o644)).expect("loosened");
    assert_eq!(loose.loaded().warnings.len(), 2, "{:?}", loose.loaded().warnings);
    std::fs::set_permissions(&path, mode(0o600)).expect("tightened");
    assert_eq!(loose.loaded().warnings, ["a bearer token has fewer than 16 characters and can be guessed"]);
}

#[test]
fn several_tokens_come_from_a_list_and_one_is_taken_whole() {
    let tokens = |variable, value| {
        let loaded = given("", &[(variable, value)], &[]).loaded();
        loaded.config.server.bearer_tokens.iter().map(|token| token.expose_secret().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(tokens("BEARER_TOKEN", "a,b"), ["a,b"]);
    assert_eq!(tokens("CLOISTER__SERVER__BEARER_TOKENS", "a, b"), ["a", "b"]);
}

#[test]
fn show_names_every_key_and_its_origin() {
    let file = "[sandbox]\ncpu = 2\nboots_at_once = 3\nstanding.memory_mib = 2048\n";
    let given = given(file, &[TOKEN, ("PORT", "9000")], &[("--log-level", "log.level", "WARN")]);
    let text = render(&given.loaded(), true, false);
    insta::assert_snapshot!(text.replace(&format!("{}/", given.directory.path().display()), ""));
    let json: serde_json::Value = serde_json::from_str(&render(&given.loaded(), true, true)).expect("JSON");
    assert_eq!(json["server"]["port"], serde_json::json!({"value": 9000, "origin": "environment variable PORT"}));
}

#[test]
fn the_reference_and_the_sections_have_the_same_keys() {
    let reference: BTreeSet<String> =
        layer::defaults().map_err(|fault| fault.text).expect("it is TOML").values.into_keys().collect();
    let loaded = given("", &[TOKEN], &[]).loaded();
    let asked: Vec<&str> = loaded.entries.iter().map(|entry| entry.key).collect();
    assert_eq!(asked.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>(), reference);
    assert_eq!(asked.len(), reference.len(), "no key is read twice");
    for (name, _) in environment::NAMES {
        assert!(
            crate::config::layer::DEFAULTS.lines().any(|line| line.starts_with("# Variable:") && line.contains(name)),
            "{name}"
        );
    }
    for (name, key) in environment::NAMES {
        assert!(reference.contains(*key), "{name} sets {key}");
    }
}

#[test]
fn every_shipped_example_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut files: Vec<_> = std::fs::read_dir(&folder).expect("listed").flatten().map(|entry| entry.path()).collect();
    files.push(folder.with_file_name("runpod.toml"));
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).expect("read");
        let loaded = given(&text, &[TOKEN], &[]).loaded();
        let chosen =
            loaded.entries.iter().any(|entry| matches!(entry.origin, crate::config::origin::Origin::File { .. }));
        assert!(chosen, "{} sets nothing", path.display());
    }
}

#[test]
fn the_platforms_own_variables_make_a_runpod_worker() {
    let variables = [
        TOKEN,
        ("RUNPOD_WEBHOOK_GET_JOB", "https://api.example/v2/ep/job-take/$ID?gpu=A+B"),
        ("RUNPOD_WEBHOOK_POST_OUTPUT", "https://api.example/v2/ep/job-done/$RUNPOD_POD_ID/$ID?gpu=A+B"),
        ("RUNPOD_WEBHOOK_PING", "https://api.example/v2/ep/ping/$RUNPOD_POD_ID"),
        ("RUNPOD_AI_API_KEY", "rpa_KEY,WITH=ALL"),
        ("RUNPOD_POD_ID", "pod0"),
        ("RUNPOD_PING_INTERVAL", "4000"),
        ("BUCKET_ENDPOINT_URL", "https://s3.example"),
        ("BUCKET_ACCESS_KEY_ID", "id"),
        ("BUCKET_SECRET_ACCESS_KEY", "abc/def+g"),
    ];
    let loaded = given("[bucket]\nprefix = \"/out/\"\n", &variables, &[]).loaded();
    let (runpod, bucket) = (&loaded.config.runpod, loaded.config.bucket.access.as_ref().expect("a bucket"));
    assert_eq!(runpod.take_url.as_deref(), Some("https://api.example/v2/ep/job-take/$ID?gpu=A+B"));
    assert_eq!(runpod.api_key.as_ref().map(ExposeSecret::expose_secret), Some("rpa_KEY,WITH=ALL"));
    assert_eq!((runpod.ping_every, runpod.poll), (Duration::from_secs(4), Duration::from_secs(90)));
    assert!(runpod.result_bytes <= 10_000_000 && runpod.sync_result_bytes <= 20_000_000);
    assert_eq!((bucket.prefix.as_str(), bucket.name.as_deref()), ("out", None));
    assert_eq!(bucket.secret_access_key.expose_secret(), "abc/def+g");
    let shown = render(&loaded, true, false) + &format!("{:?}", loaded.config);
    assert!(!shown.contains("rpa_KEY") && !shown.contains("abc/def"), "{shown}");
    assert!(shown.contains("api_key = \"***\""), "{shown}");
}

#[test]
fn a_runpod_worker_needs_no_token() {
    let platform = [
        ("RUNPOD_WEBHOOK_GET_JOB", "https://a.example/job-take/$ID"),
        ("RUNPOD_WEBHOOK_POST_OUTPUT", "https://a.example/job-done/$ID"),
    ];
    let server = given("", &platform, &[]).loaded().config.server;
    assert!(server.bearer_tokens.is_empty() && !server.disable_bearer_token);
    assert!(given("", &[], &[]).errors().contains("no bearer token is set"), "anybody else does");
}

#[test]
fn half_a_platform_or_half_a_bucket_is_an_error() {
    let variables = [TOKEN, ("RUNPOD_WEBHOOK_GET_JOB", "https://a/$ID"), ("RUNPOD_WEBHOOK_PING", "PING_NOT_SET")];
    let errors = given("[bucket]\nendpoint = \"https://s3.example\"\n", &variables, &[]).errors();
    for part in [
        "runpod.done_url: it is empty and runpod.take_url is not",
        "environment variable RUNPOD_WEBHOOK_PING: runpod.ping_url: \"PING_NOT_SET\" is not a URL such as",
        "bucket.access_key_id: a bucket needs its endpoint and both of its keys",
        "bucket.secret_access_key: a bucket needs",
    ] {
        assert!(errors.contains(part), "{part:?} in {errors}");
    }
}

fn any_value(rule: &Rule) -> BoxedStrategy<String> {
    let quoted = |text: String| toml_edit::Value::from(text).to_string();
    match rule {
        Rule::Text { .. } => "[a-z\"'\\\\é ]{1,12}".prop_map(quoted).boxed(),
        Rule::Path { .. } => "/[a-z\"'\\\\é .]{1,12}(/[a-z]{1,5}){0,3}".prop_map(quoted).boxed(),
        Rule::Image => "/[a-z\"'é .:]{1,12}|oci://[a-z]{1,9}/[a-z]{1,9}:[a-z]{1,5}".prop_map(quoted).boxed(),
        Rule::Url => "https?://[a-z]{1,9}(/\\$ID)?".prop_map(quoted).boxed(),
        Rule::Address => any::<std::net::IpAddr>().prop_map(move |ip| quoted(ip.to_string())).boxed(),
        Rule::Switch => any::<bool>().prop_map(|on| on.to_string()).boxed(),
        Rule::Whole(range) => range.clone().prop_map(|number| number.to_string()).boxed(),
        Rule::Real(range) => range.clone().prop_map(|number| format!("{number:?}")).boxed(),
        Rule::Span(range) => {
            let millis = |span: &Duration| u64::try_from(span.as_millis()).expect("small");
            let spans = millis(range.start())..=millis(range.end());
            spans.prop_map(move |ms| quoted(span::render(Duration::from_millis(ms)))).boxed()
        }
        Rule::Choice { allowed, .. } => {
            proptest::sample::select(*allowed).prop_map(move |text| quoted(text.into())).boxed()
        }
        Rule::Secrets => proptest::collection::vec("[!-~]{1,20}", 1..4)
            .prop_map(|tokens| toml_edit::Array::from_iter(tokens).to_string())
            .boxed(),
        Rule::Secret => "[!-~]{0,20}".prop_map(quoted).boxed(),
    }
}

#[test]
fn any_valid_configuration_is_shown_as_one_that_loads_the_same() {
    let entries = given("", &[TOKEN], &[]).loaded().entries;
    let keys: Vec<&'static str> = entries.iter().map(|entry| entry.key).collect();
    // Few enough at a time that most of them do not clash.
    let chosen: Vec<_> = entries.iter().map(|entry| proptest::option::weighted(0.05, any_value(&entry.rule))).collect();
    let cases = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    let loads = std::cell::Cell::new(0);
    TestRunner::new(cases)
        .run(&chosen, |values| {
            let lines = keys.iter().zip(values).filter_map(|(key, value)| Some(format!("{key} = {}\n", value?)));
            let mut text = lines.collect::<String>();
            if !text.contains("bearer_token") {
                text.push_str("server.disable_bearer_token = true\n");
            }
            let first = given(&text, &[], &[]);
            let loaded = match load(&first.sources) {
                Ok(loaded) => loaded,
                // Only what is wrong together can be wrong here.
                Err(errors) => {
                    let text = errors.to_string();
                    let clash = |line: &str| {
                        [
                            "is above",
                            "is not below",
                            "the same file as",
                            "no bearer token",
                            "a socket's may have",
                            "the cgroup hierarchy's root",
                            "answers would have no way back",
                            "a bucket needs its endpoint",
                            "is no host or host:port",
                            "a quote is not closed",
                            "escapes nothing",
                            "the instances' ports",
                            "is not an address or a network",
                            "is not an address such as",
                            "is not a host, host:port",
                        ]
                        .iter()
                        .any(|part| line.contains(part))
                    };
                    prop_assert!(text.lines().all(clash), "{}", text);
                    return Ok(());
                }
            };
            loads.set(loads.get() + 1);
            let shown = render(&loaded, false, false);
            let again = given(&shown, &[], &[]).loaded();
            prop_assert_eq!(render(&again, false, false), shown);
            prop_assert_eq!(again.config.sandbox.cpu, loaded.config.sandbox.cpu);
            prop_assert_eq!(again.config.store.path, loaded.config.store.path);
            Ok(())
        })
        .expect("the property holds");
    assert!(loads.get() > 10, "{} generated configurations were without clashes", loads.get());
}
