//! As much HTTP/1.1 as workers and clients speak.

use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::exchange::{Call, Exchange};

/// An answer to write.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: None, headers: Vec::new(), body: Vec::new() }
    }

    pub fn json(status: u16, body: &Value) -> Self {
        let content_type = Some("application/json".to_owned());
        Self { content_type, body: body.to_string().into_bytes(), ..Self::empty(status) }
    }
}

/// One connection, with what was read too far.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// The next request without its body; nothing when the other end is gone.
    pub async fn head(&mut self) -> Option<Exchange> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let mut lines = head.lines();
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Some(Exchange {
            call: call(path),
            arrived: Instant::now(),
            whole: None,
            method,
            path: path.to_owned(),
            query: query.split('&').filter_map(|pair| pair.split_once('=')).map(decoded).collect(),
            headers: lines.filter_map(header).collect(),
            body: Vec::new(),
            answered: None,
            abandoned: false,
            target,
        })
    }

    /// The body that belongs to a head.
    pub async fn body(&mut self, head: &Exchange) -> Option<Vec<u8>> {
        if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.chunks().await;
        }
        let length = head.header("content-length").map_or(Some(0), |text| text.parse().ok())?;
        if head.header("expect").is_some() {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        self.exactly(length).await
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = find(&self.read, b"\r\n") {
                    break end;
                }
                self.more().await?;
            };
            let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
            self.read.drain(..end + 2);
            let length = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            body.extend(self.exactly(length).await?);
            self.exactly(2).await?;
            if length == 0 {
                return Some(body);
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            self.more().await?;
        }
        Some(self.read.drain(..length).collect())
    }

    async fn more(&mut self) -> Option<()> {
        let count = self.stream.read_buf(&mut self.read).await.ok()?;
        (count > 0).then_some(())
    }

    /// Returns when the other end is gone; what it sends meanwhile is kept.
    pub async fn gone(&mut self) {
        while self.more().await.is_some() {}
    }

    /// Writes an answer; nothing when the other end is gone.
    pub async fn answer(&mut self, answer: &Answer) -> Option<()> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, reason(answer.status));
        if let Some(content_type) = &answer.content_type {
            head.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if answer.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(&answer.body);
        self.stream.write_all(&bytes).await.ok()
    }

    /// Ends the connection with a reset instead of a farewell.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }
}

fn call(path: &str) -> Call {
    match path.split('/').nth(3) {
        Some("job-take" | "job-take-batch") => Call::Take,
        Some("job-done") => Call::Done,
        Some("job-stream") => Call::Stream,
        Some("job-stop") => Call::Stop,
        Some("ping") => Call::Ping,
        _ => Call::Client,
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400..500 => "Client Error",
        500..600 => "Server Error",
        _ => "Other",
    }
}

fn decoded((name, value): (&str, &str)) -> (String, String) {
    (percent(name), percent(value))
}

/// `%41` and `+`, as forms write them.
fn percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match (first, hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}
