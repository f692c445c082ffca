//! What the real ComfyUI said, word for word against the double.
//!
//! The requests of a dialogue are sent again, each once everything has been heard that came before it in the recording;
//! answers and messages are compared by status, type, keys and values. Waiting times of nodes are shortened.

use std::collections::HashMap;

use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::alike::alike;
use super::comfy::{Comfy, PATIENCE};
use super::dialogue::{lines, names, parse, put_in};
use crate::support::eventually;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where the recorded server had its folders.
const RECORDED_HOME: &str = "/dev/shm/cf-8461";
/// By so much the nodes of the dialogues wait less.
const HASTE: f64 = 0.5;

/// A request, its body as it was written: the order of a prompt's nodes matters.
#[derive(Deserialize)]
struct Request {
    id: u64,
    method: String,
    path: String,
    #[serde(default)]
    headers: HashMap<String, String>,
    json: Option<Box<RawValue>>,
    raw: Option<String>,
    form: Option<Form>,
}

#[derive(Deserialize)]
struct Form {
    file_field: Option<String>,
    filename: String,
    bytes: usize,
    #[serde(flatten)]
    fields: HashMap<String, String>,
}

/// An answer as it came.
struct Answer {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

/// One dialogue under way.
struct Replay<'a> {
    comfy: &'a Comfy,
    name: &'a str,
    learned: Vec<(String, String)>,
    sockets: HashMap<String, Socket>,
    answers: HashMap<u64, Answer>,
    /// The last length of the queue: recorded, heard.
    remaining: (Value, Value),
    /// Steps may have been missed when the dialogue was recorded, or another may come before an interrupt does.
    gaps: bool,
}

impl<'a> Replay<'a> {
    fn new(comfy: &'a Comfy, name: &'a str, learned: Vec<(String, String)>) -> Self {
        Self {
            comfy,
            name,
            learned,
            sockets: HashMap::new(),
            answers: HashMap::new(),
            remaining: (Value::Null, Value::Null),
            gaps: name.contains("/5") || name.contains("/6"),
        }
    }

    /// To the end; what was learned on the way.
    async fn run(mut self) -> Vec<(String, String)> {
        let lines = lines(self.name);
        for (number, line) in lines.iter().enumerate() {
            let entry = parse(line, &self.learned);
            let conn = entry["conn"].as_str().unwrap_or_default().to_owned();
            match entry["kind"].as_str().unwrap() {
                "ws_open_request" => self.open(&conn, entry["path"].as_str().unwrap()).await,
                "ws_text" if entry["dir"] == "c2s" => self.say(&conn, &entry["json"]).await,
                "ws_text" => self.hear(number, &conn, &entry["json"]).await,
                "ws_binary" => self.hear(number, &conn, &json!({"binary": binary_shape(&entry["decoded"])})).await,
                "ws_close" if entry["dir"] == "c2s" => self.close(&conn).await,
                "http_request" => self.ask(line, &lines[number..]).await,
                "http_response" if entry["id"].is_u64() => self.compare(number, &entry),
                "note" => self.note(entry["text"].as_str().unwrap()),
                _ => {}
            }
        }
        for conn in self.sockets.keys().cloned().collect::<Vec<_>>() {
            self.close(&conn).await;
        }
        assert_eq!(self.remaining.0, self.remaining.1, "{}: the last length of the queue", self.name);
        self.learned
    }

    async fn open(&mut self, conn: &str, path: &str) {
        let url = format!("ws://127.0.0.1:{}{path}", self.comfy.port);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        self.sockets.insert(conn.to_owned(), socket);
    }

    async fn say(&mut self, conn: &str, text: &Value) {
        self.sockets.get_mut(conn).unwrap().send(Message::text(text.to_string())).await.unwrap();
    }

    /// Hears the last length of the queue, and goes.
    async fn close(&mut self, conn: &str) {
        let Some(mut socket) = self.sockets.remove(conn) else { return };
        while self.remaining.0 != self.remaining.1 {
            let Ok(Some(Ok(message))) = tokio::time::timeout(PATIENCE, socket.next()).await else { break };
            let heard: Value =
                message.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            self.remaining.1 = heard["data"].get("status").unwrap_or(&self.remaining.1).clone();
        }
        let _ = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
    }

