//! placeholder
/// A supervised child's stable name.
pub type ChildName = &'static str;

/// Counts a child's lives; facts from an earlier life are recognised by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It panicked, or stopped without being asked.
    Crashed,
    /// It was asked to.
    Requested,
}
