//! A daemon that is played: it answers what it is told to, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use crate::cli::{Invocation, Streams, Variables, parse, run};

/// One request, head and body.
#[derive(Debug, Clone)]
pub struct Asked {
    pub line: String,
    pub head: String,
    pub body: String,
}

/// Answers as many requests as it has answers, then ends.
pub struct Played {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<()>>,
}

impl Played {
    /// On a TCP port.
    pub fn on_port(answers: Vec<(u16, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(url, answers, move || listener.accept().unwrap().0)
    }

    /// On a TCP port, with answers that are made of the questions, `count` of them.
    pub fn answering(count: usize, make: impl FnMut(&Asked) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve_made(url, count, make, move || listener.accept().unwrap().0)
    }

    /// On a Unix socket.
    pub fn on_socket(path: &Path, answers: Vec<(u16, &str)>) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Self::serve(path.display().to_string(), answers, move || listener.accept().unwrap().0)
    }

    fn serve<S: Read + Write>(url: String, answers: Vec<(u16, &str)>, accept: impl Fn() -> S + Send + 'static) -> Self {
        let answers: Vec<(u16, String)> = answers.into_iter().map(|(status, body)| (status, body.to_owned())).collect();
        let count = answers.len();
        let mut answers = answers.into_iter();
        Self::serve_made(url, count, move |_| answers.next().unwrap(), accept)
    }

    fn serve_made<S: Read + Write>(
        url: String,
        count: usize,
        mut make: impl FnMut(&Asked) -> (u16, String) + Send + 'static,
        accept: impl Fn() -> S + Send + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let thread = spawn(move || {
            for _ in 0..count {
                answer(accept(), &mut make, &heard);
            }
        });
        Self { url, asked, thread: Some(thread) }
    }

    /// What it was asked, when all answers are given.
    pub fn asked(mut self) -> Vec<Asked> {
        self.thread.take().unwrap().join().unwrap();
        self.asked.lock().unwrap().clone()
    }
}

fn answer<S: Read + Write>(stream: S, make: &mut impl FnMut(&Asked) -> (u16, String), heard: &Mutex<Vec<Asked>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "the head ends early: {head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut sent = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut sent).unwrap();
    let line = head.lines().next().unwrap().to_owned();
    let asked = Asked { line, head, body: String::from_utf8(sent).unwrap() };
    let (status, body) = make(&asked);
    heard.lock().unwrap().push(asked);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
}

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub struct Did {
    pub code: u8,
    pub out: String,
    pub err: String,
}

/// Where and with what a command is run.
#[derive(Default)]
pub struct Setting<'a> {
    pub variables: Vec<(&'a str, String)>,
    pub input: &'a str,
    pub terminal: bool,
}

impl Setting<'_> {
    /// Runs `cloister` with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Did {
        let words = std::iter::once("cloister").chain(arguments.iter().copied()).map(Into::into);
        let command = match parse(words) {
            Invocation::Client(command) => command,
            Invocation::Ended(code) => {
                return Did { code, out: String::new(), err: String::new() };
            }
            other => panic!("not a client command: {other:?}"),
        };
        let known: Vec<(String, String)> =
            self.variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let variables =
            Variables::new(move |name| known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            input: Box::new(self.input.as_bytes()),
            out: Box::new(&mut out),
            err: Box::new(&mut err),
            terminal: self.terminal,
        };
        let code = run(command, &variables, &mut streams);
        drop(streams);
        Did { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }
}

/// Runs a command that speaks to `played`, with a token.
pub fn run_with(played: &Played, arguments: &[&str]) -> Did {
    let variables = vec![("CLOISTER_URL", played.url.clone()), ("BEARER_TOKEN", "secret".to_owned())];
    Setting { variables, ..Setting::default() }.run(arguments)
}