    /// Waits for the message that comes next; the length of the queue is only noted.
    async fn hear(&mut self, number: usize, conn: &str, recorded: &Value) {
        let place = format!("{}:{}", self.name, number + 1);
        if let Some(status) = recorded["data"].get("status") {
            self.remaining.0 = status.clone();
            return;
        }
        loop {
            let socket = self.sockets.get_mut(conn).unwrap();
            let next = tokio::time::timeout(PATIENCE, socket.next()).await;
            let message = next.unwrap_or_else(|_| panic!("{place}: silence instead of {recorded}"));
            let heard = match message.unwrap().unwrap() {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                Message::Binary(bytes) => json!({"binary": binary_shape(&decode(&bytes))}),
                _ => continue,
            };
            if let Some(status) = heard["data"].get("status") {
                self.remaining.1 = status.clone();
                continue;
            }
            match alike(recorded, &heard, &mut self.learned) {
                Ok(()) => return,
                Err(_) if self.gaps && is_progress(&heard) => {}
                Err(differs) => panic!("{place}: {differs}"),
            }
        }
    }

    /// Sends a request, and learns the id that the server chose.
    async fn ask(&mut self, line: &str, rest: &[String]) {
        let request: Request = serde_json::from_str(&hasten(&put_in(line, &self.learned))).unwrap();
        let wanted = rest.iter().map(|line| parse(line, &self.learned));
        let mut wanted = wanted.filter(|entry| entry["kind"] == "http_response" && entry["id"] == request.id);
        let recorded = wanted.next().unwrap_or_default();
        let mut answer = self.send(&request).await;
        // What is booked after the last message may be late.
        if request.method == "GET" && recorded["json"] != json!({}) {
            let patience = tokio::time::Instant::now() + PATIENCE;
            while answer.body == b"{}" && tokio::time::Instant::now() < patience {
                answer = self.send(&request).await;
            }
        }
        let own: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let (Some(recorded), Some(own)) = (recorded["json"]["prompt_id"].as_str(), own["prompt_id"].as_str()) {
            self.learned.push((recorded.to_owned(), own.to_owned()));
            self.taken().await;
        }
        self.answers.insert(request.id, answer);
    }

    /// Waits until the worker has a job, or nothing waits: a later prompt might overtake the first.
    async fn taken(&self) {
        eventually("the worker at work", PATIENCE, async || {
            let queue = self.comfy.get("/queue").await;
            let idle = queue["queue_running"] == json!([]) && queue["queue_pending"] != json!([]);
            if idle { Err(queue.to_string()) } else { Ok(()) }
        })
        .await;
    }

    async fn send(&self, request: &Request) -> Answer {
        let method = Method::from_bytes(request.method.as_bytes()).unwrap();
        let mut sent = self.comfy.http.request(method, self.comfy.url(&request.path)).timeout(PATIENCE);
        for (name, value) in &request.headers {
            sent = sent.header(name, value);
        }
        sent = match (&request.json, &request.raw, &request.form) {
            (Some(json), ..) => sent.body(json.get().to_owned()),
            (_, Some(raw), _) => sent.body(raw.clone()),
            (_, _, Some(form)) => {
                sent.header("Content-Type", "multipart/form-data; boundary=xYzZY").body(multipart(form))
            }
            _ => sent,
        };
        let answer: Response = sent.send().await.unwrap();
        let content_type = answer.headers().get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
        Answer { status: answer.status().as_u16(), content_type, body: answer.bytes().await.unwrap().to_vec() }
    }

    fn compare(&mut self, number: usize, recorded: &Value) {
        let place = format!("{}:{}", self.name, number + 1);
        let answer = self.answers.remove(&recorded["id"].as_u64().unwrap()).unwrap();
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(u64::from(answer.status), recorded["status"], "{place}: {shown}");
        let content_type = recorded["headers"]["Content-Type"].as_str().unwrap_or_default();
        if answer.status != 404 {
            assert_eq!(answer.content_type, content_type, "{place}");
        }
        if recorded["json"].is_object() || recorded["json"].is_array() {
            let own: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{place}: {shown}"));
            let hastened = serde_json::from_str(&hasten(&python(&recorded["json"]))).unwrap();
            alike(&hastened, &own, &mut self.learned).unwrap_or_else(|differs| panic!("{place}: {differs}"));
        } else if let Some(text) = recorded["text"].as_str() {
            assert_eq!(shown, text, "{place}");
        } else if let Some(length) = recorded["body"]["len"].as_u64() {
            assert_eq!(answer.body.is_empty(), length == 0, "{place}");
            assert_eq!(magic(&answer.body), magic(&unhex(&recorded["body"]["first_hex"])), "{place}");
        }
    }

