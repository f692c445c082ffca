//! Which node runs next.

use crate::catalogue::Class;
use crate::prompt::{Node, Prompt};

/// The nodes that are still to run, in the order in which they were met on the way up from the outputs.
pub struct Order<'a> {
    prompt: &'a Prompt,
    pending: Vec<String>,
}

impl<'a> Order<'a> {
    /// The outputs, and all that they need and that `is_cached` does not have.
    pub fn new(prompt: &'a Prompt, outputs: &[String], is_cached: impl Fn(&str) -> bool) -> Self {
        let mut pending: Vec<String> = Vec::new();
        for output in outputs {
            let mut open = vec![output.as_str()];
            while let Some(id) = open.pop() {
                if pending.iter().any(|met| met == id) || id != output && is_cached(id) {
                    continue;
                }
                pending.push(id.to_owned());
                open.extend(prompt.get(id).into_iter().flat_map(Node::links).map(|(_, node, _)| node));
            }
        }
        Self { prompt, pending }
    }

    /// Takes the next node: of those whose inputs are there, the one nearest to an output, else the first.
    pub fn take(&mut self) -> Option<String> {
        let waits_for = |node: &str, other: &str| {
            self.prompt.get(node).into_iter().flat_map(Node::links).any(|(_, source, _)| source == other)
        };
        let is_ready = |id: &&String| !self.pending.iter().any(|other| waits_for(id, other));
        let is_output = |id: &str| {
            let class = self.prompt.get(id).and_then(|node| Class::named(node.class()));
            class.is_some_and(Class::is_output)
        };
        let users = |id: &str| {
            let id = id.to_owned();
            self.pending.iter().filter(move |other| waits_for(other, &id))
        };
        let ready: Vec<&String> = self.pending.iter().filter(is_ready).collect();
        let next = (ready.iter().find(|id| is_output(id)))
            .or_else(|| ready.iter().find(|id| users(id).any(|user| is_output(user))))
            .or_else(|| ready.iter().find(|id| users(id).flat_map(|user| users(user)).any(|user| is_output(user))))
            .or(ready.first())
            .map(|id| (*id).clone())?;
        self.pending.retain(|id| *id != next);
        Some(next)
    }
}
