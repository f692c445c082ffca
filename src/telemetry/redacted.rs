//! User data that cannot be logged by accident.

use std::fmt;

use slog::{Key, Record, Serializer, Value};

/// Holds something of a user's. However it is printed, only its length is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for work and never for a log.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted {} bytes]", self.0.as_ref().len())
    }
}

impl<T: AsRef<[u8]>> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: AsRef<[u8]>> Value for Redacted<T> {
    fn serialize(&self, _record: &Record<'_>, key: Key, serializer: &mut dyn Serializer) -> slog::Result {
        serializer.emit_arguments(key, &format_args!("{self}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_length_is_shown() {
        let value = Redacted::new("hunter2".to_owned());
        assert_eq!(
            format!("{value} {value:?} {value:#?}"),
            ["[redacted 7 bytes]"; 3].join(" ")
        );
        assert_eq!(value.expose(), "hunter2");
    }
}