    /// What the person at the recorder did beside the dialogue.
    fn note(&self, text: &str) {
        if text.starts_with("delete the output file on disk") {
            for file in std::fs::read_dir(self.comfy.folder("out")).unwrap() {
                std::fs::remove_file(file.unwrap().path()).unwrap();
            }
        }
    }
}

fn is_progress(message: &Value) -> bool {
    message["binary"].is_object() || message["type"].as_str().is_some_and(|kind| kind.starts_with("progress"))
}

/// As Python writes JSON: a space after each colon and comma.
fn python(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

/// Shortens the waiting times of nodes in a text of JSON.
fn hasten(text: &str) -> String {
    ["\"delay\": ", "\"seconds\": "].into_iter().fold(text.to_owned(), |text, key| {
        let mut parts = text.split(key);
        let mut hastened = parts.next().unwrap().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(part.len());
            let wait: f64 = part[..end].parse().unwrap();
            hastened.push_str(&format!("{key}{}{}", wait * HASTE, &part[end..]));
        }
        hastened
    })
}

/// The parts of a binary frame that do not depend on the picture.
fn binary_shape(decoded: &Value) -> Value {
    let mut shape = decoded.clone();
    if let Some(fields) = shape.as_object_mut() {
        fields.remove("image_first_hex");
    }
    shape
}

/// A binary frame in the recorder's words.
fn decode(bytes: &[u8]) -> Value {
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let (event, next) = (number(0), number(4));
    let head = || &bytes[8..8 + next as usize];
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match event {
        1 => json!({"event": event, "image_type": next}),
        3 => json!({"event": event, "node_id": text(head()), "text": text(&bytes[8 + next as usize..])}),
        _ => json!({"event": event, "metadata": serde_json::from_slice::<Value>(head()).unwrap()}),
    }
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// What tells the kind of a file, and the size of a PNG.
fn magic(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [0x89, b'P', ..] => [&bytes[..4], bytes.get(16..24).unwrap_or_default()].concat(),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => bytes[4..8].to_vec(),
        [_, _, 0, 0, 0, 0, 0, 0, b'{', ..] => vec![b'{'],
        _ => bytes.iter().take(4).copied().collect(),
    }
}

/// The recorded form, with bytes that begin like a PNG where they are long enough.
fn multipart(form: &Form) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x30\0\0\0\x20".to_vec();
    file.resize(form.bytes.max(file.len()), 0);
    if form.bytes < file.len() {
        file = vec![b'x'; form.bytes];
    }
    let mut body = Vec::new();
    let mut part = |head: String, data: &[u8]| {
        body.extend(format!("--xYzZY\r\nContent-Disposition: form-data; {head}\r\n\r\n").into_bytes());
        body.extend(data);
        body.extend(b"\r\n");
    };
    if let Some(field) = &form.file_field {
        let filename = form.filename.replace(' ', "%20").replace("../", "..%2F");
        part(format!("name=\"{field}\"; filename=\"{filename}\""), &file);
    }
    for (name, value) in &form.fields {
        part(format!("name=\"{name}\""), value.as_bytes());
    }
    body.extend(b"--xYzZY--\r\n");
    body
}

/// Replays the dialogues whose names begin with one of the numbers on one server, as they were recorded.
async fn replay(version: &str, numbers: &[&str]) {
    let comfy = Comfy::start(&[], &[]).await;
    let mut learned = vec![(RECORDED_HOME.to_owned(), comfy.home.path().to_str().unwrap().to_owned())];
    for name in names(&format!("comfyui/{version}")) {
        let number = name.rsplit('/').next().unwrap().split('_').next().unwrap().to_owned();
        if numbers.iter().any(|wanted| number.starts_with(wanted)) {
            learned = Replay::new(&comfy, &name, learned).run().await;
        }
    }
}

#[tokio::test]
async fn comfyui_jobs_of_every_kind_and_every_refusal() {
    replay("v0.30.0", &["1", "2", "3", "4"]).await;
}

#[tokio::test]
async fn comfyui_interrupts_queue_history_cache_and_sockets_that_come_back() {
    replay("v0.30.0", &["5", "6"]).await;
}

#[tokio::test]
async fn comfyui_samplers() {
    replay("v0.33.0", &["9"]).await;
}

#[tokio::test]
async fn comfyui_zombies() {
    replay("v0.33.0", &["80"]).await;
    replay("v0.33.0", &["81"]).await;
}
