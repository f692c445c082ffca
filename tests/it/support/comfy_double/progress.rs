//! What the clients hear of a running job.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::hub::{Frame, Outgoing};
use crate::queue::Job;
use crate::server::{Server, now_ms};

/// A picture for the clients: JPEG, else PNG.
pub struct Picture {
    pub jpeg: bool,
    pub bytes: Arc<[u8]>,
}

/// The voice of one job.
pub struct Progress<'a> {
    pub server: &'a Server,
    pub job: &'a Job,
    /// Node → its row of `progress_state`.
    table: Map<String, Value>,
    /// What `/history` keeps: `[kind, data]` each.
    pub messages: Vec<Value>,
}

impl<'a> Progress<'a> {
    pub fn new(server: &'a Server, job: &'a Job) -> Self {
        Self { server, job, table: Map::new(), messages: Vec::new() }
    }

    /// For the client that posted the prompt; a prompt without a client id speaks to nobody, or, where the real one
    /// is careless, to everybody.
    fn tell(&self, kind: &str, data: &Value, careless: bool) {
        let to = self.job.client_id().map(str::to_owned);
        if to.is_some() || careless {
            self.server.send(Outgoing::event(to, kind, data));
        }
    }

    /// A message that also goes into the history, with the time.
    pub fn milestone(&mut self, kind: &str, mut data: Value) {
        data["prompt_id"] = json!(self.job.id);
        data["timestamp"] = json!(now_ms());
        self.tell(kind, &data, kind == "execution_interrupted");
        self.messages.push(json!([kind, data]));
    }

    pub fn executing(&self, node: Option<&str>) {
        let mut data = json!({"node": node, "prompt_id": self.job.id});
        if node.is_some() {
            data["display_node"] = json!(node);
        }
        self.tell("executing", &data, false);
        self.server.current.lock().unwrap().last_node = node.map(str::to_owned);
    }

    pub fn executed(&self, node: &str, output: &Value) {
        let data = json!({"node": node, "display_node": node, "output": output, "prompt_id": self.job.id});
        self.tell("executed", &data, false);
    }

    /// A node's row changes, and the whole table goes out.
    pub fn row(&mut self, node: &str, value: Value, max: Value, state: &str) {
        let row = json!({
            "value": value, "max": max, "state": state, "node_id": node, "prompt_id": self.job.id,
            "display_node_id": node, "parent_node_id": null, "real_node_id": node,
        });
        self.table.insert(node.to_owned(), row);
        self.tell("progress_state", &json!({"prompt_id": self.job.id, "nodes": self.table}), true);
    }

    pub fn started(&mut self, node: &str) {
        self.row(node, json!(0.0), json!(1.0), "running");
    }

    /// The row keeps the count it came to.
    pub fn finished(&mut self, node: &str) {
        let max = self.table.get(node).map_or(json!(1), |row| row["max"].clone());
        self.row(node, max.clone(), max, "finished");
    }

    /// One step of a node, maybe with a picture, which comes last, or, for a client that reads type 4, before the count.
    pub fn step(&mut self, node: &str, value: u64, max: u64, picture: Option<Picture>) {
        self.row(node, json!(value), json!(max), "running");
        let sockets = self.server.sockets.lock().unwrap();
        let early = self.job.client_id().and_then(|id| sockets.get(id)).is_some_and(|socket| socket.metadata);
        drop(sockets);
        let data = json!({"value": value, "max": max, "prompt_id": self.job.id, "node": node});
        if !early {
            self.tell("progress", &data, true);
        }
        if let Some(picture) = picture {
            self.image(node, picture);
        }
        if early {
            self.tell("progress", &data, true);
        }
    }

    pub fn image(&self, node: &str, Picture { jpeg, bytes }: Picture) {
        let metadata = json!({
            "node_id": node, "prompt_id": self.job.id, "display_node_id": node, "parent_node_id": null,
            "real_node_id": node, "image_type": if jpeg { "image/jpeg" } else { "image/png" },
        });
        let frame = Frame::Image { jpeg, image: bytes, metadata };
        self.server.send(Outgoing { to: self.job.client_id().map(str::to_owned), frame });
    }

    pub fn text(&self, node: &str, text: &str) {
        let frame = Frame::NodeText { node: node.to_owned(), text: text.to_owned() };
        self.server.send(Outgoing { to: self.job.client_id().map(str::to_owned), frame });
    }
}
