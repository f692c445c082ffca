//! The worker thread: one job after the other, one node after the other.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use sha2::Digest;

use crate::catalogue::Class;
use crate::faults::{Worker, befall};
use crate::nodes::{self, Call, Data, Input, Ran, Stop};
use crate::order::Order;
use crate::progress::Progress;
use crate::prompt::{Node, Pairs, Prompt, link};
use crate::queue::{Job, Past};
use crate::server::Server;

/// Signature of a node and of all above it → what it gave. Only the last prompt's nodes are kept.
type Cache = HashMap<String, Ran>;

/// Works until the process ends, or until a job kills the thread.
pub fn work(server: &Server) {
    let mut cache = Cache::new();
    for done in 0.. {
        let job = server.next_job(|| cache.clear());
        server.interrupted.store(false, Ordering::SeqCst);
        let client_id = job.client_id().map(str::to_owned);
        server.current.lock().unwrap().client_id = client_id;
        server.send_status();
        if server.switches.log {
            println!("got prompt");
        }
        let mut run = Run::new(server, &job, std::mem::take(&mut cache));
        if run.job(done) == Worker::Dead {
            return;
        }
        let outcome = run.outcome();
        cache = run.into_cache();
        nodes::leave_behind(server);
        if !server.switches.history_delay.is_zero() {
            std::thread::sleep(server.switches.history_delay);
        }
        server.queue().book(Past { id: job.id.clone(), entry: outcome });
        server.send_status();
        Progress::new(server, &job).executing(None);
    }
}

/// One job in the worker.
struct Run<'a> {
    server: &'a Server,
    prompt: &'a Prompt,
    job: &'a Job,
    progress: Progress<'a>,
    cache: Cache,
    /// Node → signature; nodes that never count as the same have one of their own.
    signatures: HashMap<String, String>,
    executed: Vec<String>,
    /// Node → what the nodes below it get.
    results: HashMap<String, Ran>,
    shown: Map<String, Value>,
    succeeded: bool,
}

impl<'a> Run<'a> {
    fn new(server: &'a Server, job: &'a Job, cache: Cache) -> Self {
        let prompt = &job.prompt;
        let signatures = prompt.iter().map(|(id, _)| (id.to_owned(), signature(server, job, id))).collect();
        Self {
            server,
            prompt,
            job,
            progress: Progress::new(server, job),
            cache,
            signatures,
            executed: Vec::new(),
            results: HashMap::new(),
            shown: Map::new(),
            succeeded: false,
        }
    }

    fn is_cached(&self, id: &str) -> bool {
        self.signatures.get(id).is_some_and(|signature| self.cache.contains_key(signature))
    }

    fn job(&mut self, done: u64) -> Worker {
        self.progress.milestone("execution_start", json!({}));
        let cached: Vec<&str> = self.prompt.iter().map(|(id, _)| id).filter(|id| self.is_cached(id)).collect();
        let cached = json!({"nodes": cached});
        self.progress.milestone("execution_cached", cached);
        if let Some((after, fault)) = &self.server.switches.fault
            && *after == done
            && befall(self.server, fault) == Worker::Dead
        {
            return Worker::Dead;
        }
        let mut order = Order::new(self.prompt, &self.job.outputs, |id| self.is_cached(id));
        while let Some(id) = order.take() {
            match self.node(&id) {
                Ok(()) => {}
                Err(Stop::Dead) => return Worker::Dead,
                Err(stop) => {
                    self.stopped(&id, stop);
                    return Worker::Lives;
                }
            }
        }
        self.progress.milestone("execution_success", json!({}));
        self.succeeded = true;
        Worker::Lives
    }

    fn node(&mut self, id: &str) -> Result<(), Stop> {
        if let Some(ran) = self.signatures.get(id).and_then(|signature| self.cache.get(signature)).cloned() {
            self.show(id, &ran);
            self.progress.finished(id);
            return Ok(());
        }
        self.progress.started(id);
        self.progress.executing(Some(id));
        if self.server.interrupted.swap(false, Ordering::SeqCst) {
            return Err(Stop::Interrupted);
        }
        let inputs = self.inputs(id);
        let class = self.prompt.get(id).map_or("", Node::class);
        let ran = nodes::run(Call { node: id, class, inputs: &inputs, progress: &mut self.progress })?;
        self.show(id, &ran);
        self.progress.finished(id);
        self.executed.push(id.to_owned());
        self.results.insert(id.to_owned(), ran);
        Ok(())
    }

