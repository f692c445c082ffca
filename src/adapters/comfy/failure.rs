//! What ComfyUI said went wrong, as a failure: a public code and summary, and a detail for the caller's eyes only.

use serde_json::{Value, json};

use crate::domain::job::{ComfyFailure, FailureCode};

/// The longest name of a type that a summary quotes.
const LONGEST_TYPE: usize = 80;

/// A failure of this house's own, with nothing of the prompt in it.
pub(super) fn plain(code: FailureCode, summary: impl Into<String>) -> ComfyFailure {
    ComfyFailure { code, summary: summary.into(), detail: Value::Null }
}

/// A refused prompt, from the status and body of `POST /prompt`.
pub(super) fn refused(status: u16, body: &[u8]) -> ComfyFailure {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = said.get("error");
    let kind = error.and_then(|error| error.get("type")).and_then(Value::as_str).and_then(type_name);
    let summary = match (status, kind) {
        (413, _) => "ComfyUI refused the prompt: it is larger than its limit (--max-upload-size)".to_owned(),
        (_, Some(kind)) => format!("ComfyUI refused the prompt: {kind}"),
        (500.., None) => "ComfyUI could not read the prompt".to_owned(),
        (_, None) => format!("ComfyUI refused the prompt with status {status}"),
    };
    let field = |name: &str| error.and_then(|error| error.get(name)).cloned().unwrap_or_default();
    let detail = match error {
        None => Value::Null,
        Some(_) => json!({
            "type": field("type"), "message": field("message"), "details": field("details"),
            "extra_info": without_traceback(field("extra_info")),
            "node_errors": node_errors(said.get("node_errors")),
        }),
    };
    ComfyFailure { code: FailureCode::Validation, summary, detail }
}

/// The part of an accepted prompt that ComfyUI left out; none when it took all.
pub(super) fn left_out(answer: &Value) -> Option<ComfyFailure> {
    let errors = answer.get("node_errors")?.as_object().filter(|errors| !errors.is_empty())?;
    Some(ComfyFailure {
        code: FailureCode::Validation,
        summary: format!("ComfyUI left out part of the prompt: {} of its nodes did not pass validation", errors.len()),
        detail: json!({ "node_errors": node_errors(answer.get("node_errors")) }),
    })
}

/// A node's exception, from the data of `execution_error`. The inputs that ComfyUI adds are left out: they are large,
/// and the caller has them.
pub(super) fn raised(data: &Value) -> ComfyFailure {
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    let (kind, message) = (text("exception_type"), text("exception_message"));
    let code = class(kind, message);
    let named = type_name(kind).map_or_else(String::new, |kind| format!(" ({kind})"));
    let summary = match code {
        FailureCode::OutOfMemory => format!("a node ran out of memory{named}"),
        FailureCode::NoSpace => "the outputs do not fit into the instance's RAM directory (comfy.ram_mib)".to_owned(),
        _ => format!("a node raised an exception{named}"),
    };
    let field = |name: &str| data.get(name).cloned().unwrap_or_default();
    let detail = json!({
        "node_id": field("node_id"), "node_type": field("node_type"),
        "exception_type": field("exception_type"), "exception_message": field("exception_message"),
        "traceback": field("traceback"),
    });
    ComfyFailure { code, summary, detail }
}

/// A cancelled prompt.
pub(super) fn interrupted() -> ComfyFailure {
    plain(FailureCode::Interrupted, "the prompt was interrupted")
}

fn class(kind: &str, message: &str) -> FailureCode {
    const OUT_OF_MEMORY: [&str; 5] = [
        "CUDA out of memory",
        "HIP out of memory",
        "CUDA error: out of memory",
        "DefaultCPUAllocator: can't allocate memory",
        "[Errno 12]",
    ];
    let name = kind.rsplit('.').next().unwrap_or(kind);
    // numpy's own is _ArrayMemoryError.
    if name == "OutOfMemoryError"
        || name.ends_with("MemoryError")
        || OUT_OF_MEMORY.iter().any(|one| message.contains(one))
    {
        return FailureCode::OutOfMemory;
    }
    if message.contains("[Errno 28]") || message.contains("No space left on device") {
        return FailureCode::NoSpace;
    }
    FailureCode::NodeError
}

/// A name that may stand in public: a type of Python's, or of ComfyUI's errors, and no sentence.
fn type_name(text: &str) -> Option<&str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    (!text.is_empty() && text.len() <= LONGEST_TYPE && text.chars().all(fine)).then_some(text)
}

fn node_errors(errors: Option<&Value>) -> Value {
    let mut errors = errors.cloned().unwrap_or_default();
    let of_nodes = errors.as_object_mut().into_iter().flatten();
    let each = of_nodes.filter_map(|(_, node)| node.get_mut("errors")?.as_array_mut()).flatten();
    for extra in each.filter_map(|error| error.get_mut("extra_info")) {
        *extra = without_traceback(extra.take());
    }
    errors
}

/// A validation's traceback names files of this host and says nothing to the caller.
fn without_traceback(mut extra: Value) -> Value {
    if let Some(extra) = extra.as_object_mut() {
        extra.remove("traceback");
    }
    extra
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_told_apart_by_their_type_and_their_errno() {
        assert_eq!(class("torch.OutOfMemoryError", ""), FailureCode::OutOfMemory);
        assert_eq!(class("torch.cuda.OutOfMemoryError", ""), FailureCode::OutOfMemory);
        assert_eq!(class("MemoryError", ""), FailureCode::OutOfMemory);
        assert_eq!(class("numpy._core._exceptions._ArrayMemoryError", ""), FailureCode::OutOfMemory);
        assert_eq!(class("RuntimeError", "CUDA out of memory. Tried to allocate"), FailureCode::OutOfMemory);
        assert_eq!(class("OSError", "[Errno 28] No space left on device\n"), FailureCode::NoSpace);
        assert_eq!(class("ValueError", "boom"), FailureCode::NodeError);
    }

    #[test]
    fn a_summary_quotes_types_and_never_a_sentence() {
        let data = json!({"node_id": "2", "exception_type": "a cat, oil on canvas", "exception_message": "a dog"});
        let failure = raised(&data);
        assert_eq!(failure.summary, "a node raised an exception");
        assert_eq!(failure.detail["exception_message"], "a dog");
        let body = br#"{"error": {"type": "a cat", "message": "a dog"}, "node_errors": {}}"#;
        assert_eq!(refused(400, body).summary, "ComfyUI refused the prompt with status 400");
    }

    #[test]
    fn what_is_no_json_is_a_prompt_that_could_not_be_read() {
        let failure = refused(500, b"500 Internal Server Error");
        assert_eq!(failure.summary, "ComfyUI could not read the prompt");
        assert_eq!(failure.detail, Value::Null);
        assert!(refused(413, b"").summary.contains("--max-upload-size"));
    }
}
