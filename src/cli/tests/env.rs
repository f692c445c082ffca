//! `cloister env …` against a played daemon.

use std::fs;

use super::played::{Did, Played, Setting, run_with};

const ID: &str = "0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55";
const ENVIRONMENT: &str = r#"{"id":"0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55","volumeName":"tee-env-0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55","mainModule":"main.ts","runtime":"deno","createdAt":"2023-11-14T22:13:20.123Z","executionCount":3,"status":"ready","metadata":{"permissions":{"allowEnv":["A"]},"moduleCount":2,"dependencyCount":0,"hasDependencies":false,"runtime":"deno"},"ttlSeconds":3600}"#;

fn call(fields: &str) -> String {
    format!(
        r#"{{"id":"{ID}","durationMs":12,"logs":[],"timings":{{"queueMs":0,"claimMs":0,"handlerMs":0,"totalMs":12}},"peakMemoryMb":1,"cpuMs":1,"start":"cold","limits":{{}},{fields}}}"#
    )
}

fn ok(out: &str, err: &str) -> Did {
    Did { code: 0, out: out.to_owned(), err: err.to_owned() }
}

#[test]
fn a_directorys_files_become_modules() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("lib/deep")).unwrap();
    fs::write(folder.path().join("main.ts"), "import './lib/deep/a.ts'").unwrap();
    fs::write(folder.path().join("lib/deep/a.ts"), "1").unwrap();
    let played = Played::on_port(vec![(200, ENVIRONMENT)]);
    let path = folder.path().to_str().unwrap();
    let arguments = ["env", "setup", path, "--runtime", "bun", "--ttl", "60", "--permissions", r#"{"allowEnv":["A"]}"#];
    let did = run_with(&played, &arguments);
    assert_eq!(did, ok(&format!("{ID}\n"), "deno with 2 modules, main main.ts, for 3600 s\n"));
    let asked = played.asked();
    assert_eq!(asked[0].line, "POST /environments/setup HTTP/1.1");
    assert!(asked[0].head.contains("authorization: Bearer secret\r\n"), "{}", asked[0].head);
    assert!(asked[0].head.contains("content-type: application/json\r\n"), "{}", asked[0].head);
    insta::assert_snapshot!(asked[0].body, @r#"{"mainModule":"main.ts","modules":{"lib/deep/a.ts":"1","main.ts":"import './lib/deep/a.ts'"},"runtime":"bun","permissions":{"allowEnv":["A"]},"ttlSeconds":60}"#);
}

#[test]
fn a_single_file_is_its_own_main() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("anything.js");
    fs::write(&file, "x").unwrap();
    let played = Played::on_port(vec![(200, ENVIRONMENT)]);
    let did = run_with(&played, &["env", "setup", file.to_str().unwrap(), "--json"]);
    assert_eq!(did, ok(&format!("{ENVIRONMENT}\n"), ""));
    assert_eq!(
        played.asked()[0].body,
        r#"{"mainModule":"anything.js","modules":{"anything.js":"x"},"runtime":"deno"}"#
    );
}

#[test]
fn dependencies_are_named_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.ts");
    fs::write(&file, "x").unwrap();
    let played = Played::on_port(vec![(200, ENVIRONMENT)]);
    let named = ["--npm", "a@1", "--npm", "@b/c", "--deno", "jsr:@std/path@1"];
    run_with(&played, &[&["env", "setup", file.to_str().unwrap()], &named[..]].concat());
    let body: serde_json::Value = serde_json::from_str(&played.asked()[0].body).unwrap();
    assert_eq!(body["dependencies"], serde_json::json!({ "npm": ["a@1", "@b/c"], "deno": ["jsr:@std/path@1"] }));
}

#[test]
fn files_that_cannot_be_modules_are_named_before_anything_is_sent() {
    let cases: [(&str, &[u8], &str); 3] = [
        (".env", b"SECRET=1", ".env is hidden: such files often hold secrets, so move it out of the directory first"),
        ("a.wasm", b"\0asm", "a.wasm is not text"),
        ("b.bin", b"\xff\xfe", "b.bin is not text"),
    ];
    for (name, bytes, said) in cases {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("main.ts"), "1").unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
        let did = Setting::default().run(&["env", "setup", folder.path().to_str().unwrap()]);
        assert!(did.code == 1 && did.err.contains(said), "{did:?}");
    }
    let linked = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", linked.path().join("x.ts")).unwrap();
    let did = Setting::default().run(&["env", "setup", linked.path().to_str().unwrap()]);
    assert!(did.code == 1 && did.err.contains("links and devices are not followed"), "{did:?}");
}

