//! systemd's notification socket (`sd_notify(3)`), or nobody where `NOTIFY_SOCKET` is not set.

use sd_notify::NotifyState;

use crate::ports::notify::ServiceNotifier;

/// The longest status line that is sent, in bytes.
const STATUS_BYTES: usize = 512;

/// Speaks to systemd. Notices are lost silently when the socket does not take them.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemdNotifier;

impl ServiceNotifier for SystemdNotifier {
    fn ready(&self) {
        send(NotifyState::Ready);
    }

    fn status(&self, text: &str) {
        send(NotifyState::Status(&status_line(text)));
    }

    fn watchdog(&self) {
        send(NotifyState::Watchdog);
    }

    fn stopping(&self) {
        send(NotifyState::Stopping);
    }
}

fn send(state: NotifyState<'_>) {
    // A notice that cannot be delivered must not stop the daemon; systemd itself acts on missing ones.
    let _ = sd_notify::notify(&[state]);
}

/// One line: a line break would begin the next assignment of the protocol.
fn status_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = STATUS_BYTES.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_a_second_assignment() {
        assert_eq!(status_line("degraded\nREADY=1"), "degraded READY=1");
        assert_eq!(status_line(&"é".repeat(1000)).len(), STATUS_BYTES);
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        SystemdNotifier.ready();
        SystemdNotifier.status("fine");
        SystemdNotifier.stopping();
    }
}
