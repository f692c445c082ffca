//! Against the recorded dialogues, the double, and the real ComfyUI.

mod double;
mod faults;
mod real;
mod recorded;
mod start_and_stop;
mod support;

pub(super) use self::support::settings;
