//! `cloister tenants` and `cloister tokens` against a played socket.

use super::played::{Asked, Did, Played, Setting};

const ACME: &str = r#"{"name":"acme","createdAt":"2023-11-14T22:13:20.123Z","allowance":{"environments":20},"quotas":{"environments":20,"rate":{"perSecond":0.5,"burst":3},"cpuSeconds":3600,"storageBytes":1048576},"usage":{"environments":3,"calls":1,"cpuSeconds":12.34,"storageBytes":524288},"tokens":2}"#;
const TOKEN: &str = r#"{"id":"3f09a1c2d4e5","tenant":"acme","scopes":["environments:read","execute"],"createdAt":"2023-11-14T22:13:20.123Z","expiresAt":"2023-12-14T22:13:20.123Z"#;

fn run(answers: Vec<(u16, &str)>, arguments: &[&str]) -> (Did, Vec<Asked>) {
    let folder = tempfile::tempdir().unwrap();
    let played = Played::on_socket(&folder.path().join("health.sock"), answers);
    let variables = vec![("CLOISTER_RUN_DIR", folder.path().to_str().unwrap().to_owned())];
    let did = Setting { variables, ..Setting::default() }.run(arguments);
    (did, played.asked())
}

#[test]
fn a_new_token_goes_to_stdout_alone_and_what_it_is_to_stderr() {
    let answer = format!(r#"{TOKEN}","token":"clo_3f09a1c2d4e5_secret"}}"#);
    let line = ["tokens", "create", "--tenant", "acme", "--scopes", "execute,environments:read", "--expires", "30d"];
    let (made, asked) = run(vec![(200, &answer)], &line);
    assert_eq!((made.code, made.out.as_str()), (0, "clo_3f09a1c2d4e5_secret\n"));
    insta::assert_snapshot!(made.err, @"token 3f09a1c2d4e5 of acme, environments:read,execute, until 2023-12-14T22:13:20.123Z; it is not shown again");
    assert_eq!(asked[0].line, "POST /tokens HTTP/1.1");
    assert_eq!(asked[0].body, r#"{"tenant":"acme","scopes":["environments:read","execute"],"livesFor":2592000}"#);
}

#[test]
fn tokens_are_listed_and_revoked_by_their_ids() {
    let (listed, _) = run(vec![(200, &format!(r#"[{TOKEN}"}}]"#))], &["tokens", "list"]);
    insta::assert_snapshot!(listed.out, @"
    ID            TENANT  SCOPES                     CREATED                   EXPIRES
    3f09a1c2d4e5  acme    environments:read,execute  2023-11-14T22:13:20.123Z  2023-12-14T22:13:20.123Z
    ");
    let (other, _) = run(vec![(200, &format!(r#"[{TOKEN}"}}]"#))], &["tokens", "list", "--tenant", "other", "--json"]);
    assert_eq!(other.out, "[]\n");
    let (revoked, asked) = run(vec![(204, "")], &["tokens", "revoke", "3f09a1c2d4e5"]);
    assert_eq!((revoked.code, revoked.out.as_str()), (0, "revoked 3f09a1c2d4e5\n"));
    assert_eq!(asked[0].line, "DELETE /tokens/3f09a1c2d4e5 HTTP/1.1");
    let refusal = r#"{"error":"there is no such token","code":"not_found"}"#;
    let (absent, _) = run(vec![(404, refusal)], &["tokens", "revoke", "3f09a1c2d4e5"]);
    assert_eq!((absent.code, absent.err.as_str()), (1, "cloister: there is no such token (not_found)\n"));
}

#[test]
fn a_tenant_is_changed_in_part_or_anew_and_shown_with_its_use() {
    let line = ["tenants", "set", "acme", "--environments", "20", "--rate", "0.5/s", "--cpu-seconds", "3600/day"];
    let (set, asked) = run(vec![(200, ACME)], &line);
    insta::assert_snapshot!(set.out, @"
    TENANT  TOKENS  ENVIRONMENTS  CALLS  RATE      CPU TODAY         STORAGE
    acme    2       3 of 20       1      0.5/s, 3  12.3 s of 3600 s  0.5 MiB of 1.0 MiB
    ");
    assert_eq!(asked[0].line, "PATCH /tenants/acme HTTP/1.1");
    assert_eq!(asked[0].body, r#"{"environments":20,"rate":0.5,"cpuSeconds":3600}"#);
    let (json, asked) = run(vec![(200, ACME)], &["tenants", "set", "acme", "--reset", "--json"]);
    assert_eq!((json.out.trim_end(), asked[0].line.as_str()), (ACME, "PUT /tenants/acme HTTP/1.1"));
    assert_eq!(asked[0].body, "{}");
    let refusal = r#"{"error":"only root and the daemon's own user may do that","code":"operator_only"}"#;
    let (refused, _) = run(vec![(403, refusal)], &["tenants", "list"]);
    assert_eq!(refused.code, 1);
    insta::assert_snapshot!(refused.err, @"cloister: only root and the daemon's own user may do that (operator_only)");
}
