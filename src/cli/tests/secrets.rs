//! `cloister secrets …` against a played daemon.

use super::played::{Did, Played, Setting, run_with};
use crate::cli::exit;

const SECRET: &str = r#"{"name":"API_KEY","hosts":["api.example.com","*.b.example:8443"],"createdAt":"2023-11-14T22:13:20.123Z","updatedAt":"2023-11-15T00:00:00.000Z"}"#;

fn given(played: &Played, input: &str, arguments: &[&str]) -> Did {
    let variables = vec![("CLOISTER_URL", played.url.clone()), ("BEARER_TOKEN", "secret".to_owned())];
    Setting { variables, input, ..Setting::default() }.run(arguments)
}

#[test]
fn a_value_comes_from_stdin_or_a_file_and_is_told_to_the_daemon_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "sk-2\r\n").unwrap();
    let played = Played::on_port(vec![(200, SECRET), (200, SECRET)]);
    let hosts = ["--host", "api.example.com", "--host", "*.b.example:8443"];
    let arguments = [&["secrets", "set", "API_KEY"][..], &hosts].concat();
    let did = given(&played, "sk-1 \n\n", &arguments);
    assert_eq!((did.code, did.err.as_str()), (exit::OK, ""));
    assert_eq!(did.out, "API_KEY is kept, for api.example.com, *.b.example:8443\n");
    let from_file = [&arguments[..], &["--file", file.to_str().unwrap(), "--json"]].concat();
    assert_eq!(given(&played, "", &from_file).out, format!("{SECRET}\n"));
    let asked = played.asked();
    assert_eq!(asked[0].line, "PUT /secrets/API_KEY HTTP/1.1");
    // One line break is the shell's; what else there is, the daemon judges.
    assert_eq!(asked[0].body, r#"{"value":"sk-1 \n","hosts":["api.example.com","*.b.example:8443"]}"#);
    assert_eq!(asked[1].body, r#"{"value":"sk-2","hosts":["api.example.com","*.b.example:8443"]}"#);
}

#[test]
fn without_a_value_a_host_or_a_name_nothing_is_sent() {
    let nobody = Setting { variables: vec![("CLOISTER_URL", "http://127.0.0.1:9".to_owned())], ..Setting::default() };
    let did = nobody.run(&["secrets", "set", "KEY", "--host", "a.example"]);
    assert_eq!(did.code, exit::FAILED);
    assert_eq!(did.err, "cloister: there is no value: send it to stdin, or name a file that holds it with --file\n");
    for line in
        ["secrets", "secrets set KEY", "secrets set a-b --host h", "secrets remove", "secrets set KEY v --host h"]
    {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(nobody.run(&words).code, exit::USAGE, "{line}");
    }
}

#[test]
fn secrets_are_listed_without_their_values_and_removed() {
    let list = format!("[{SECRET}]");
    let absent = r#"{"error":"there is no secret B","code":"not_found"}"#;
    let played = Played::on_port(vec![(200, &list), (200, "[]"), (204, ""), (404, absent)]);
    insta::assert_snapshot!(run_with(&played, &["secrets", "list"]).out, @"
    NAME     CREATED                   CHANGED                   HOSTS
    API_KEY  2023-11-14T22:13:20.123Z  2023-11-15T00:00:00.000Z  api.example.com, *.b.example:8443
    ");
    let none = run_with(&played, &["secrets", "list"]);
    assert_eq!(none.err, "there are no secrets: keep one with `cloister secrets set NAME --host HOST`\n");
    let did = run_with(&played, &["secrets", "remove", "A", "B"]);
    assert_eq!((did.code, did.out.as_str()), (exit::FAILED, "removed A\n"));
    assert_eq!(did.err, "cloister: there is no secret B\n");
}
