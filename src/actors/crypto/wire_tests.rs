//! The cases of `wire_cases.json` through the actor and a real ring, each judged as the file says.

use serde_json::{Value, json};

use super::tests::{Fixture, answer_of};
use crate::domain::job::{OpenError, Request};
use crate::domain::json::Fields;

const CASES: &str = include_str!("../../../tests/it/fixtures/crypto/wire_cases.json");

/// Whether an error is of the file's class. Its two classes of what does not open have one answer on the door.
fn is_of(class: &str, error: &OpenError) -> bool {
    match class {
        "bad_json" => matches!(error, OpenError::Malformed(_)),
        "bad_field" => matches!(error, OpenError::Malformed(_) | OpenError::MissingFields | OpenError::Unopenable),
        "decrypt_failed" => *error == OpenError::Unopenable,
        "workflow_invalid" => matches!(error, OpenError::NoWorkflow { .. }),
        "unknown_key" => matches!(error, OpenError::UnknownKey { .. }),
        "replay" => *error == OpenError::Replayed,
        "plaintext_refused" => *error == OpenError::PlaintextRefused,
        other => panic!("a class that is not known: {other}"),
    }
}

/// The `input` of a body, as a source of jobs takes it out.
fn input_of(body: &str) -> Result<String, OpenError> {
    let not_one = |_| OpenError::Malformed("the body is not one");
    let mut fields = Fields::of_body(body.as_bytes()).map_err(not_one)?;
    fields.take("input").map(|raw| raw.get().to_owned()).ok_or(OpenError::Malformed("there is no input"))
}

#[actix::test]
async fn every_wire_case_comes_out_as_it_must() {
    let cases: Value = serde_json::from_str(CASES).unwrap();
    let secret: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&cases["server_sk"].as_str().unwrap()[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let canary = cases["canary"].as_str().unwrap();
    let fixture = Fixture::with_secret(secret.try_into().unwrap());
    let crypto = fixture.start();
    let list = cases["cases"].as_array().unwrap();
    assert!(list.len() >= 29);
    for (number, case) in list.iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        let body = case["body"].as_str().map_or_else(|| case["json"].to_string(), str::to_owned);
        let outcome = match input_of(&body) {
            Ok(input) => answer_of(&crypto, &format!("wire-{number}"), input).await,
            Err(error) => Err(error),
        };
        // Whether there is a node of that name is for ComfyUI to say, in a sealed answer; for us it is a prompt.
        let is_comfyuis = name == "plaintext_class_type_is_canary";
        match (&outcome, case["expect"].as_str().unwrap()) {
            (Ok(_), "accept") => {}
            (Ok(Request::Comfy(job)), "reject") if is_comfyuis => assert_eq!(job.nodes, 1),
            (Err(error), "reject") => {
                let class = case["error_class"].as_str().unwrap();
                assert!(is_of(class, error), "{name}: {class}, got {error:?}");
                assert!(!format!("{error} {error:?}").contains(canary), "{name}: {error:?}");
            }
            (Ok(_), expected) => panic!("{name}: opened, expected {expected}"),
            (Err(error), expected) => panic!("{name}: {error}, expected {expected}"),
        }
    }
    // The one that was served first, again under another job's id.
    let first = list.iter().find(|case| case["name"] == json!("replay_first")).unwrap();
    let again = answer_of(&crypto, "another", first["json"]["input"].to_string()).await;
    assert_eq!(again.err(), Some(OpenError::Replayed));
    assert!(!fixture.logged().contains(canary));
}
