//! Files that come out of a call: what comes back, what does not, and what a handler can do about it.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::calls::{later, stands};
use crate::follow::Stream;
use crate::support::{Answer, Client, Daemon, RUNTIMES, Settings};

async fn environment(client: &Client, runtime: &str, source: &str) -> String {
    let request = json!({ "mainModule": "main.js", "modules": { "main.js": source }, "runtime": runtime,
        "permissions": { "allowWrite": true, "allowRead": true } });
    client.set_up(request).await.json["id"].as_str().unwrap().to_owned()
}

async fn call(client: &Client, runtime: &str, source: &str) -> Answer {
    let id = environment(client, runtime, source).await;
    let answer = client.execute(&id, json!({ "files": true, "limits": { "timeoutMs": 30000 } })).await;
    client.delete(&id).await;
    answer
}

/// What both runtimes have.
const FS: &str = "import fs from 'node:fs';\n";

fn files(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let none = Vec::new();
    let read = |file: &Value| {
        let content = BASE64_STANDARD.decode(file["content"].as_str().unwrap()).unwrap();
        assert_eq!(file["size"], content.len());
        (file["path"].as_str().unwrap().to_owned(), content)
    };
    answer.json["files"].as_array().unwrap_or(&none).iter().map(read).collect()
}

#[tokio::test]
async fn plain_files_come_back_whole_and_links_do_not() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let source = format!(
        r#"{FS}
        export const handler = () => {{
            fs.mkdirSync("/tmp/out/deep/er", {{ recursive: true }});
            for (let n = 0; n < 5; n++) fs.writeFileSync("/tmp/out/" + n, new Uint8Array(n).fill(255 - n));
            fs.writeFileSync("/tmp/out/deep/er/é 漢.txt", "text");
            fs.writeFileSync("/tmp/out/big", new Uint8Array(1000000).map((_, at) => at % 251));
            // Deno makes no links below a list of paths.
            if (globalThis.Bun) {{
                fs.symlinkSync("/etc/passwd", "/tmp/out/link");
                fs.symlinkSync("/etc", "/tmp/out/folder");
            }}
            fs.writeFileSync("/tmp/elsewhere", "x");
            return "done";
        }};"#
    );
    for runtime in RUNTIMES {
        let answer = call(&client, runtime, &source).await;
        assert_eq!(answer.expect("ok").result(), "done");
        let mut wanted: Vec<(String, Vec<u8>)> = (0..5_u8).map(|n| (n.to_string(), vec![255 - n; n.into()])).collect();
        wanted.push(("big".into(), (0..1_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect()));
        wanted.push(("deep/er/é 漢.txt".into(), b"text".to_vec()));
        assert!(
            files(&answer) == wanted,
            "{runtime}: {:?}",
            files(&answer).into_iter().map(|(path, _)| path).collect::<Vec<_>>()
        );
        // Who does not ask gets none, and without the folder there are none.
        let id = environment(&client, runtime, &source).await;
        let plain = client.execute(&id, json!({ "limits": { "timeoutMs": 30000 } })).await;
        assert!(plain.expect("ok").json["files"].is_null());
        client.delete(&id).await;
        let none = call(&client, runtime, "export const handler = () => 1;").await;
        assert!(none.expect("ok").json["files"].is_null());
    }
    daemon.assert_nothing_left().await;
}

fn archived(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let bytes = BASE64_STANDARD.decode(answer.json["filesArchive"].as_str().expect("an archive")).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let read = |entry: Result<tar::Entry<'_, &[u8]>, std::io::Error>| {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (path, content)
    };
    archive.entries().unwrap().map(read).collect()
}

