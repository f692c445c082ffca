//! A call's answer as a stream of events while it runs (`text/event-stream`, the HTML standard's section 9.2).
//!
//! ```text
//!   (log | stdout | stderr | dropped)*   then   result | error
//! ```
//!
//! `result` carries the JSON of the plain answer, `error` the body of the plain refusal. Ids count from 1.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::api::answer;
use crate::api::dto::{DroppedEvent, LogBody, OutputEvent};
use crate::api::ears::{Ears, Heard};
use crate::domain::execution::Said;
use crate::ports::clock::Clock;

const EVENT_STREAM: &str = "text/event-stream";
/// A silent call is told to be alive this often: proxies close what is silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Asks nginx, and what speaks like it, not to collect the stream before passing it on.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Whether a caller asks for events.
pub fn are_wanted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    let mut types = values.flat_map(|value| value.split(',')).filter_map(|entry| entry.split(';').next());
    types.any(|kind| kind.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

/// The last event: its name, and its JSON.
pub struct Last {
    pub name: &'static str,
    pub json: String,
}

/// What becomes of a call, some time.
pub type Ending = Pin<Box<dyn Future<Output = Last>>>;

/// An answer that goes on until `ending` is there. `caller` is dropped when whoever reads is gone.
pub fn stream(ears: Arc<Ears>, ending: Ending, caller: oneshot::Sender<()>, clock: Arc<dyn Clock>) -> HttpResponse {
    let follow = Follow { ears, ending: Some(ending), events: Events::default(), clock, _caller: caller };
    let body = unfold(follow, Follow::next);
    let response = HttpResponse::build(StatusCode::OK)
        .content_type(EVENT_STREAM)
        .insert_header(NO_BUFFERING)
        .streaming::<_, Infallible>(Box::pin(body));
    answer::named(response, "followed")
}

struct Follow {
    ears: Arc<Ears>,
    /// None once the last event has been given.
    ending: Option<Ending>,
    events: Events,
    clock: Arc<dyn Clock>,
    _caller: oneshot::Sender<()>,
}

impl Follow {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let ending = self.ending.as_mut()?;
        let (heard, last) = tokio::select! {
            biased;
            heard = self.ears.listen() => (heard, None),
            // What was said before the end is told before it.
            last = ending => (self.ears.take(), Some(last)),
            () = sleep(KEEP_ALIVE) => (Vec::new(), None),
        };
        for piece in heard {
            self.tell(piece);
        }
        if let Some(last) = last {
            self.events.add(last.name, &last.json);
            self.ending = None;
        }
        Some((Ok(self.events.take()), self))
    }

    fn tell(&mut self, heard: Heard) {
        match heard {
            Heard::Said(Said::Log(entry)) => self.events.add_json("log", &LogBody::new(entry, self.clock.wall())),
            Heard::Said(Said::Stdout(text)) => self.events.add_json("stdout", &OutputEvent { text }),
            Heard::Said(Said::Stderr(text)) => self.events.add_json("stderr", &OutputEvent { text }),
            Heard::Dropped(events) => self.events.add_json("dropped", &DroppedEvent { events }),
        }
    }
}

/// Events that were written and not sent yet.
#[derive(Default)]
struct Events {
    text: String,
    count: u64,
}

impl Events {
    fn add_json<T: Serialize>(&mut self, name: &str, data: &T) {
        // Strings and numbers only: nothing of it can fail to be written.
        self.add(name, &serde_json::to_string(data).unwrap_or_default());
    }

    fn add(&mut self, name: &str, data: &str) {
        self.count += 1;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "id: {}\nevent: {name}", self.count);
        // A line end in JSON is white space: each line is a line of data, whichever way it ends.
        for line in data.split(['\n', '\r']) {
            let _ = writeln!(self.text, "data: {line}");
        }
        self.text.push('\n');
    }

    /// What is to be sent next; a comment when there is nothing.
    fn take(&mut self) -> Bytes {
        match std::mem::take(&mut self.text) {
            nothing if nothing.is_empty() => Bytes::from_static(b": still running\n\n"),
            text => Bytes::from(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_number_a_name_and_its_lines() {
        let mut events = Events::default();
        events.add("result", "{\"a\":\n1}");
        events.add_json("stdout", &OutputEvent { text: "a\nb\r".into() });
        let text =
            "id: 1\nevent: result\ndata: {\"a\":\ndata: 1}\n\nid: 2\nevent: stdout\ndata: {\"text\":\"a\\nb\\r\"}\n\n";
        assert_eq!(events.take(), text);
        assert_eq!(events.take(), ": still running\n\n");
    }

    #[test]
    fn events_are_wanted_by_whoever_accepts_them_by_name() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(text));
            are_wanted(&headers)
        };
        assert!(of("text/event-stream") && of("application/json, Text/Event-Stream;q=0.9"));
        assert!(!of("*/*") && !of("text/*") && !of("application/json") && !are_wanted(&HeaderMap::new()));
    }
}
