//! What a request asks for, before it has a job's name and an address to answer to.

use super::execute::{self, Call};
use super::options::Options;
use super::{images, prompt};
use crate::domain::job::{ComfyJob, ExecuteInput, InputImage, JobId, OpenError, ReplyTo, Request};
use crate::domain::json::Fields;
use crate::domain::secret::Secret;

/// Work, without whose it is.
pub enum Order {
    Workflow(Box<Workflow>),
    Execute(Box<Call>),
}

/// A prompt with its images.
pub struct Workflow {
    prompt: Secret,
    outline: prompt::Outline,
    images: Vec<InputImage>,
    options: Options,
}

impl Order {
    /// A prompt that is a whole text, which moves by its handle; or one that is wrapped as [`Order::workflow_of`] says.
    pub(super) fn of_text(text: Secret, options: Options) -> Result<Self, OpenError> {
        let refused = match prompt::outline(text.bytes()) {
            Ok(outline) => {
                let workflow = Workflow { prompt: text, outline, images: Vec::new(), options };
                return Ok(Self::Workflow(Box::new(workflow)));
            }
            Err(refused) => refused,
        };
        match Fields::of_body(text.bytes()) {
            // What says its version or its type is a text of the other envelope, or a reply on its way back.
            Ok(mut fields) if is_wrapped(&fields) && !fields.has("v") && !fields.has("type") => {
                Self::workflow_of(&mut fields, options)
            }
            _ => Err(refused),
        }
    }

    /// The fields `workflow`, or `prompt` as ComfyUI's own route calls it, `images` and `reply`.
    pub(super) fn workflow_of(fields: &mut Fields<'_>, options: Options) -> Result<Self, OpenError> {
        let options = options.with_reply(fields)?;
        let absent = OpenError::NoWorkflow { graph_export: false };
        let text = match (fields.take("workflow"), fields.take("prompt")) {
            (Some(text), None) | (None, Some(text)) => text.get().as_bytes(),
            _ => return Err(absent),
        };
        let outline = prompt::outline(text)?;
        let images = images::read(fields.take("images"))?;
        let prompt = Secret::new(text.to_vec());
        Ok(Self::Workflow(Box::new(Workflow { prompt, outline, images, options })))
    }

    /// The field `execute`, with which no workflow goes.
    pub(super) fn execute_of(fields: &mut Fields<'_>) -> Result<Self, OpenError> {
        if is_wrapped(fields) || fields.has("images") {
            return Err(OpenError::Execute("it cannot go with workflow or images".to_owned()));
        }
        execute::read(fields).map(|call| Self::Execute(Box::new(call)))
    }

    /// The order as the request of `job`, to be answered as `reply` says.
    pub fn into_request(self, job: JobId, reply: ReplyTo) -> Request {
        match self {
            Order::Workflow(workflow) => {
                let Workflow { prompt, outline, images, options } = *workflow;
                Request::Comfy(Box::new(ComfyJob {
                    id: job,
                    prompt,
                    images,
                    models: outline.models,
                    nodes: outline.nodes,
                    wants: options.wants,
                    reply,
                    deadline: options.deadline,
                }))
            }
            Order::Execute(call) => {
                let Call { environment, data, env, timeout_ms, memory_mb } = *call;
                Request::Execute(Box::new(ExecuteInput { environment, data, env, timeout_ms, memory_mb, reply }))
            }
        }
    }
}

fn is_wrapped(fields: &Fields<'_>) -> bool {
    fields.has("workflow") || fields.has("prompt")
}