    fn show(&mut self, id: &str, ran: &Ran) {
        if let Some(output) = &ran.ui {
            self.progress.executed(id, output);
            self.shown.insert(id.to_owned(), output.clone());
        }
    }

    /// The inputs, links replaced by what the other node gave.
    fn inputs(&self, id: &str) -> Vec<(String, Input)> {
        let inputs = self.prompt.get(id).and_then(|node| node.inputs.as_ref());
        let resolve = |value: &Value| match link(value) {
            Some((node, slot)) => Input::Linked(self.output(node, slot)),
            None => Input::Plain(value.clone()),
        };
        inputs.into_iter().flat_map(Pairs::iter).map(|(name, value)| (name.to_owned(), resolve(value))).collect()
    }

    fn output(&self, node: &str, slot: usize) -> Data {
        let cached = || self.cache.get(self.signatures.get(node)?);
        let ran = self.results.get(node).or_else(cached);
        ran.and_then(|ran| ran.outputs.get(slot)).cloned().unwrap_or(Data::Opaque)
    }

    fn stopped(&mut self, id: &str, stop: Stop) {
        let class = self.prompt.get(id).map_or("", Node::class);
        let mut data = json!({"node_id": id, "node_type": class, "executed": self.executed});
        let Stop::Failed { kind, message } = stop else {
            return self.progress.milestone("execution_interrupted", data);
        };
        let printed = |input: Input| json!([input.printed()]);
        let inputs = self.inputs(id).into_iter().map(|(name, input)| (name, printed(input)));
        let mut inputs: Map<_, _> = inputs.collect();
        if Class::named(class).is_some_and(Class::sees_the_prompt) {
            inputs.insert("prompt".to_owned(), json!([self.job.posted.to_string().replace('"', "'")]));
            inputs.insert("extra_pnginfo".to_owned(), json!([self.job.extra_data["extra_pnginfo"]]));
        }
        data["exception_message"] = json!(message);
        data["exception_type"] = json!(kind);
        data["traceback"] = json!(nodes::traceback(&kind, &message));
        data["current_inputs"] = Value::Object(inputs);
        data["current_outputs"] = self.prompt.iter().map(|(id, _)| id).collect();
        if self.server.switches.log {
            println!("!!! Exception during processing !!! {message}{data}");
        }
        self.progress.milestone("execution_error", data);
    }

    /// The entry of `/history`.
    fn outcome(&mut self) -> Value {
        let meta = |id: &String| {
            (id.clone(), json!({"node_id": id, "display_node": id, "parent_node": null, "real_node_id": id}))
        };
        let status = if self.succeeded { "success" } else { "error" };
        json!({
            "prompt": self.job.as_tuple(),
            "outputs": self.shown,
            "status": {"status_str": status, "completed": self.succeeded, "messages": self.progress.messages},
            "meta": self.shown.keys().map(meta).collect::<Map<_, _>>(),
        })
    }

    /// What the next job may use again.
    fn into_cache(mut self) -> Cache {
        if !self.server.arguments.cache {
            return Cache::new();
        }
        for (id, ran) in self.results {
            self.cache.insert(self.signatures[&id].clone(), ran);
        }
        let kept: HashSet<&String> = self.signatures.values().collect();
        self.cache.retain(|signature, _| kept.contains(signature));
        self.cache
    }
}

/// The class and the inputs of a node, links replaced by the signature of the node they come from.
fn signature(server: &Server, job: &Job, id: &str) -> String {
    let Some(node) = job.prompt.get(id) else { return String::new() };
    let mut text = node.class().to_owned();
    for (name, value) in node.inputs.iter().flat_map(Pairs::iter) {
        let value = match link(value) {
            Some((from, slot)) => format!("{}#{slot}", signature(server, job, from)),
            None => value.to_string(),
        };
        text.push_str(&format!("({name}={value})"));
    }
    if nodes::is_never_the_same(node.class()) || Class::named(node.class()).is_none() {
        text.push_str(&format!("@{}/{}", job.id, job.number));
    }
    if node.class() == "LoadImage" {
        let file = node.inputs.as_ref().and_then(|inputs| inputs.get("image")?.as_str().map(str::to_owned));
        let path = file.and_then(|file| server.annotated(&file));
        let bytes = path.and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        text.push_str(&format!("@{:?}", sha2::Sha256::digest(&bytes)));
    }
    text
}
