//! Exit codes, after sysexits(3).

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Drained as asked.
    Fine,
    /// A client command failed, a check found something, or the daemon gave its place up to another one.
    Failed,
    /// A port, a socket or the state directory cannot be had (EX_UNAVAILABLE).
    Unavailable,
    /// An essential part gave up (EX_SOFTWARE).
    GaveUp,
    /// The configuration is wrong (EX_CONFIG).
    Config,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Unavailable => 69,
            Exit::GaveUp => 70,
            Exit::Config => 78,
        }
    }
}
