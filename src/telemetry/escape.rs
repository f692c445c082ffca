//! Characters that could steer a terminal or reorder a line never reach it raw.

use std::borrow::Cow;
use std::io::{self, Write};

/// Control characters (C0 with ESC, DEL, C1) and those that turn the direction of text or break lines.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text with hostile characters written out, such as `\n` and `\u{1b}`.
pub(super) fn for_people(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) {
            escaped.extend(c.escape_default())
        } else {
            escaped.push(c)
        }
    }
    Cow::Owned(escaped)
}

/// Takes JSON text and passes it on with what JSON allows raw, and a terminal should not see, as `\u009b`. A line break
/// ends a record and stays: within strings JSON has escaped it already.
pub(super) struct JsonWriter<W>(pub(super) W);

impl<W: Write> Write for JsonWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let hostile = |c: char| c != '\n' && is_hostile(c);
        if !text.contains(hostile) {
            self.0.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            if hostile(c) {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)))
            } else {
                escaped.push(c)
            }
        }
        self.0.write_all(escaped.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