#[test]
fn an_unclear_main_module_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let empty = Setting::default().run(&["env", "setup", path]);
    assert!(empty.err.contains("holds no files"), "{empty:?}");
    fs::write(folder.path().join("a.ts"), "1").unwrap();
    fs::write(folder.path().join("b.ts"), "1").unwrap();
    let unclear = Setting::default().run(&["env", "setup", path]);
    assert!(unclear.err.contains("which module is the main one?") && unclear.err.contains("--main"), "{unclear:?}");
    let other = Setting::default().run(&["env", "setup", path, "--main", "c.ts"]);
    assert_eq!(other.err, "cloister: --main \"c.ts\" is not among the modules: a.ts, b.ts\n");
    let absent = Setting::default().run(&["env", "setup", "/nonexistent/x.ts"]);
    assert_eq!(absent.err, "cloister: cannot read /nonexistent/x.ts: No such file or directory (os error 2)\n");
}

#[test]
fn a_result_is_printed_and_all_else_goes_to_stderr() {
    let answer = call(
        r#""exitCode":0,"outcome":"ok","stdout":"{\"a\":1}","stderr":"careful\n","result":{"a":1},"warning":"not walled""#,
    );
    let answer = answer.replace(r#""logs":[]"#, r#""logs":[{"level":"warn","message":"hi","timestamp":"-"}]"#);
    let played = Played::on_port(vec![(200, &answer)]);
    let variables =
        vec![("CLOISTER_URL", played.url.clone()), ("API_KEY", "k".to_owned()), ("BEARER_TOKEN", "secret".to_owned())];
    let setting = Setting { variables, ..Setting::default() };
    let did = setting.run(&[
        "env",
        "execute",
        ID,
        "--data",
        r#"{ "x": 1.10 }"#,
        "--env",
        "API_KEY",
        "--env",
        "B=c=d",
        "--timeout-ms",
        "9",
        "--memory-mb",
        "64",
    ]);
    assert_eq!(did, ok("{\"a\":1}\n", "[warn] hi\ncareful\nwarning: not walled\n"));
    let asked = played.asked();
    assert_eq!(asked[0].line, format!("POST /environments/{ID}/execute HTTP/1.1"));
    insta::assert_snapshot!(asked[0].body, @r#"{"data":{ "x": 1.10 },"env":{"API_KEY":"k","B":"c=d"},"limits":{"timeoutMs":9,"memoryMb":64}}"#);
}

#[test]
fn another_outcome_than_ok_is_told_and_exits_1() {
    let answer = call(r#""exitCode":124,"outcome":"timeout","phase":"import","stdout":"","stderr":"""#);
    let played = Played::on_port(vec![(200, &answer), (200, &answer)]);
    let did = run_with(&played, &["env", "execute", ID]);
    assert_eq!(did, Did { code: 1, out: String::new(), err: "outcome: timeout in import after 12 ms\n".to_owned() });
    let json = run_with(&played, &["env", "execute", ID, "--json"]);
    assert_eq!(json, Did { code: 1, out: format!("{answer}\n"), err: String::new() });
    assert_eq!(played.asked()[0].body, "{}");
}

#[test]
fn data_comes_from_stdin_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.json");
    fs::write(&file, "[2]\n").unwrap();
    let file = file.to_str().unwrap();
    let answer = call(r#""exitCode":0,"outcome":"ok","stdout":"1","stderr":"""#);
    let played = Played::on_port(vec![(200, answer.as_str()); 3]);
    let setting =
        Setting { variables: vec![("CLOISTER_URL", played.url.clone())], input: "[1]\n", ..Setting::default() };
    for source in [["--data", "-"], ["--data-file", "-"], ["--data-file", file]] {
        assert_eq!(setting.run(&["env", "execute", ID, source[0], source[1]]).code, 0);
    }
    let bodies: Vec<String> = played.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [r#"{"data":[1]}"#, r#"{"data":[1]}"#, r#"{"data":[2]}"#]);
}

#[test]
fn wrong_data_is_told_before_anything_is_sent() {
    let did = Setting::default().run(&["env", "execute", ID, "--data", "text"]);
    assert!(did.code == 1 && did.err.contains("the data is not JSON: quote strings"), "{did:?}");
    let did = Setting::default().run(&["env", "execute", ID, "--env", "NOT_SET"]);
    assert!(did.code == 1 && did.err.contains("give it a value with NOT_SET=VALUE"), "{did:?}");
}

#[test]
fn a_handler_cannot_steer_the_terminal() {
    let answer = call(r#""exitCode":0,"outcome":"ok","stdout":"\u001b[2J","stderr":"\u001b]0;x\u0007""#);
    let played = Played::on_port(vec![(200, &answer), (200, &answer)]);
    let variables = vec![("CLOISTER_URL", played.url.clone())];
    let shown =
        Setting { variables: variables.clone(), terminal: true, ..Setting::default() }.run(&["env", "execute", ID]);
    assert_eq!(shown, ok("\\u{1b}[2J\n", "\\u{1b}]0;x\\u{7}\n"));
    let piped = Setting { variables, ..Setting::default() }.run(&["env", "execute", ID]);
    assert_eq!(piped.out, "\u{1b}[2J\n");
}

#[test]
fn environments_are_listed_shown_and_deleted() {
    let list = format!("[{ENVIRONMENT}]");
    let absent = r#"{"error":"environment x does not exist","code":"not_found"}"#;
    let played =
        Played::on_port(vec![(200, &list), (200, "[]"), (200, ENVIRONMENT), (204, ""), (404, absent), (404, absent)]);
    insta::assert_snapshot!(run_with(&played, &["env", "list"]).out, @"
    ID                                    RUNTIME  MODULES  CALLS  CREATED                   TTL     MAIN
    0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55  deno     2        3      2023-11-14T22:13:20.123Z  3600 s  main.ts
    ");
    let none = run_with(&played, &["env", "list"]);
    assert_eq!(none, ok("", "there are no environments: make one with `cloister env setup FILE`\n"));
    insta::assert_snapshot!(run_with(&played, &["env", "show", ID]).out, @r#"
    id           0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55
    status       ready
    runtime      deno
    main module  main.ts
    modules      2
    permissions  {"allowEnv":["A"]}
    isolation    call
    limits       none
    created      2023-11-14T22:13:20.123Z
    lives for    3600 s
    calls        3
    last call    never
    revision     1
    volume       tee-env-0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55
    "#);
    let deleted = run_with(&played, &["env", "delete", ID, ID]);
    assert_eq!((deleted.code, deleted.out), (1, format!("deleted {ID}\n")));
    assert_eq!(deleted.err, format!("cloister: {ID}: environment x does not exist\n"));
    let json = run_with(&played, &["env", "delete", ID, "--json"]);
    insta::assert_snapshot!(json.out, @r#"[{"deleted":false,"error":"environment x does not exist","id":"0b8e7c6a-5c1b-4f2e-9d3a-7a1f0e2d4c55"}]"#);
    assert_eq!(played.asked().last().unwrap().line, format!("DELETE /environments/{ID} HTTP/1.1"));
}

#[test]
fn errors_say_what_to_do() {
    let run = |url: &str| {
        Setting { variables: vec![("CLOISTER_URL", url.to_owned())], ..Setting::default() }.run(&["env", "list"])
    };
    // A port that was just given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let did = run(&format!("http://{free}"));
    assert_eq!(did.code, 69);
    let said = did.err.replace(&free.to_string(), "<address>");
    insta::assert_snapshot!(said, @"cloister: cannot reach http://<address> (Connection refused (os error 111)): is the daemon running? start it with `cloister serve`");
    let https = run(&format!("https://{free}"));
    assert!(https.code == 69 && https.err.contains("cannot reach https://"), "{https:?}");
    let wrong = run("localhost:8080");
    assert!(wrong.code == 64 && wrong.err.contains("write it as http://HOST:PORT"), "{wrong:?}");

    let fault = r#"{"error":"main.ts could not be read as TypeScript","code":"validation_error","details":[{"module":"main.ts","message":"';' expected","line":3}]}"#;
    let played = Played::on_port(vec![(401, "Unauthorized"), (200, "<html>"), (502, "<html>"), (400, fault)]);
    let token = run_with(&played, &["env", "list"]);
    assert_eq!(
        token.err,
        "cloister: the token was refused: set BEARER_TOKEN, or name a file that holds it with --token-file\n"
    );
    for _ in 0..2 {
        let foreign = run_with(&played, &["env", "list"]);
        assert!(foreign.err.contains("an answer that is not a Cloister's"), "{foreign:?}");
    }
    let places = run_with(&played, &["env", "list"]);
    insta::assert_snapshot!(places.err, @"
    cloister: main.ts could not be read as TypeScript
      main.ts:3: ';' expected (validation_error)
    ");
    played.asked();
}

#[test]
fn a_token_comes_from_a_file_or_a_variable_and_an_address_from_an_argument() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "from-file\n").unwrap();
    let played = Played::on_port(vec![(200, "[]")]);
    let arguments = ["env", "list", "--url", &played.url, "--token-file", file.to_str().unwrap()];
    let variables = vec![("CLOISTER_URL", "http://wrong".to_owned()), ("BEARER_TOKEN", "wrong".to_owned())];
    assert_eq!(Setting { variables, ..Setting::default() }.run(&arguments).code, 0);
    assert!(played.asked()[0].head.contains("authorization: Bearer from-file\r\n"));
}

#[test]
fn a_followed_call_is_printed_as_it_comes_and_its_result_alone_goes_to_stdout() {
    let result = call(
        r#""exitCode":1,"stdout":"x","stderr":"","outcome":"timeout","phase":"handler","error":{"name":"Timeout","message":"too slow"}"#,
    );
    let stream = format!(
        "id: 1\nevent: log\ndata: {{\"level\":\"warn\",\"message\":\"\\u001b[2J\",\"timestamp\":\"t\"}}\n\n: still running\n\n\
         id: 2\nevent: stdout\ndata: {{\"text\":\"x\\n\"}}\n\nid: 3\nevent: dropped\ndata: {{\"events\":2}}\n\n\
         id: 4\nevent: result\ndata: {result}\n\n"
    );
    let played = Played::on_port(vec![(200, &stream)]);
    let did = run_with(&played, &["env", "execute", ID, "--follow"]);
    let err = "[warn] \\u{1b}[2J\nx\n[2 events were dropped here: this reader was too slow]\nTimeout: too slow\noutcome: timeout in handler after 12 ms\n";
    assert_eq!(did, Did { code: 1, out: String::new(), err: err.to_owned() });
    assert!(played.asked()[0].head.contains("accept: text/event-stream\r\n"));

    let played =
        Played::on_port(vec![(200, "event: error\ndata: {\"error\":\"full\",\"code\":\"too_many_requests\"}\n\n")]);
    let did = run_with(&played, &["env", "execute", ID, "--follow", "--json"]);
    assert_eq!(
        (did.code, did.out.as_str()),
        (1, "{\"event\":\"error\",\"data\":{\"error\":\"full\",\"code\":\"too_many_requests\"}}\n")
    );
    let played = Played::on_port(vec![(200, ": still running\n\n")]);
    let did = run_with(&played, &["env", "execute", ID, "--follow"]);
    assert!(did.code == 1 && did.err.contains("ended the stream before the call was over"), "{did:?}");
}

#[test]
fn a_call_that_is_answered_later_prints_its_id_and_is_shown_by_it() {
    let queued = format!(r#"{{"id":"{ID}","environmentId":"{ID}","status":"queued"}}"#);
    let played = Played::on_port(vec![(202, &queued)]);
    let webhook = "https://example.com/done";
    let arguments = ["env", "execute", ID, "--async", "--webhook", webhook, "--idempotency-key", "order-17"];
    assert_eq!(run_with(&played, &arguments), ok(&format!("{ID}\n"), ""));
    let asked = played.asked();
    assert!(
        asked[0].head.contains("prefer: respond-async\r\n") && asked[0].head.contains("idempotency-key: order-17\r\n")
    );
    assert_eq!(asked[0].body, r#"{"webhook":{"url":"https://example.com/done"}}"#);

    let answer = call(r#""exitCode":1,"stdout":"","stderr":"Error: x","outcome":"handler_error""#);
    let done = format!(
        r#"{{"id":"{ID}","environmentId":"{ID}","status":"done","outcome":"handler_error","answer":{answer},"webhook":{{"state":"owed","attempts":2}}}}"#
    );
    let played = Played::on_port(vec![(200, &done)]);
    let did = run_with(&played, &["executions", "show", ID]);
    let err = format!(
        "done in environment {ID}, handler_error\nwebhook owed after 2 tries\nError: x\noutcome: handler_error after 12 ms\n"
    );
    assert_eq!(did, Did { code: 1, out: String::new(), err });
    let played = Played::on_port(vec![(200, &format!("[{queued}]"))]);
    let did = run_with(&played, &["executions", "list", "--env", ID]);
    let line = format!("{ID}  queued  -        -         {ID}\n");
    assert!(did.out.ends_with(&line), "{}", did.out);
    assert_eq!(played.asked()[0].line, format!("GET /executions?environment={ID} HTTP/1.1"));
    let played = Played::on_port(vec![(204, ""), (404, r#"{"error":"there is no such call","code":"not_found"}"#)]);
    let did = run_with(&played, &["executions", "cancel", ID, ID]);
    assert_eq!((did.code, did.err), (1, format!("cloister: {ID}: there is no such call\n")));
}

#[test]
fn files_of_a_call_are_written_below_a_directory_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let with = |path: &str| {
        let files = format!(r#""files":[{{"path":"{path}","size":2,"content":"AP8="}}]"#);
        call(&format!(r#""exitCode":0,"stdout":"1","stderr":"","outcome":"ok","result":1,{files}"#))
    };
    let played = Played::on_port(vec![(200, &with("a/b.bin"))]);
    let did = run_with(&played, &["env", "execute", ID, "--files", out.to_str().unwrap()]);
    assert_eq!(did, ok("1\n", ""));
    assert_eq!(fs::read(out.join("a/b.bin")).unwrap(), [0, 255]);
    assert_eq!(played.asked()[0].body, r#"{"files":true}"#);
    for path in ["../x", "/etc/x", "a/../../x", "", "a//b"] {
        let played = Played::on_port(vec![(200, &with(path))]);
        let did = run_with(&played, &["env", "execute", ID, "--files", out.to_str().unwrap()]);
        assert!(did.code == 1 && did.err.contains("leads out of the directory"), "{did:?}");
    }
    assert!(!folder.path().join("x").exists());
}

#[test]
fn the_archive_of_a_call_is_written_as_it_came_and_only_with_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.tar");
    let failed = call(r#""exitCode":1,"stdout":"","stderr":"","outcome":"handler_error""#);
    let done = call(r#""exitCode":0,"stdout":"1","stderr":"","outcome":"ok","result":1,"filesArchive":"AP8=""#);
    let played = Played::on_port(vec![(200, &failed), (200, &done)]);
    let arguments = ["env", "execute", ID, "--files-archive", file.to_str().unwrap()];
    assert_eq!(run_with(&played, &arguments).code, 1);
    assert!(!file.exists());
    assert_eq!(run_with(&played, &arguments), ok("1\n", ""));
    assert_eq!(fs::read(&file).unwrap(), [0, 255]);
    assert_eq!(played.asked()[0].body, r#"{"files":"tar"}"#);
}

#[test]
fn an_environment_is_changed_and_cloned() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.js");
    fs::write(&file, "x").unwrap();
    let changed = ENVIRONMENT.replace(r#""ttlSeconds":3600"#, r#""ttlSeconds":600,"revision":3"#);
    let played = Played::on_port(vec![(200, &changed), (200, &changed), (200, &changed)]);
    let did = run_with(&played, &["env", "update", ID, file.to_str().unwrap()]);
    assert_eq!(did, ok(&format!("{ID} is at revision 3\n"), ""));
    assert_eq!(run_with(&played, &["env", "clone", ID]), ok(&format!("{ID}\n"), ""));
    assert_eq!(run_with(&played, &["env", "ttl", ID, "600"]), ok(&format!("{ID} lives for 600 s\n"), ""));
    let asked: Vec<(String, String)> = played.asked().into_iter().map(|asked| (asked.line, asked.body)).collect();
    insta::assert_snapshot!(format!("{asked:#?}").replace(ID, "<id>"), @r##"
    [
        (
            "PUT /environments/<id>/modules HTTP/1.1",
            "{\"mainModule\":\"main.js\",\"modules\":{\"main.js\":\"x\"}}",
        ),
        (
            "POST /environments/<id>/clone HTTP/1.1",
            "{}",
        ),
        (
            "PATCH /environments/<id> HTTP/1.1",
            "{\"ttlSeconds\":600}",
        ),
    ]
    "##);
}
