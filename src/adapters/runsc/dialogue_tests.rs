//! The dialogue in order and out of it: honest, forged, cut and garbage.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NONCE: &str = "00112233445566778899aabbccddeeff";

fn dialogue(task: Task) -> Dialogue {
    Dialogue::new(
        task,
        NONCE.to_owned(),
        Caps { result_bytes: 1024, log_bytes: 256, installs: InstallLimits { bytes: 10, files: 2 } },
    )
}

fn frame(mut value: serde_json::Value) -> Vec<u8> {
    value["nonce"] = NONCE.into();
    value.to_string().into_bytes()
}

fn imported() -> Vec<u8> {
    frame(json!({"type": "imported"}))
}

fn result(json: &str) -> Vec<u8> {
    frame(json!({"type": "result", "json": json}))
}

fn log(message: &str) -> Vec<u8> {
    frame(json!({"type": "log", "level": "info", "message": message, "timestamp": 5}))
}

fn failure() -> Vec<u8> {
    frame(json!({"type": "failure", "kind": "no_handler", "error": {"name": "TypeError", "message": "m", "stack": ""}}))
}

const FORGED: Option<Settled> = Some(Settled::Call(Settlement::Forged));

#[test]
fn a_call_goes_from_import_over_logs_to_its_result() {
    let mut talk = dialogue(Task::Execute(None));
    assert_eq!(talk.step(&log("loading")), None);
    assert_eq!(talk.phase(), Phase::Import);
    assert_eq!(talk.step(&imported()), None);
    assert_eq!(talk.phase(), Phase::Handler);
    assert_eq!(talk.step(&log("working")), None);
    assert_eq!(talk.step(&result("[1]")), Some(Settled::Call(Settlement::Result("[1]".into()))));
    let logs: Vec<_> = talk.take_logs().into_iter().map(|entry| entry.message).collect();
    assert_eq!(logs, ["loading", "working"]);
}

#[test]
fn a_failure_settles_in_either_phase() {
    assert!(matches!(
        dialogue(Task::Execute(None)).step(&failure()),
        Some(Settled::Call(Settlement::Failure { kind: FailureFrameKind::NoHandler, .. }))
    ));
}

#[test]
fn an_install_is_settled_by_files_as_they_were_announced_or_by_a_reason() {
    let announced = |files: serde_json::Value| {
        let mut talk = dialogue(Task::Install(SetKind::Npm));
        let said = talk.step(&frame(json!({"type": "installed", "files": files})));
        (talk, said)
    };
    let (mut talk, said) = announced(json!([["bun.lock", 3], ["node_modules/@a/b/x.js", 4]]));
    assert_eq!(said, None);
    assert_eq!(talk.step(b"abc1"), None);
    let file = |path: &str, content: &[u8]| (path.to_owned(), content.to_vec());
    let files = BTreeMap::from([file("lock/bun.lock", b"abc"), file("workspace/node_modules/@a/b/x.js", b"1234")]);
    assert_eq!(talk.step(b"234"), Some(Settled::Installed(Installed::Files(files))));
    let (mut talk, _) = announced(json!([["bun.lock", 3]]));
    assert_eq!(talk.step(b"abcd"), FORGED);
    let empty = BTreeMap::from([file("lock/bun.lock", b"")]);
    assert_eq!(announced(json!([["bun.lock", 0]])).1, Some(Settled::Installed(Installed::Files(empty))));
    for wrong in [
        json!([["node_modules/../../x", 1]]),
        json!([["main.js", 1]]),
        json!([["node_modules/a", 11]]),
        json!([["node_modules/a", -1]]),
        json!({"node_modules/a": "YWJj"}),
    ] {
        assert_eq!(announced(wrong.clone()).1, FORGED, "{wrong}");
    }
    let failed = frame(json!({"type": "installed", "message": "a\nb"}));
    assert_eq!(
        dialogue(Task::Install(SetKind::Npm)).step(&failed),
        Some(Settled::Installed(Installed::Failed("a b".into())))
    );
    assert_eq!(dialogue(Task::Execute(None)).step(&failed), FORGED);
}

