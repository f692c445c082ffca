//! The bodies of answers and updates, as callers read them.
//!
//! ```text
//!   in clear   {"status":"ok","prompt_id","images":[…],"outputs":[…],"history"?,"errors"?}
//!   sealed     {"status":"ok","prompt_id","encrypted":true,"v":2,"kid","nonce","ciphertext"|"ciphertext_url"}
//!              around {"v":2,"type":"reply","id","outputs":[…],"history"?,"error"?,"timings"}
//!   failed     the error's one line beside a body that holds the details, sealed where the request was
//!   update     {"type":"progress","id","seq",…}, sealed where the request was
//! ```
//!
//! Data is written as base64 straight into the body, which is made large enough first: no copy of it is left behind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answer::{Answer, SealedPart};
use super::comfy::{ComfyFailure, ComfyReport, FailureCode, Output, OutputKind, Progress};
use super::request::ReplyAddress;
use crate::domain::secret::Secret;

/// The prompt id of a job that was run nowhere.
pub const DRY_RUN: &str = "dry-run";
/// What the fields around one output take, about.
const AROUND: usize = 256;

/// JSON text that grows.
struct Text(String);

impl Text {
    fn object(capacity: usize) -> Self {
        let mut text = String::with_capacity(capacity + 512);
        text.push('{');
        Self(text)
    }

    fn raw(&mut self, json: &str) -> &mut Self {
        self.0.push_str(json);
        self
    }

    /// A name and its colon, after a comma where one belongs.
    fn name(&mut self, name: &str) -> &mut Self {
        self.comma();
        self.string(name);
        self.raw(":")
    }

    fn comma(&mut self) {
        if !self.0.ends_with(['{', '[', ':']) {
            self.0.push(',');
        }
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.json(text)
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        // What is written here has string keys only and cannot fail; the text stays JSON all the same.
        self.raw(&serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()))
    }

    fn field<T: serde::Serialize + ?Sized>(&mut self, name: &str, value: &T) -> &mut Self {
        self.name(name).json(value)
    }

    fn base64(&mut self, name: &str, data: &[u8]) -> &mut Self {
        self.name(name).raw("\"");
        STANDARD.encode_string(data, &mut self.0);
        self.raw("\"")
    }

    fn history(&mut self, history: Option<&Secret>) -> &mut Self {
        if let Some(json) = history.and_then(Secret::text) {
            self.name("history").raw(json);
        }
        self
    }

    fn end(&mut self) -> Secret {
        self.0.push('}');
        std::mem::take(&mut self.0).into()
    }
}