#[tokio::test]
async fn an_archive_holds_what_the_list_does_also_when_it_is_followed_or_asked_for_later() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let source = format!(
        r#"{FS}
        export const handler = (event) => {{
            if (event.data === "none") return 1;
            fs.mkdirSync("/tmp/out/deep", {{ recursive: true }});
            fs.writeFileSync("/tmp/out/z", new Uint8Array(5000).fill(7));
            fs.writeFileSync("/tmp/out/deep/" + "n".repeat(150), "long");
            if (event.data === "fail") throw new Error("no");
            return 1;
        }};"#
    );
    for runtime in RUNTIMES {
        let id = environment(&client, runtime, &source).await;
        let body = |files: Value, data: &str| json!({ "files": files, "data": data, "limits": { "timeoutMs": 30000 } });
        let list = files(&client.execute(&id, body(json!(true), "")).await);
        assert_eq!(list.len(), 2, "{runtime}");
        let answer = client.execute(&id, body(json!("tar"), "")).await;
        assert_eq!(archived(&answer), list, "{runtime}");
        assert!(answer.json["files"].is_null());
        assert_eq!(archived(&client.execute(&id, body(json!("tar"), "none")).await), [], "{runtime}");
        assert!(
            client.execute(&id, body(json!("tar"), "fail")).await.expect("handler_error").json["filesArchive"]
                .is_null()
        );
        let refused = client.execute(&id, body(json!("zip"), "")).await;
        assert_eq!((refused.status, &refused.json["error"]), (400, &json!("files must be true, false or \"tar\"")));
        let archive = &answer.json["filesArchive"];

        let mut events = Stream::open(&daemon, &id, body(json!("tar"), "")).await;
        let mut last = (String::new(), Value::Null);
        while let Some(event) = events.next().await {
            last = event;
        }
        assert_eq!((last.0.as_str(), &last.1["filesArchive"]), ("result", archive), "{runtime}");
        let done = stands(&client, &later(&client, &id, body(json!("tar"), "")).await, "done").await;
        assert_eq!(&done["answer"]["filesArchive"], archive, "{runtime}");
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn too_much_is_an_output_limit_and_what_cannot_be_named_is_no_result() {
    let daemon = Daemon::start_with(Settings::default().set("sandbox.files_kib", "10").set("sandbox.files", "3")).await;
    let client = daemon.client();
    let made = "fs.mkdirSync('/tmp/out', { recursive: true });";
    for runtime in RUNTIMES {
        for (body, outcome) in [
            ("fs.writeFileSync('/tmp/out/a', new Uint8Array(10240));", "ok"),
            ("fs.writeFileSync('/tmp/out/a', new Uint8Array(10241));", "output_limit"),
            ("for (const n of [1, 2, 3]) fs.writeFileSync('/tmp/out/' + n, '');", "ok"),
            ("for (const n of [1, 2, 3, 4]) fs.writeFileSync('/tmp/out/' + n, '');", "output_limit"),
            ("fs.writeFileSync('/tmp/out/a\\nb', '');", "invalid_result"),
            ("fs.mkdirSync('/tmp/out' + '/d'.repeat(20), { recursive: true });", "invalid_result"),
        ] {
            let source = format!("{FS}export const handler = () => {{ {made} {body} return 1; }};");
            let answer = call(&client, runtime, &source).await;
            answer.expect(outcome);
            assert_eq!(answer.json["files"].is_null(), outcome != "ok", "{runtime} {body}");
        }
        let thrown =
            format!("{FS}export const handler = () => {{ {made} fs.writeFileSync('/tmp/out/a', ''); throw 1; }};");
        let answer = call(&client, runtime, &thrown).await;
        assert!(answer.expect("handler_error").json["files"].is_null(), "files come with a result");
    }
    daemon.assert_nothing_left().await;
}

#[tokio::test]
async fn b2_what_a_handler_pollutes_forges_no_file() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let source = format!(
        r#"{FS}
        export const handler = () => {{
            fs.mkdirSync("/tmp/out", {{ recursive: true }});
            fs.writeFileSync("/tmp/out/a", "real");
            let seen = "";
            const spy = function (...args) {{ seen += args.join(); return 0; }};
            for (const owner of [Array.prototype, String.prototype, Uint8Array.prototype, Object.getPrototypeOf(Uint8Array.prototype)])
                for (const name of ["push", "join", "slice", "charCodeAt", "set", "subarray", "fill", "at", "indexOf"])
                    if (name in owner) owner[name] = spy;
            Object.defineProperty(Object.prototype, "isSymlink", {{ get: () => true, configurable: true }});
            Object.prototype.toJSON = () => "forged";
            TextDecoder.prototype.decode = TextEncoder.prototype.encode = JSON.stringify = () => "forged";
            return 1;
        }};"#
    );
    for runtime in RUNTIMES {
        let answer = call(&client, runtime, &source).await;
        // A handler may break what it asked for; it cannot make it say something else, nor learn what is said.
        match answer.outcome() {
            "ok" => assert_eq!(files(&answer), [("a".to_owned(), b"real".to_vec())], "{runtime}"),
            other => {
                assert!(["invalid_result", "no_result", "handler_error"].contains(&other), "{runtime} {}", answer.text)
            }
        }
    }
    client.assert_healthy_call("bun").await;
    daemon.assert_nothing_left().await;
}
