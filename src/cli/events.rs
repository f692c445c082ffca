//! Reads a stream of events (`text/event-stream`) as it comes, of the daemon's own kind: names, data, comments.

/// An event: its name, and its lines of data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

/// Puts events together from pieces of any size.
#[derive(Debug, Default)]
pub struct EventReader {
    line: Vec<u8>,
    event: Event,
}

impl EventReader {
    /// The events that this piece completes.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut whole = Vec::new();
        for &byte in piece {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            match line.split_once(": ") {
                _ if line.is_empty() => {
                    let event = std::mem::take(&mut self.event);
                    whole.extend((event != Event::default()).then_some(event));
                }
                Some(("event", name)) => self.event.name = name.to_owned(),
                Some(("data", data)) => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(data);
                }
                // An id, a comment, or a field of a later version.
                _ => {}
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_come() {
        let text = ": still running\n\nid: 1\nevent: stdout\ndata: {\"text\":\"é: x\"}\n\nid: 2\nevent: result\ndata: {\ndata: }\n\n";
        for cut in 1..text.len() {
            let mut reader = EventReader::default();
            let events: Vec<Event> = text.as_bytes().chunks(cut).flat_map(|piece| reader.push(piece)).collect();
            let seen: Vec<(&str, &str)> =
                events.iter().map(|event| (event.name.as_str(), event.data.as_str())).collect();
            assert_eq!(seen, [("stdout", "{\"text\":\"é: x\"}"), ("result", "{\n}")], "{cut}");
        }
    }
}
