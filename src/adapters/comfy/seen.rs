//! What was seen of one run: a pure account of its messages, whoever brought them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::failure;
use super::kind;
use super::message::{Message, Picture};
use crate::domain::job::{ComfyFailure, Preview, Progress};
use crate::domain::secret::Secret;
use crate::ports::comfy::RunEvent;

/// The account of one run.
pub(super) struct Seen {
    prompt: String,
    progress: Progress,
    cached: usize,
    /// Nodes that send their pictures.
    senders: BTreeSet<String>,
    wants_previews: bool,
    /// The nodes' own outputs, in the order of their coming.
    pub(super) outputs: Vec<(String, Value)>,
    /// Pictures that came over the WebSocket, with their nodes.
    pub(super) pictures: Vec<(String, Secret)>,
    /// Bytes of those.
    pub(super) picture_bytes: u64,
    /// The connection was lost, or a frame was too large: pictures may be missing.
    pub(super) gaps: bool,
    pub(super) end: Option<End>,
}

/// How the prompt ended.
pub(super) enum End {
    Succeeded,
    Failed(ComfyFailure),
}

impl Seen {
    pub(super) fn new(prompt: String, nodes: usize, senders: BTreeSet<String>, wants_previews: bool) -> Self {
        Self {
            prompt,
            progress: Progress { nodes, ..Progress::default() },
            cached: 0,
            senders,
            wants_previews,
            outputs: Vec::new(),
            pictures: Vec::new(),
            picture_bytes: 0,
            gaps: false,
            end: None,
        }
    }

    /// Whether a lost connection costs pictures.
    pub(super) fn has_senders(&self) -> bool {
        !self.senders.is_empty()
    }

    /// Pictures that cannot be had any more.
    pub(super) fn lost_pictures(&self) -> bool {
        self.gaps && self.has_senders()
    }

    /// Takes a text; tells what it means to a listener, when it is of this prompt.
    pub(super) fn text(&mut self, message: Message) -> Option<RunEvent> {
        match message {
            Message::Other => return None,
            Message::Started => {}
            Message::Cached(nodes) => {
                self.cached = nodes.len();
                self.count(0);
            }
            Message::Executing(node) => {
                if self.progress.node != node {
                    (self.progress.value, self.progress.max) = (0.0, 0.0);
                }
                self.progress.node = node;
                return Some(self.step(None));
            }
            Message::Progress { node, value, max } => {
                self.progress.node = node.or(self.progress.node.take());
                (self.progress.value, self.progress.max) = (value, max);
                return Some(self.step(None));
            }
            Message::Finished(count) => {
                let before = self.progress.nodes_done;
                self.count(count);
                if self.progress.nodes_done != before {
                    return Some(self.step(None));
                }
            }
            // A node that is expanded at run time may tell more than once.
            Message::Executed { node, output } => self.outputs.push((node, output)),
            Message::Succeeded => self.ended(End::Succeeded),
            Message::Failed(data) => self.ended(End::Failed(failure::raised(&data))),
            Message::Interrupted => self.ended(End::Failed(failure::interrupted())),
        }
        Some(RunEvent::Sign)
    }

    /// Takes a picture: an output, a preview, or another prompt's.
    pub(super) fn picture(&mut self, picture: Picture) -> Option<RunEvent> {
        if picture.prompt.is_some_and(|prompt| prompt != self.prompt) {
            return None;
        }
        let node = picture.node.or_else(|| self.progress.node.clone())?;
        let mime = kind::of_picture(&picture.bytes);
        if self.senders.contains(&node) {
            self.picture_bytes += picture.bytes.len() as u64;
            self.pictures.push((node, Secret::new(picture.bytes)));
            return Some(RunEvent::Sign);
        }
        if !self.wants_previews {
            return Some(RunEvent::Sign);
        }
        let preview = Preview { mime: mime.to_owned(), data: Secret::new(picture.bytes) };
        Some(self.step(Some(preview)))
    }

    /// The end, from wherever it was told first.
    pub(super) fn ended(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// What history says of the outputs. It is whole, where messages may be missing.
    pub(super) fn replace_outputs(&mut self, outputs: BTreeMap<String, Value>) {
        self.outputs = outputs.into_iter().collect();
    }

    fn count(&mut self, finished: usize) {
        self.progress.nodes_done = (self.cached + finished).min(self.progress.nodes).max(self.progress.nodes_done);
    }

    fn step(&self, preview: Option<Preview>) -> RunEvent {
        RunEvent::Progress(Progress { preview, ..self.progress.clone() })
    }
}
