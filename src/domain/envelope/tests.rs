//! What is read, and what is refused in which words.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::input::Sealed;
use super::order::Order;
use super::plaintext::Opened;
use super::*;
use crate::domain::base64;
use crate::domain::job::{ComfyJob, ExecuteInput, ImageSource, OpenError, ReplyTo, Request};
use crate::domain::secret::Secret;

const CURRENT: Kid = Kid([0xab; 8]);
const STRICT: Rules = Rules { encryption_required: true, current: Some(CURRENT) };
const OPEN: Rules = Rules { encryption_required: false, current: Some(CURRENT) };
const NO_WORKFLOW: OpenError = OpenError::NoWorkflow { graph_export: false };

fn envelope() -> Value {
    json!({
        "encrypted": true,
        "epk": base64::encode(&[9; 32]),
        "nonce": base64::encode(&[7; 24]),
        "ciphertext": base64::encode(&[5; 40]),
    })
}

fn with(mut object: Value, fields: Value) -> Value {
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    object
}

fn prompt() -> Value {
    json!({"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd/xl.safetensors"}},
           "2": {"class_type": "KSampler", "inputs": {"sampler_name": "euler", "model": ["1", 0]}, "_meta": {"title": "x"}},
           "3": {"class_type": "LoraLoader", "inputs": {"lora_name": "Ink.SafeTensors", "unet_name": "sd/xl.safetensors"}}})
}

fn refusal(input: &Value, rules: Rules) -> OpenError {
    refusal_of(input.to_string().as_bytes(), rules)
}

fn refusal_of(input: &[u8], rules: Rules) -> OpenError {
    match read_input(input, rules) {
        Ok(_) => panic!("taken: {}", String::from_utf8_lossy(input)),
        Err(error) => error,
    }
}

fn sealed(input: &Value) -> Sealed {
    match read_input(input.to_string().as_bytes(), STRICT) {
        Ok(Input::Sealed(sealed)) => *sealed,
        Ok(Input::Plain(_)) => panic!("taken as plain"),
        Err(error) => panic!("{error}"),
    }
}

fn request(order: Order) -> Request {
    order.into_request("job-1".parse().unwrap(), ReplyTo::Plain)
}

fn comfy(input: &Value) -> ComfyJob {
    match read_input(input.to_string().as_bytes(), OPEN).map(|read| match read {
        Input::Plain(order) => request(order),
        Input::Sealed(_) => panic!("taken as sealed"),
    }) {
        Ok(Request::Comfy(job)) => *job,
        Ok(Request::Execute(_)) => panic!("taken as a call"),
        Err(error) => panic!("{error}"),
    }
}

fn call(input: &Value) -> Result<ExecuteInput, OpenError> {
    match read_input(input.to_string().as_bytes(), STRICT)? {
        Input::Plain(order) => match request(order) {
            Request::Execute(call) => Ok(*call),
            Request::Comfy(_) => panic!("taken as a workflow"),
        },
        Input::Sealed(_) => panic!("taken as sealed"),
    }
}

fn opened(text: impl Into<String>, version: EnvelopeVersion) -> Result<Opened, OpenError> {
    let options = sealed(&envelope()).options;
    read_plaintext(Secret::from(text.into()), "job-1".parse().unwrap(), version, (CURRENT, [9; 32]), options)
}

fn opened_comfy(text: &Value, version: EnvelopeVersion) -> ComfyJob {
    match opened(text.to_string(), version).map(|opened| opened.request) {
        Ok(Request::Comfy(job)) => *job,
        Ok(Request::Execute(_)) => panic!("taken as a call"),
        Err(error) => panic!("{error}"),
    }
}

fn v2(fields: Value) -> Value {
    with(json!({"v": 2, "type": "request", "id": "r-1", "ts": 1_700_000_000}), fields)
}

