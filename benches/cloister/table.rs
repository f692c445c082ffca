//! The printed table and `bench/results.json`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

/// One measured row.
pub struct Row {
    pub name: &'static str,
    pub what: String,
    /// Start point, end point, concurrency, what was warm.
    pub measure: String,
    pub ours: f64,
    pub p90: Option<f64>,
    pub worst: f64,
    /// The floor's or the rival's median, and what it is.
    pub floor: Option<f64>,
    pub floor_is: &'static str,
    pub unit: &'static str,
    pub goal: &'static str,
    pub met: bool,
    pub tried: usize,
    pub failed: usize,
}

impl Row {
    /// Spans of ours beside those of RunPod's SDK, of which the median is to be `most` at most.
    pub fn beside_sdk(ours: &[Duration], sdk: &[Duration], most: Duration) -> Self {
        Self {
            name: "",
            what: String::new(),
            measure: String::new(),
            ours: millis(median(ours)),
            p90: Some(millis(ninetieth(ours))),
            worst: millis(worst(ours)),
            floor: Some(millis(median(sdk))),
            floor_is: "RunPod SDK",
            unit: "ms",
            goal: "",
            met: median(ours) <= most,
            tried: 0,
            failed: 0,
        }
    }
}

#[derive(Default)]
pub struct Table(Vec<Row>);

/// The middle value; zero of nothing.
pub fn median(spans: &[Duration]) -> Duration {
    let mut sorted = spans.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The 90th percentile; zero of nothing.
pub fn ninetieth(spans: &[Duration]) -> Duration {
    let mut sorted = spans.to_vec();
    sorted.sort();
    sorted.get((sorted.len() * 9).div_ceil(10).saturating_sub(1)).copied().unwrap_or_default()
}

/// The 99th percentile; zero of nothing.
pub fn ninety_ninth(spans: &[Duration]) -> Duration {
    let mut sorted = spans.to_vec();
    sorted.sort();
    sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

pub fn worst(spans: &[Duration]) -> Duration {
    spans.iter().copied().max().unwrap_or_default()
}

pub fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

impl Table {
    pub fn add(&mut self, row: Row) {
        eprintln!("{} {}: {} {}", row.name, row.what, figure(row.ours), row.unit);
        self.0.push(row);
    }

    pub fn print(&self) {
        println!(
            "\n{:<4} {:<56} {:>10} {:>8} {:>8} {:>8} {:>7}  {:<20} ok",
            "row", "what", "median", "p90", "worst", "floor", "ratio", "goal"
        );
        for row in &self.0 {
            let or_none = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
            let ratio = row.floor.map_or_else(|| "-".to_owned(), |floor| format!("{:.3}", row.ours / floor));
            let met = if row.met && row.failed == 0 { "reached" } else { "NOT REACHED" };
            let (ours, worst) = (format!("{} {}", figure(row.ours), row.unit), figure(row.worst));
            let (p90, floor) = (or_none(row.p90), or_none(row.floor));
            println!(
                "{:<4} {:<56} {ours:>10} {p90:>8} {worst:>8} {floor:>8} {ratio:>7}  {:<20} {met}",
                row.name, row.what, row.goal
            );
            let floor_is = if row.floor_is.is_empty() { String::new() } else { format!("; floor: {}", row.floor_is) };
            println!("     {}{floor_is}; {} of {} succeeded", row.measure, row.tried - row.failed, row.tried);
        }
    }

    /// # Panics
    /// When the file cannot be written: a run without its record is lost work.
    pub fn write(&self) {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|row| {
                json!({ "row": row.name, "what": row.what, "measure": row.measure, "median": row.ours,
                    "p90": row.p90, "worst": row.worst, "floor": row.floor, "floor_is": row.floor_is, "ratio": row.floor.map(|floor| row.ours / floor), "unit": row.unit,
                    "goal": row.goal, "reached": row.met && row.failed == 0, "tried": row.tried, "failed": row.failed })
            })
            .collect();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
        std::fs::create_dir_all(&folder).unwrap();
        let text = serde_json::to_string_pretty(&json!({ "rows": rows })).unwrap();
        std::fs::write(folder.join("results.json"), text + "\n").unwrap();
        println!("\nwritten to bench/results.json");
    }
}

/// Small ones with more digits: a box of 1 KiB takes some hundredths of a millisecond.
fn figure(value: f64) -> String {
    if value.abs() < 1.0 { format!("{value:.3}") } else { format!("{value:.1}") }
}
