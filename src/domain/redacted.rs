//! User data that cannot be logged by accident.
//!
//! What handlers are sent, return and print is held in types whose `Debug` shows lengths only. Types that hold more
//! of it than an answer does (`Call`, `SetUpRequest`) have no `Debug` at all.

use std::fmt;

/// Stands for a user's text in a `Debug` output: only its length is shown.
pub struct Redacted(usize);

impl Redacted {
    /// Stands for `text`.
    pub fn of(text: &str) -> Self {
        Self(text.len())
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted {} bytes]", self.0)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::execution::{Captured, ErrorReport, LogEntry, Settlement};

    #[test]
    fn nothing_of_a_users_is_in_a_debug_output() {
        let text = || "hunter2".to_owned();
        let all = format!(
            "{:?} {:?} {:?} {:?}",
            Captured { text: text(), dropped_bytes: 3 },
            LogEntry { level: "log".into(), message: text(), timestamp: 0.0 },
            ErrorReport { name: text(), message: text(), stack: text() },
            Settlement::Result(text()),
        );
        assert!(!all.contains("hunter2") && all.contains("[redacted 7 bytes]"), "{all}");
    }
}