#[test]
fn an_envelope_is_read_with_what_may_stand_beside_it() {
    let read = sealed(&with(envelope(), json!({"client_id": "me", "no_history": true, "unknown": [1]})));
    let Envelope { version, epk, nonce, ciphertext, kid } = read.envelope;
    assert_eq!((version, epk, nonce, ciphertext, kid), (EnvelopeVersion::V1, [9; 32], [7; 24], vec![5; 40], None));
    assert!(!read.options.wants.history);
    assert!(sealed(&envelope()).options.wants.history);
    let read = sealed(&with(envelope(), json!({"v": 2, "kid": CURRENT.to_string()})));
    assert_eq!((read.envelope.version, read.envelope.kid), (EnvelopeVersion::V2, Some(CURRENT)));
    for (given, history) in [(json!(1), false), (json!("1"), false), (json!("true"), false), (json!(0), true)] {
        assert_eq!(sealed(&with(envelope(), json!({"no_history": given}))).options.wants.history, history, "{given}");
    }
}

#[test]
fn escaped_slashes_are_the_same_base64() {
    let text = with(envelope(), json!({"ciphertext": base64::encode(&[255; 33])})).to_string().replace('/', "\\/");
    assert!(
        matches!(read_input(text.as_bytes(), STRICT), Ok(Input::Sealed(read)) if read.envelope.ciphertext == [255; 33])
    );
}

#[test]
fn an_envelope_that_is_none_is_refused() {
    let missing = |name: &str| with(envelope(), json!({name: null}));
    for name in ["epk", "nonce", "ciphertext"] {
        assert_eq!(refusal(&missing(name), STRICT), OpenError::MissingFields, "{name}");
        assert_eq!(refusal(&with(envelope(), json!({name: 12})), STRICT), OpenError::MissingFields, "{name}");
        for spelling in ["AAAA", "====", "A\nAA", "AA AA", "-_-_"] {
            let error = refusal(&with(envelope(), json!({name: spelling})), STRICT);
            assert!(
                matches!(error, OpenError::Malformed(text) if text.starts_with(name)),
                "{name} {spelling}: {error}"
            );
        }
    }
    let short = with(envelope(), json!({"ciphertext": base64::encode(&[0; 15])}));
    assert!(matches!(refusal(&short, STRICT), OpenError::Malformed(_)));
    for wrong in [json!(null), json!(false), json!(1), json!("true")] {
        let error = refusal(&with(envelope(), json!({"encrypted": wrong})), OPEN);
        assert_eq!(error, OpenError::Malformed("encrypted must be true"), "{wrong}");
    }
    for beside in ["workflow", "images", "execute", "prompt", "input_images", "reply"] {
        let error = refusal(&with(envelope(), json!({beside: {}})), OPEN);
        assert!(matches!(error, OpenError::Malformed(text) if text.contains("nothing in clear")), "{beside}: {error}");
    }
    for (wrong, text) in [(json!({"v": 3}), "v must be 1 or 2"), (json!({"kid": 5}), "kid must be a string")] {
        assert_eq!(refusal(&with(envelope(), wrong), STRICT), OpenError::Malformed(text));
    }
    for kid in ["zzzzzzzz", "ABABABABABABABAB", "", "+babababababab00"] {
        let error = refusal(&with(envelope(), json!({"kid": kid})), STRICT);
        assert_eq!(error, OpenError::UnknownKey { current: CURRENT }, "{kid}");
    }
    assert_eq!(refusal(&envelope(), Rules { current: None, ..STRICT }), OpenError::NoKey);
}