fn in_base64(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

/// How many bytes the body of a report takes with all data in it, about; sealed or in clear.
pub fn size_with_data(report: &ComfyReport, sealed: bool) -> usize {
    let outputs = report.outputs.iter().map(|output| in_base64(output.data.len()) + AROUND).sum::<usize>();
    let text = outputs + report.history.as_ref().map_or(0, Secret::len);
    if sealed { in_base64(text) } else { text }
}

/// How many bytes a sealed body takes at the least: its outputs and its history, and nothing around them.
pub fn least_sealed(report: &ComfyReport) -> usize {
    let outputs = report.outputs.iter().map(|output| in_base64(output.data.len())).sum::<usize>();
    in_base64(outputs + report.history.as_ref().map_or(0, Secret::len))
}

/// The public line of a failure: v1's words, and nothing of the prompt.
pub fn error_line(failure: &ComfyFailure) -> String {
    match failure.code {
        FailureCode::Unavailable => format!("comfy_init_failed: {}", failure.summary),
        code => format!("execution_failed: {}: {}", code.as_str(), failure.summary),
    }
}

/// The failure that a report's answer is marked with. A job of which a part was refused, or of which an output cannot be
/// sent, and which made others, has not failed: its answer says what is missing.
fn failed(report: &ComfyReport) -> Option<&ComfyFailure> {
    let partial = |code| matches!(code, FailureCode::Validation | FailureCode::Unsendable);
    report.failure.as_ref().filter(|failure| report.outputs.is_empty() || !partial(failure.code))
}

/// The answer to a request that came in clear. `urls`: where each output was uploaded to, when it is not in the body.
pub fn plain(prompt: Option<&str>, report: &ComfyReport, urls: Option<&[String]>) -> Answer {
    match failed(report) {
        Some(failure) => plain_failure(prompt, failure),
        None => Answer::done(plain_body(prompt, report, urls)),
    }
}

fn plain_failure(prompt: Option<&str>, failure: &ComfyFailure) -> Answer {
    let mut text = Text::object(0);
    if let Some(prompt) = prompt {
        text.field("prompt_id", prompt);
    }
    let output = (!failure.detail.is_null()).then(|| text.field("details", &[&failure.detail]).end());
    Answer { output, error: Some(error_line(failure)) }
}

fn plain_body(prompt: Option<&str>, report: &ComfyReport, urls: Option<&[String]>) -> Secret {
    if prompt == Some(DRY_RUN) {
        return Text::object(0).field("status", "ok").field("prompt_id", DRY_RUN).end();
    }
    let status = if report.outputs.is_empty() { "success_no_images" } else { "ok" };
    let mut text = Text::object(if urls.is_some() { 0 } else { size_with_data(report, false) });
    text.field("status", status).field("prompt_id", &prompt);
    let is_image = |output: &Output| matches!(output.kind, OutputKind::Image | OutputKind::Animated);
    for (name, images) in [("images", true), ("outputs", false)] {
        text.name(name).raw("[");
        for (at, output) in report.outputs.iter().enumerate().filter(|(_, output)| is_image(output) == images) {
            text.comma();
            text.raw("{").field("filename", &output.filename);
            match urls {
                None => text.field("type", "base64").base64("data", output.data.bytes()),
                Some(urls) => text.field("type", "s3_url").field("data", &urls.get(at)),
            };
            text.field("node", &output.node).field("mime", output.mime).raw("}");
        }
        text.raw("]");
    }
    text.history(report.history.as_ref());
    if let Some(failure) = &report.failure {
        text.field("errors", &[format!("{}: {}", failure.code.as_str(), failure.summary)]);
        if !failure.detail.is_null() {
            text.field("details", &[&failure.detail]);
        }
    }
    text.end()
}

/// What is sealed into the answer to a sealed request.
pub fn reply_text(to: &ReplyAddress, report: &ComfyReport) -> Secret {
    let mut text = Text::object(size_with_data(report, false));
    text.field("v", &2).field("type", "reply").field("id", &to.request_id).name("outputs").raw("[");
    for output in &report.outputs {
        text.comma();
        text.raw("{").field("node", &output.node).field("filename", &output.filename).field("kind", &output.kind);
        text.field("mime", output.mime).base64("data", output.data.bytes()).raw("}");
    }
    text.raw("]").history(report.history.as_ref());
    if let Some(failure) = &report.failure {
        text.name("error").raw("{").field("code", &failure.code).field("summary", &failure.summary);
        text.field("detail", &failure.detail).raw("}");
    }
    text.field("timings", &report.timings).end()
}

/// The answer around a sealed reply; `url`: where the ciphertext was uploaded to, when it is not in the body.
pub fn sealed(prompt: Option<&str>, report: &ComfyReport, part: &SealedPart, url: Option<&str>) -> Answer {
    let failure = failed(report);
    let status = if failure.is_some() { "error" } else { "ok" };
    Answer { output: Some(around(status, prompt, part, url)), error: failure.map(error_line) }
}

fn around(status: &str, prompt: Option<&str>, part: &SealedPart, url: Option<&str>) -> Secret {
    let mut text = Text::object(if url.is_some() { 0 } else { in_base64(part.ciphertext.len()) });
    text.field("status", status);
    if let Some(prompt) = prompt {
        text.field("prompt_id", prompt);
    }
    seal_fields(&mut text, part, url);
    text.end()
}

fn seal_fields(text: &mut Text, part: &SealedPart, url: Option<&str>) {
    text.field("encrypted", &true).field("v", &2).field("kid", &part.kid.to_string()).base64("nonce", &part.nonce);
    match url {
        None => text.base64("ciphertext", &part.ciphertext),
        Some(url) => text.field("ciphertext_url", url),
    };
}

/// What is sealed into the answer to a sealed call of a handler. `body`: JSON text, as the HTTP route would answer.
pub fn execution_text(to: &ReplyAddress, body: &str) -> Secret {
    let mut text = Text::object(body.len());
    text.field("v", &2).field("type", "reply").field("id", &to.request_id).name("execution").raw(body).end()
}

/// The answer around a sealed call's reply.
pub fn sealed_execution(part: &SealedPart, url: Option<&str>) -> Answer {
    Answer::done(around("ok", None, part, url))
}

/// An update's text: sealed for a sealed request, else posted as it is. `id`: the request's own, or the job's.
pub fn progress_text(id: &str, seq: u64, progress: &Progress) -> Secret {
    let preview = progress.preview.as_ref();
    let mut text = Text::object(preview.map_or(0, |preview| in_base64(preview.data.len())));
    text.field("type", "progress").field("id", id).field("seq", &seq).field("node", &progress.node);
    text.field("value", &progress.value).field("max", &progress.max);
    text.field("nodes_done", &progress.nodes_done).field("nodes", &progress.nodes);
    if let Some(preview) = preview {
        text.name("preview").raw("{").field("mime", &preview.mime).base64("data", preview.data.bytes()).raw("}");
    }
    text.end()
}

/// An update around its sealed text.
pub fn sealed_progress(part: &SealedPart) -> Secret {
    let mut text = Text::object(in_base64(part.ciphertext.len()));
    seal_fields(&mut text, part, None);
    text.end()
}

/// The line that stands for an answer which its source does not take.
pub fn too_large(bytes: usize, most: Option<usize>, cause: Option<&str>) -> String {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let most = most.map_or_else(|| "the platform refused it".to_owned(), |most| format!("{} are taken", mib(most)));
    let cause = cause.unwrap_or("name a bucket (BUCKET_ENDPOINT_URL, or s3Config with the request)");
    format!("result_too_large: the answer has {} MiB, {most}: {cause}", mib(bytes))
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
