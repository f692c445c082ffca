//! What the nodes do.

mod save;
mod test_nodes;

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::progress::Progress;
use crate::server::Server;

/// What travels along a link.
#[derive(Clone)]
pub enum Data {
    Image(Image),
    Text(String),
    /// Models, conditionings, sound: nothing looks into them.
    Opaque,
}

/// A batch of images of one colour.
#[derive(Clone)]
pub struct Image {
    pub width: u32,
    pub height: u32,
    pub count: u32,
    pub color: u32,
}

/// An input of a node about to run.
pub enum Input {
    Plain(Value),
    Linked(Data),
}

impl Input {
    /// As an error report prints it.
    pub fn printed(self) -> Value {
        match self {
            Self::Plain(value) => value,
            Self::Linked(Data::Text(text)) => Value::String(text),
            Self::Linked(_) => Value::String("tensor([[[[1.0000, 0.5020, 0.0000],\n          ...]]]])".to_owned()),
        }
    }
}

/// What a node gave.
#[derive(Clone, Default)]
pub struct Ran {
    pub outputs: Vec<Data>,
    /// What clients are shown.
    pub ui: Option<Value>,
}

impl Ran {
    fn one(output: Data) -> Self {
        Self { outputs: vec![output], ui: None }
    }

    fn shown(ui: Value) -> Self {
        Self { outputs: vec![Data::Opaque], ui: Some(ui) }
    }
}

/// Why a node did not finish.
pub enum Stop {
    Interrupted,
    /// A Python exception.
    Failed {
        kind: String,
        message: String,
    },
    /// The worker thread is gone.
    Dead,
}

impl Stop {
    fn failed(kind: &str, message: impl Into<String>) -> Self {
        Self::Failed { kind: kind.to_owned(), message: message.into() }
    }
}

/// One node about to run.
pub struct Call<'a, 'p> {
    pub node: &'a str,
    pub class: &'a str,
    pub inputs: &'a [(String, Input)],
    pub progress: &'a mut Progress<'p>,
}

impl<'p> Call<'_, 'p> {
    fn server(&self) -> &'p Server {
        self.progress.server
    }

    fn plain(&self, name: &str) -> &Value {
        let found = self.inputs.iter().find(|(key, _)| key == name);
        match found {
            Some((_, Input::Plain(value))) => value,
            _ => &Value::Null,
        }
    }

    fn int(&self, name: &str) -> u64 {
        self.float(name).max(0.0) as u64
    }

    fn float(&self, name: &str) -> f64 {
        let value = self.plain(name);
        value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        let linked = self.inputs.iter().find_map(|(key, input)| match input {
            Input::Linked(Data::Text(text)) if key == name => Some(text.clone()),
            _ => None,
        });
        let plain = self.plain(name);
        linked.unwrap_or_else(|| plain.as_str().map_or_else(|| plain.to_string(), str::to_owned))
    }

    /// The first image among the inputs; a small grey one where a link carries none.
    fn image(&self) -> Image {
        let images = self.inputs.iter().find_map(|(_, input)| match input {
            Input::Linked(Data::Image(image)) => Some(image.clone()),
            _ => None,
        });
        images.unwrap_or(Image { width: 64, height: 64, count: 1, color: 0x0080_8080 })
    }

    /// Where an interrupt takes effect.
    fn breathe(&self) -> Result<(), Stop> {
        match self.server().interrupted.swap(false, Ordering::SeqCst) {
            true => Err(Stop::Interrupted),
            false => Ok(()),
        }
    }
}

/// Runs a node to its end, or to the end of something.
///
/// # Errors
/// When it was interrupted, failed, or took the worker thread along.
pub fn run(mut call: Call<'_, '_>) -> Result<Ran, Stop> {
    match call.class {
        "EmptyImage" => Ok(Ran::one(Data::Image(Image {
            width: call.int("width") as u32,
            height: call.int("height") as u32,
            count: call.int("batch_size") as u32,
            color: call.int("color") as u32,
        }))),
        "ImageScale" => {
            let (width, height) = (call.int("width") as u32, call.int("height") as u32);
            Ok(Ran::one(Data::Image(Image { width, height, ..call.image() })))
        }
        "ImageInvert" => {
            let image = call.image();
            Ok(Ran::one(Data::Image(Image { color: !image.color & 0x00ff_ffff, ..image })))
        }
        "VAEDecode" | "TestLatentImage" => Ok(Ran::one(Data::Image(call.image()))),
        "LoadImage" => save::load(&call),
        "PrimitiveString" => Ok(Ran::one(Data::Text(call.text("value")))),
        "PreviewAny" => {
            let text = call.text("source");
            let ui = serde_json::json!({"text": [text]});
            Ok(Ran { outputs: vec![Data::Text(text)], ui: Some(ui) })
        }
        "KSampler" => test_nodes::sample(&mut call),
        class if class.starts_with("Test") => test_nodes::run(&mut call),
        class if class.starts_with("Save") || class == "PreviewImage" => save::save(&mut call),
        class if class.starts_with("Double") => test_nodes::double(&call),
        _ => Ok(Ran::one(Data::Opaque)),
    }
}

/// Classes that run again each time, whatever the cache has.
pub fn is_never_the_same(class: &str) -> bool {
    let timed = ["TestSteps", "TestBlock", "TestFail", "TestText", "SaveImageWebsocket"];
    timed.contains(&class) || class.starts_with("Double")
}

/// The lines of a stack that ends in a node.
pub fn traceback(kind: &str, message: &str) -> Vec<String> {
    let frames = [("execution.py", 545, "execute"), ("execution.py", 344, "get_output_data")];
    let frame = |(file, line, name)| format!("  File \"/opt/comfyui/{file}\", line {line}, in {name}\n");
    let last = format!("  File \"/opt/nodes.py\", line 72, in run\n    raise {kind}({message:?})\n");
    frames.into_iter().map(frame).chain([last]).collect()
}

/// What the switches want each job to leave: an unlisted file, and memory.
pub fn leave_behind(server: &Server) {
    if server.switches.fill_output > 0 {
        let name = format!("leftover-{}", uuid::Uuid::new_v4());
        let _ = std::fs::write(server.arguments.output.join(name), vec![0; server.switches.fill_output]);
    }
    keep_memory(server.switches.grow_mib);
}

/// Takes memory that is never given back.
fn keep_memory(mebibytes: usize) {
    static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    if mebibytes > 0 {
        KEPT.lock().unwrap().push(vec![1; mebibytes << 20]);
    }
}

fn seconds(amount: f64) -> Duration {
    Duration::from_secs_f64(amount)
}