#[test]
fn an_input_that_is_no_object_of_single_keys_is_refused() {
    let deep = format!("{{\"encrypted\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let twice = envelope().to_string().replacen('{', "{\"nonce\":\"AAAA\",", 1);
    for (input, text) in [
        ("{\"input\":", "input is not valid JSON"),
        ("\u{feff}{}", "input is not valid JSON"),
        ("[]", "input must be an object"),
        ("null", "input must be an object"),
        ("\"\\\"x\\\"\"", "input must be an object"),
        ("\"{", "input is not valid JSON"),
        (&deep, "input is nested too deep"),
        (&twice, "input has a key twice"),
    ] {
        assert_eq!(refusal_of(input.as_bytes(), STRICT), OpenError::Malformed(text), "{input:.40}");
    }
    assert_eq!(refusal_of(b"{\"\xff\":1}", STRICT), OpenError::Malformed("input is not UTF-8"));
}

#[test]
fn a_workflow_in_clear_is_taken_only_where_that_is_allowed() {
    let input = json!({"workflow": prompt(), "client_id": "me"});
    assert_eq!(refusal(&input, STRICT), OpenError::PlaintextRefused);
    assert_eq!(refusal(&json!({}), STRICT), OpenError::PlaintextRefused);
    let job = comfy(&input);
    assert_eq!((job.nodes, job.wants.history), (3, true));
    assert_eq!(job.models, ["sd/xl.safetensors", "Ink.SafeTensors"]);
    assert_eq!(serde_json::from_slice::<Value>(job.prompt.bytes()).unwrap(), prompt());
    let job = comfy(&Value::String(input.to_string()));
    assert_eq!(job.nodes, 3, "an input may be a string of JSON, as worker-comfyui takes it");
}

#[test]
fn what_is_no_prompt_gets_the_first_systems_words_and_the_editors_file_a_hint() {
    for wrong in [json!(null), json!("x"), json!([]), json!({}), json!({"1": 5}), json!({"1": {}}), json!({"1": ["a"]})]
    {
        assert_eq!(refusal(&json!({"workflow": wrong}), OPEN), NO_WORKFLOW, "{wrong}");
    }
    assert_eq!(NO_WORKFLOW.to_string(), "Missing or invalid workflow: expected an API prompt mapping (id->node)");
    let twice = r#"{"workflow":{"1":{"class_type":"A","class_type":"B"}}}"#;
    assert_eq!(refusal_of(twice.as_bytes(), OPEN), NO_WORKFLOW);
    let graph = json!({"last_node_id": 9, "nodes": [{"id": 1}], "links": [], "version": 0.4});
    let error = refusal(&json!({"workflow": graph}), OPEN);
    assert_eq!(error, OpenError::NoWorkflow { graph_export: true });
    assert!(error.to_string().starts_with(&NO_WORKFLOW.to_string()) && error.to_string().contains("Export (API)"));
    assert_eq!(opened(graph.to_string(), EnvelopeVersion::V1).err(), Some(error));
}

#[test]
fn a_node_without_a_class_is_left_to_comfyui() {
    let mut odd = prompt();
    odd["4"] = json!({"inputs": {}});
    assert_eq!(comfy(&json!({"workflow": odd})).nodes, 4);
}

#[test]
fn images_are_base64_data_uris_or_urls_under_plain_names() {
    let of = |images: Value| json!({"workflow": prompt(), "images": images});
    let good = [("a.png", "AQID"), ("ä b (1).webp", "data:image/png;base64,AQID"), ("c", "HTTPS://x.example/y.png")];
    let list: Vec<Value> = good.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
    let job = comfy(&of(json!(list)));
    for (image, (name, _)) in job.images.iter().zip(good) {
        assert_eq!(image.name, name);
        match &image.source {
            ImageSource::Bytes(bytes) => assert_eq!(bytes.bytes(), [1, 2, 3]),
            ImageSource::Url(url) => assert_eq!(url.text(), Some("HTTPS://x.example/y.png")),
        }
    }
    let bad = ["", ".", "..", "a/b", "a\\b", "/etc/passwd", ".hidden", "a\u{0}", "C:x", "a [temp]", "a [output]", "x."];
    for name in bad {
        let error = refusal(&of(json!([{"name": name, "image": "AQID"}])), OPEN);
        assert_eq!(error, OpenError::Field("images[].name must be a plain file name"), "{name:?}");
    }
    for image in ["", "A", "@@@@", "data:image/png,abc", "data:;base64,", "file:///etc/passwd", "ftp://x/y"] {
        let error = refusal(&of(json!([{"name": "a", "image": image}])), OPEN);
        assert!(matches!(error, OpenError::Field(text) if text.starts_with("images[].image")), "{image:?}");
    }
    let twice = json!([{"name": "a", "image": "AQID"}, {"name": "a", "image": "AQID"}]);
    for list in [twice, json!({}), json!([1]), json!(vec![json!({}); 257])] {
        assert!(matches!(refusal(&of(list), OPEN), OpenError::Field(_)));
    }
}

#[test]
fn a_v1_text_is_the_prompt_itself_and_moves_by_its_handle() {
    let text = Secret::from(prompt().to_string());
    let at = text.bytes().as_ptr();
    let options = sealed(&with(envelope(), json!({"no_history": 1}))).options;
    let who = (CURRENT, [9; 32]);
    let opened = read_plaintext(text, "job-1".parse().unwrap(), EnvelopeVersion::V1, who, options).ok().unwrap();
    let Request::Comfy(job) = opened.request else { panic!("a call") };
    assert_eq!((job.prompt.bytes().as_ptr(), job.nodes, job.wants.history), (at, 3, false));
    assert!(matches!(&job.reply, ReplyTo::Sealed(to) if to.request_id == "job-1" && to.kid == CURRENT));
    assert_eq!(opened.sealed_at, None);
}

#[test]
fn a_v1_text_may_wrap_the_prompt_as_comfyuis_route_does() {
    for name in ["prompt", "workflow"] {
        let images = json!([{"name": "a.png", "image": "AQID"}]);
        let job = opened_comfy(&json!({name: prompt(), "images": images}), EnvelopeVersion::V1);
        assert_eq!((job.nodes, job.images.len()), (3, 1));
        assert_eq!(serde_json::from_slice::<Value>(job.prompt.bytes()).unwrap(), prompt());
        assert_eq!(comfy(&json!({name: prompt()})).nodes, 3);
    }
    let both = json!({"prompt": prompt(), "workflow": prompt()});
    assert_eq!(opened(both.to_string(), EnvelopeVersion::V1).err(), Some(NO_WORKFLOW));
    let node = json!({"prompt": {"class_type": "A", "inputs": {}}});
    assert_eq!(opened_comfy(&node, EnvelopeVersion::V1).nodes, 1, "a node may have that name");
}

#[test]
fn a_v2_text_says_what_it_is() {
    let reply = json!({"history": false, "previews": true, "progress": false, "deadline_ms": 5000});
    let job = opened_comfy(&v2(json!({"workflow": prompt(), "reply": reply})), EnvelopeVersion::V2);
    assert_eq!((job.wants.history, job.wants.previews, job.wants.silent), (false, true, true));
    assert_eq!(job.deadline, Some(std::time::Duration::from_secs(5)));
    assert!(matches!(&job.reply, ReplyTo::Sealed(to) if to.request_id == "r-1" && to.version == EnvelopeVersion::V2));
    let opened_v2 = |fields| opened(v2(fields).to_string(), EnvelopeVersion::V2);
    let at = opened_v2(json!({"workflow": prompt(), "ts": 1.5})).ok().and_then(|opened| opened.sealed_at);
    assert_eq!(at, Some(crate::domain::time::WallTime(1500)));
    for (wrong, text) in [
        (json!({"v": 1}), "v must be 2"),
        (json!({"v": null}), "v must be 2"),
        (json!({"type": "reply"}), "type must be"),
        (json!({"type": "progress"}), "type must be"),
        (json!({"id": ""}), "id must have"),
        (json!({"id": 5}), "id must have"),
        (json!({"id": "a b"}), "id must have"),
        (json!({"ts": "now"}), "ts must be"),
        (json!({"ts": null}), "ts must be"),
        (json!({"reply": {"previews": 1}}), "reply.previews must be"),
        (json!({"reply": []}), "reply must be"),
    ] {
        let error = opened_v2(with(json!({"workflow": prompt()}), wrong.clone())).err().unwrap();
        assert!(error.to_string().starts_with(text), "{wrong}: {error}");
    }
    assert_eq!(opened_v2(json!({})).err(), Some(NO_WORKFLOW));
}

#[test]
fn the_two_envelopes_texts_do_not_pass_for_one_another() {
    let whole = v2(json!({"workflow": prompt()})).to_string();
    assert_eq!(opened(whole, EnvelopeVersion::V1).err(), Some(NO_WORKFLOW));
    assert!(matches!(opened(prompt().to_string(), EnvelopeVersion::V2).err(), Some(OpenError::Field(_))));
    let reply = json!({"v": 2, "type": "reply", "id": "r-1", "outputs": []}).to_string();
    assert_eq!(opened(reply.clone(), EnvelopeVersion::V1).err(), Some(NO_WORKFLOW));
    assert_eq!(opened(reply, EnvelopeVersion::V2).err(), Some(OpenError::Field("type must be \"request\"")));
}

#[test]
fn nothing_of_a_text_is_in_an_error() {
    let canary = "CANARY-1";
    let texts = [
        json!(canary).to_string(),
        format!("{{\"{canary}\": {canary}"),
        json!({canary: {canary: canary}}).to_string(),
        v2(json!({"workflow": {canary: canary}})).to_string(),
        v2(json!({"type": canary, "id": canary})).to_string(),
        v2(json!({"workflow": prompt(), "images": [{"name": format!("/{canary}"), "image": canary}]})).to_string(),
        v2(json!({"execute": {"id": canary}})).to_string(),
        format!("{{\"{canary}\":1,\"{canary}\":2}}"),
    ];
    for text in texts {
        for version in [EnvelopeVersion::V1, EnvelopeVersion::V2] {
            let error = opened(text.clone(), version).err().unwrap();
            assert!(!format!("{error} {error:?}").contains(canary), "{error:?}");
        }
        let error = refusal_of(text.as_bytes(), OPEN);
        assert!(!format!("{error} {error:?}").contains(canary), "{error:?}");
    }
}

#[test]
fn a_sandbox_job_has_the_routes_fields_in_clear_and_sealed() {
    let id = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
    let execute = json!({"id": id, "data": {"a": [1]}, "env": {"K": "v"}, "limits": {"timeoutMs": 100, "memoryMb": 0}});
    let read = call(&json!({"execute": execute})).unwrap();
    assert_eq!((read.environment.to_string().as_str(), read.data.as_str()), (id, "{\"a\":[1]}"));
    assert_eq!((read.env["K"].as_str(), read.timeout_ms, read.memory_mb), ("v", Some(100), None));
    let bare = call(&json!({"execute": {"environment": id}})).unwrap();
    assert_eq!((bare.data.as_str(), bare.timeout_ms), ("null", None));
    let inside = opened(v2(json!({"execute": execute})).to_string(), EnvelopeVersion::V2).ok().unwrap();
    assert!(matches!(inside.request, Request::Execute(call) if matches!(call.reply, ReplyTo::Sealed(_))));
    for wrong in [
        json!([]),
        json!({}),
        json!({"id": "x"}),
        json!({"id": id, "environment": id}),
        json!({"id": id, "env": {"K": 1}}),
        json!({"id": id, "limits": 5}),
        json!({"id": id, "limits": {"timeoutMs": -1}}),
    ] {
        assert!(matches!(call(&json!({"execute": wrong})), Err(OpenError::Execute(_))), "{wrong}");
    }
    assert!(matches!(call(&json!({"execute": {"id": id}, "workflow": {}})), Err(OpenError::Execute(_))));
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(read_input(&bytes, OPEN));
    }

    #[test]
    fn no_mangled_request_makes_it_panic(at in 0..600_usize, by in any::<u8>(), cut in 0..600_usize) {
        let mut text = v2(json!({"workflow": prompt(), "images": [{"name": "a", "image": "AQID"}]})).to_string().into_bytes();
        let length = text.len();
        text[at % length] = by;
        text.truncate(cut.max(1).min(length));
        drop(read_input(&text, OPEN));
        let options = sealed(&envelope()).options;
        let job = "job-1".parse().unwrap();
        drop(read_plaintext(Secret::new(text), job, EnvelopeVersion::V2, (CURRENT, [9; 32]), options));
    }

    #[test]
    fn a_kid_has_one_spelling(text in "[0-9a-fA-F+ ]{14,18}") {
        if let Ok(kid) = text.parse::<Kid>() {
            prop_assert_eq!(kid.to_string(), text);
        }
    }
}
