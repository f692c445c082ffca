//! The printed table and `bench/results.json`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

/// One measured row.
pub struct Row {
    pub name: &'static str,
    pub what: String,
    /// Start point, end point, concurrency, what was warm.
    pub measure: &'static str,
    pub ours: f64,
    pub worst: f64,
    pub floor: Option<f64>,
    pub unit: &'static str,
    pub goal: &'static str,
    pub met: bool,
    pub tried: usize,
    pub failed: usize,
}

#[derive(Default)]
pub struct Table(Vec<Row>);

/// The middle value; zero of nothing.
pub fn median(spans: &[Duration]) -> Duration {
    let mut sorted = spans.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Table {
    pub fn add(&mut self, row: Row) {
        eprintln!("{} {}: {:.1} {}", row.name, row.what, row.ours, row.unit);
        self.0.push(row);
    }

    pub fn print(&self) {
        println!(
            "\n{:<4} {:<38} {:>10} {:>10} {:>10} {:>7}  {:<20} ok",
            "row", "what", "median", "worst", "floor", "ratio", "goal"
        );
        for row in &self.0 {
            let floor = row.floor.map_or_else(|| "-".to_owned(), |floor| format!("{floor:.1}"));
            let ratio = row.floor.map_or_else(|| "-".to_owned(), |floor| format!("{:.2}", row.ours / floor));
            let met = if row.met && row.failed == 0 { "reached" } else { "NOT REACHED" };
            let (ours, worst) = (format!("{:.1} {}", row.ours, row.unit), format!("{:.1}", row.worst));
            println!(
                "{:<4} {:<38} {ours:>10} {worst:>10} {floor:>10} {ratio:>7}  {:<20} {met}",
                row.name, row.what, row.goal
            );
            println!("     {}; {} of {} succeeded", row.measure, row.tried - row.failed, row.tried);
        }
    }

    /// # Panics
    /// When the file cannot be written: a run without its record is lost work.
    pub fn write(&self) {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|row| {
                json!({ "row": row.name, "what": row.what, "measure": row.measure, "median": row.ours, "worst": row.worst,
                    "floor": row.floor, "ratio": row.floor.map(|floor| row.ours / floor), "unit": row.unit,
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
