//! The switches of the environment; `main.rs` documents them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How this start goes.
pub enum Start {
    Ok,
    Never,
    Exit(i32),
    Delay(Duration),
}

/// What befalls the process while a job runs.
#[derive(Clone)]
pub enum Fault {
    Exit(i32),
    Segv,
    Abort,
    Kill,
    Stop,
    Freeze(Duration),
    Zombie,
}

/// What befalls every WebSocket.
#[derive(Clone, Copy)]
pub enum WsFault {
    DropAfter(u64),
    Slow(Duration),
    SilentAfter(u64),
}

/// Processes that sleep beside the double.
#[derive(Clone, Copy, Default)]
pub struct Children {
    pub count: u32,
    pub detached: bool,
}

/// All switches of one start.
pub struct Switches {
    pub start: Start,
    /// While the job after so many runs.
    pub fault: Option<(u64, Fault)>,
    pub ws: Option<WsFault>,
    /// Path prefix, and how many requests at most.
    pub http_500: Option<(String, u64)>,
    pub history_delay: Duration,
    pub ignore_sigterm: bool,
    pub children: Children,
    pub fill_output: usize,
    pub grow_mib: usize,
    pub log: bool,
}

impl Switches {
    /// Reads the environment and the file, and counts this start.
    pub fn read() -> Self {
        let values = values();
        let get = |name: &str| values.get(name).map(String::as_str);
        let number = |name: &str| get(name).map_or(0, |text| text.parse().expect("a number"));
        Self {
            start: get("STARTS").map_or(Start::Ok, this_start),
            fault: get("FAULT_AFTER").map(fault_after),
            ws: get("WS").map(ws_fault),
            http_500: get("HTTP_500").map(|text| match text.split_once(':') {
                Some((count, prefix)) => (prefix.to_owned(), count.parse().expect("a count")),
                None => (text.to_owned(), u64::MAX),
            }),
            history_delay: Duration::from_millis(number("HISTORY_DELAY_MS") as u64),
            ignore_sigterm: get("IGNORE_SIGTERM") == Some("1"),
            children: get("CHILDREN").map(children).unwrap_or_default(),
            fill_output: number("FILL_OUTPUT"),
            grow_mib: number("GROW_MIB"),
            log: get("LOG") == Some("1"),
        }
    }
}

/// Name without prefix → value; the file wins over the environment.
fn values() -> HashMap<String, String> {
    let own = |(name, value): (String, String)| Some((name.strip_prefix("COMFY_DOUBLE_")?.to_owned(), value));
    let mut values: HashMap<String, String> = std::env::vars().filter_map(own).collect();
    let file = std::fs::read_to_string(beside_script("comfy_double.env")).unwrap_or_default();
    let lines = file.lines().filter_map(|line| line.trim().split_once('='));
    values.extend(lines.filter_map(|(name, value)| own((name.to_owned(), value.to_owned()))));
    values
}

/// A file in the folder of `main.py`, which the first argument names.
fn beside_script(name: &str) -> PathBuf {
    let script = std::env::args().nth(1).unwrap_or_default();
    Path::new(&script).with_file_name(name)
}

/// The entry of the list that belongs to this start.
fn this_start(list: &str) -> Start {
    let count = beside_script("comfy_double.starts");
    let before = std::fs::read(&count).map_or(0, |marks| marks.len());
    std::fs::write(count, "x".repeat(before + 1)).expect("ComfyUI's folder takes the count");
    let entries: Vec<&str> = list.split(',').collect();
    let entry = entries[before.min(entries.len() - 1)];
    match entry.split_once(':') {
        Some(("exit", code)) => Start::Exit(code.parse().expect("an exit code")),
        Some(("delay", pause)) => Start::Delay(milliseconds(pause)),
        None if entry == "never" => Start::Never,
        _ => Start::Ok,
    }
}

fn fault_after(text: &str) -> (u64, Fault) {
    let (count, what) = text.split_once(':').expect("N:fault");
    let fault = match what.split_once(':') {
        Some(("exit", code)) => Fault::Exit(code.parse().expect("an exit code")),
        Some(("freeze", pause)) => Fault::Freeze(milliseconds(pause)),
        None if what == "segv" => Fault::Segv,
        None if what == "abort" => Fault::Abort,
        None if what == "kill" => Fault::Kill,
        None if what == "stop" => Fault::Stop,
        None if what == "zombie" => Fault::Zombie,
        _ => panic!("no such fault: {what}"),
    };
    (count.parse().expect("a count of jobs"), fault)
}

fn ws_fault(text: &str) -> WsFault {
    let (what, amount) = text.split_once(':').expect("what:amount");
    let count = || amount.parse().expect("a count of messages");
    match what {
        "drop" => WsFault::DropAfter(count()),
        "slow" => WsFault::Slow(milliseconds(amount)),
        "silent" => WsFault::SilentAfter(count()),
        _ => panic!("no such fault of a socket: {what}"),
    }
}

fn children(text: &str) -> Children {
    let (count, detached) = match text.split_once(':') {
        Some((count, "detached")) => (count, true),
        _ => (text, false),
    };
    Children { count: count.parse().expect("a count of children"), detached }
}

fn milliseconds(text: &str) -> Duration {
    Duration::from_millis(text.parse().expect("milliseconds"))
}
