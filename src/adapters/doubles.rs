//! A small HTTP server for the tests of adapters that speak HTTP: each request is shown to a script, which writes what it
//! likes to the connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A server that listens on a port of its own until the tests end.
pub struct Server {
    pub address: SocketAddr,
    /// Every request, as soon as it has been read whole.
    pub seen: UnboundedReceiver<Request>,
}

impl Server {
    /// Serves each connection on a thread of its own. A script that closes the connection ends it.
    pub fn start(script: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tell, seen) = unbounded_channel();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tell, script) = (tell.clone(), Arc::clone(&script));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                    let mut writer = stream;
                    while let Some(request) = read(&mut reader) {
                        let _nobody_looks = tell.send(request.clone());
                        script(&request, &mut writer);
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// The next request.
    pub async fn next(&mut self) -> Request {
        self.seen.recv().await.expect("the server lives")
    }
}

/// Writes a whole answer. Its length is told unless the headers do, or it has no body by its status.
pub fn answer(to: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 204 && headers.iter().all(|(name, _)| *name != "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let _caller_left = to.write_all(&[head.as_bytes(), body].concat());
}

/// Writes a whole answer of JSON.
pub fn json(to: &mut TcpStream, status: u16, body: &str) {
    answer(to, status, &[("Content-Type", "application/json")], body.as_bytes());
}

/// Ends the connection with a reset where the peer has sent more than was read, else with an end.
pub fn cut(to: &mut TcpStream) {
    let _gone = to.shutdown(std::net::Shutdown::Both);
}

fn read(from: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, length)| length.parse());
    let mut body = vec![0; length.and_then(Result::ok).unwrap_or(0)];
    from.read_exact(&mut body).ok()?;
    Some(Request { method, target, headers, body })
}