#[test]
fn what_is_out_of_order_is_forged() {
    assert_eq!(dialogue(Task::Execute(None)).step(&result("1")), FORGED, "a result before the import");
    let mut twice = dialogue(Task::Execute(None));
    assert_eq!(twice.step(&imported()), None);
    assert_eq!(twice.step(&imported()), FORGED, "imported twice");
    let ready = json!({"type": "ready", "protocol": 1, "runtime": "deno", "version": "2"});
    assert_eq!(dialogue(Task::Execute(None)).step(&frame(ready)), FORGED, "ready once more");
    let answer = json!({"type": "transpiled", "modules": {}});
    assert_eq!(dialogue(Task::Execute(None)).step(&frame(answer)), FORGED, "an answer to another task");
    let asked = Task::Transpile(BTreeSet::from(["a.ts".to_owned()]));
    assert_eq!(dialogue(asked).step(&imported()), FORGED, "an import in a transpile task");
}

#[test]
fn a_wrong_or_missing_nonce_is_forged() {
    let mut talk = dialogue(Task::Execute(None));
    assert_eq!(talk.step(br#"{"type":"imported","nonce":"00112233445566778899aabbccddeefe"}"#), FORGED);
    assert_eq!(dialogue(Task::Execute(None)).step(br#"{"type":"imported"}"#), FORGED);
}

#[test]
fn a_field_too_many_or_twice_is_forged() {
    let mut talk = dialogue(Task::Execute(None));
    talk.step(&imported());
    let text = format!(r#"{{"type":"result","nonce":"{NONCE}","json":"1","json":"2"}}"#);
    assert_eq!(talk.step(text.as_bytes()), FORGED);
    assert_eq!(talk.step(&frame(json!({"type": "result", "json": "1", "level": "info"}))), FORGED);
    assert_eq!(talk.step(&frame(json!({"type": "result", "json": "1", "extra": 1}))), FORGED);
    assert_eq!(talk.step(&frame(json!({"type": "log", "level": "fatal", "message": "m", "timestamp": 1}))), FORGED);
}

#[test]
fn logs_are_cut_once_by_bytes_and_by_count() {
    let mut talk = dialogue(Task::Execute(None));
    for _ in 0..20 {
        assert_eq!(talk.step(&log(&"x".repeat(100))), None);
    }
    let levels: Vec<_> = talk.take_logs().into_iter().map(|entry| entry.level).collect();
    assert_eq!(levels, ["info", "info", TRUNCATED]);

    let mut talk = dialogue(Task::Execute(None));
    for _ in 0..MAX_LOGS + 5 {
        talk.step(&log(""));
    }
    assert_eq!(talk.take_logs().len(), MAX_LOGS + 1);
}

#[test]
fn a_transpiled_answer_is_about_the_modules_asked_for() {
    let asked = || Task::Transpile(BTreeSet::from(["a.ts".to_owned(), "b.ts".to_owned()]));
    let both = json!({"type": "transpiled", "modules": {"a.ts": "1", "b.ts": "2"}});
    assert!(
        matches!(dialogue(asked()).step(&frame(both)), Some(Settled::Transpiled(Transpiled::Modules(m))) if m.len() == 2)
    );
    let one = json!({"type": "transpiled", "modules": {"a.ts": "1"}});
    assert_eq!(dialogue(asked()).step(&frame(one)), FORGED);
    let fault = json!({"type": "transpiled", "errors": [{"module": "a.ts", "message": "m", "line": 3, "column": 1}]});
    assert!(
        matches!(dialogue(asked()).step(&frame(fault)), Some(Settled::Transpiled(Transpiled::Faults(f))) if f.len() == 1)
    );
    let stranger = json!({"type": "transpiled", "errors": [{"module": "c.ts", "message": "m"}]});
    assert_eq!(dialogue(asked()).step(&frame(stranger)), FORGED);
}

#[test]
fn ready_names_protocol_and_runtime() {
    let good = br#"{"type":"ready","protocol":1,"runtime":"bun","version":"1.4.5"}"#;
    assert!(is_ready(good, "bun"));
    assert!(!is_ready(good, "deno"));
    assert!(!is_ready(br#"{"type":"ready","protocol":2,"runtime":"bun","version":"1.4.5"}"#, "bun"));
    assert!(!is_ready(b"Segmentation fault", "bun"));
}

proptest! {
    #[test]
    fn garbage_always_settles_as_forged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(dialogue(Task::Execute(None)).step(&bytes), FORGED);
    }

    #[test]
    fn a_value_without_the_nonce_never_becomes_a_result(text in "[a-z]{4,10}", nonce in "[0-9a-f]{32}") {
        prop_assume!(nonce != NONCE);
        let mut talk = dialogue(Task::Execute(None));
        talk.step(&imported());
        let forged = json!({"type": text, "nonce": nonce, "json": "1"}).to_string();
        prop_assert_eq!(talk.step(forged.as_bytes()), FORGED);
        let forged = json!({"type": "result", "nonce": nonce, "json": "1"}).to_string();
        prop_assert_eq!(talk.step(forged.as_bytes()), FORGED);
    }

    /// Any order of honest frames either follows the picture or is forged.
    #[test]
    fn ok_needs_exactly_one_import_before_the_result(order in prop::collection::vec(0_u8..4, 1..8)) {
        let mut talk = dialogue(Task::Execute(None));
        let mut imports = 0;
        for kind in order {
            let said = match kind {
                0 => imported(),
                1 => log("m"),
                2 => result("1"),
                _ => failure(),
            };
            imports += usize::from(kind == 0);
            match talk.step(&said) {
                None => prop_assert!(kind < 2 && imports <= 1),
                Some(Settled::Call(Settlement::Result(_))) => {
                    prop_assert!(kind == 2 && imports == 1);
                    return Ok(());
                }
                Some(Settled::Call(Settlement::Failure { .. })) => {
                    prop_assert_eq!(kind, 3);
                    return Ok(());
                }
                Some(_) => {
                    prop_assert!(imports == 2 || (kind == 2 && imports == 0));
                    return Ok(());
                }
            }
        }
    }
}

fn file(path: &str, content: &str) -> Vec<u8> {
    frame(json!({"type": "file", "path": path, "content": content}))
}

#[test]
fn files_come_before_the_result_where_they_were_asked_for() {
    let asked = || {
        let mut talk = dialogue(Task::Execute(Some(OutLimits { bytes: 5, files: 2 })));
        talk.step(&imported());
        talk
    };
    let mut talk = asked();
    assert_eq!((talk.step(&file("b/é.bin", "AP8=")), talk.step(&file("a", ""))), (None, None));
    assert_eq!(talk.step(&result("1")), Some(Settled::Call(Settlement::Result("1".into()))));
    let seen =
        [OutFile { path: "a".into(), content: vec![] }, OutFile { path: "b/é.bin".into(), content: vec![0, 255] }];
    assert_eq!(talk.take_files(), seen);
    for bad in ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\nb", "a\0"] {
        assert_eq!(asked().step(&file(bad, "")), FORGED, "{bad:?}");
    }
    assert_eq!(asked().step(&file("a", "AP8")), FORGED, "no base64");
    assert_eq!(asked().step(&file("a", "AAAAAAAA")), FORGED, "more bytes than there may be");
    let mut twice = asked();
    assert_eq!((twice.step(&file("a", "")), twice.step(&file("a", ""))), (None, FORGED));
    let mut many = asked();
    assert_eq!((many.step(&file("a", "")), many.step(&file("b", "")), many.step(&file("c", ""))), (None, None, FORGED));
    let mut early = dialogue(Task::Execute(Some(OutLimits { bytes: 5, files: 2 })));
    assert_eq!(early.step(&file("a", "")), FORGED, "before the handler was called");
    let mut unasked = dialogue(Task::Execute(None));
    unasked.step(&imported());
    assert_eq!(unasked.step(&file("a", "")), FORGED);
}
