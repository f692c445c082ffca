//! What the service manager is told.

/// Speaks to the service manager, or to nobody when there is none. Never fails: a lost notice must not stop the daemon.
pub trait ServiceNotifier: Send + Sync {
    /// The daemon answers on its doors.
    fn ready(&self);
    /// A line for `systemctl status`.
    fn status(&self, text: &str);
    /// Every beat is fresh.
    fn watchdog(&self);
    /// The drain has begun.
    fn stopping(&self);
}
