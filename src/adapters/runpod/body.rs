//! The bodies of answers and of progress: JSON around a text that is already JSON, in pieces, so that megabytes of it
//! are neither copied nor written anew.

use bytes::Bytes;

use crate::domain::job::Answer;
use crate::domain::secret::Secret;

/// A body's pieces, in order.
pub(super) struct Pieces(Vec<Bytes>);

impl Pieces {
    /// `{"output":…,"error":"…","stopPod":true}`, each only when there is one.
    pub(super) fn of_answer(answer: &Answer, stop_pod: bool) -> Self {
        let mut pieces = Self(Vec::with_capacity(3));
        let mut text = String::from("{");
        if let Some(output) = &answer.output {
            text.push_str("\"output\":");
            pieces.push(std::mem::take(&mut text));
            pieces.0.push(Bytes::from_owner(output.clone()));
        }
        let mut field = |name: &str, value: &str| {
            let comma = if text == "{" { "" } else { "," };
            text.push_str(comma);
            text.push_str(&format!("\"{name}\":{value}"));
        };
        if let Some(error) = &answer.error {
            field("error", &serde_json::Value::from(error.as_str()).to_string());
        }
        if stop_pod {
            field("stopPod", "true");
        }
        text.push('}');
        pieces.push(text);
        pieces
    }

    /// `{"status":"IN_PROGRESS","output":…}`: without a `status`, the platform would take it for the end.
    pub(super) fn of_update(output: &Secret) -> Self {
        let head = Bytes::from_static(b"{\"status\":\"IN_PROGRESS\",\"output\":");
        Self(vec![head, Bytes::from_owner(output.clone()), Bytes::from_static(b"}")])
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// As a request's body, which does not know its length.
    pub(super) fn into_body(self) -> reqwest::Body {
        let pieces = self.0.into_iter().map(Ok::<Bytes, std::convert::Infallible>);
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
    }

    fn push(&mut self, text: String) {
        self.0.push(Bytes::from(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &Pieces) -> String {
        assert_eq!(pieces.0.concat().len(), pieces.len());
        String::from_utf8(pieces.0.concat()).expect("UTF-8")
    }

    #[test]
    fn the_fields_stand_in_the_sdks_order_and_the_output_as_it_came() {
        let output = || Secret::from(" {\"a\" : 1.50}".to_owned());
        let both = Answer { output: Some(output()), error: Some("bad \"x\"\n".into()) };
        for (answer, stop, expected) in [
            (Answer::done(output()), false, r#"{"output": {"a" : 1.50}}"#),
            (Answer::done(output()), true, r#"{"output": {"a" : 1.50},"stopPod":true}"#),
            (both, true, r#"{"output": {"a" : 1.50},"error":"bad \"x\"\n","stopPod":true}"#),
            (Answer::failed("oom"), false, r#"{"error":"oom"}"#),
            (Answer::failed("oom"), true, r#"{"error":"oom","stopPod":true}"#),
            (Answer { output: None, error: None }, true, r#"{"stopPod":true}"#),
            (Answer { output: None, error: None }, false, "{}"),
        ] {
            assert_eq!(text(&Pieces::of_answer(&answer, stop)), expected);
        }
        assert_eq!(text(&Pieces::of_update(&output())), r#"{"status":"IN_PROGRESS","output": {"a" : 1.50}}"#);
    }

    #[test]
    fn a_large_output_is_not_copied() {
        let output = Secret::new(vec![b'1'; 1 << 20]);
        let at = output.bytes().as_ptr();
        let pieces = Pieces::of_answer(&Answer::done(output), false);
        assert_eq!(pieces.0[1].as_ptr(), at);
    }
}
