//! What is asked of a handler, and whether the answer is one to that.

use serde_json::{Value, json};

/// Does what the call says. Its second module says which revision it is.
pub const MAIN: &str = r#"
import { spawn } from "node:child_process";
import { writeSync } from "node:fs";
import { word } from "./word.js";
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const echo = ({ data, env }) => ({
  mark: data.mark, word, name: env.NAME ?? null, seen: globalThis.seen = (globalThis.seen ?? 0) + 1,
});
const acts = {
  Echo: echo,
  Sleep: async (event) => { await later(event.data.ms); return echo(event) },
  Throw: ({ data }) => { throw new RangeError(data.mark) },
  Exit: () => process.exit(0),
  Loop: () => { for (;;); },
  Memory: () => { const kept = []; for (;;) kept.push(new Array(1000).fill(Math.random())) },
  Fork: async () => {
    for (let i = 0; i < 150; i++) spawn(process.execPath, ["--version"], { stdio: "ignore" }).on("error", () => {});
    await later(500);
  },
  Flood: () => {
    const text = "x".repeat(1 << 16);
    for (;;) { try { writeSync(2, text) } catch (error) { if (error.code !== "EAGAIN") throw error } }
  },
};
export const handler = (event) => { console.log(event.data.mark); return acts[event.data.act](event) };
"#;

/// All outcomes that there are.
const OUTCOMES: [&str; 11] = [
    "ok",
    "handler_error",
    "no_handler",
    "invalid_result",
    "timeout",
    "out_of_memory",
    "pids_limit",
    "output_limit",
    "no_result",
    "sandbox_crashed",
    "cancelled",
];
/// What a call comes to whose sandbox was struck.
const STRUCK: [&str; 3] = ["sandbox_crashed", "no_result", "timeout"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Echo,
    Sleep,
    Throw,
    Exit,
    Loop,
    Memory,
    Fork,
    Flood,
}

impl Act {
    /// What it comes to in a sandbox that is left alone.
    pub fn outcomes(self) -> &'static [&'static str] {
        match self {
            Act::Echo | Act::Sleep => &["ok"],
            Act::Throw => &["handler_error"],
            Act::Exit => &["no_result"],
            Act::Loop => &["timeout"],
            // On a busy host it may not get so far.
            Act::Memory => &["out_of_memory", "timeout"],
            // Deno refuses it without a permission.
            Act::Fork => &["pids_limit", "handler_error", "timeout", "out_of_memory", "ok"],
            Act::Flood => &["output_limit", "timeout", "out_of_memory"],
        }
    }

    fn limits(self) -> Value {
        match self {
            Act::Echo | Act::Sleep | Act::Throw | Act::Exit => json!({ "timeoutMs": 12000 }),
            Act::Loop => json!({ "timeoutMs": 700 }),
            Act::Memory => json!({ "timeoutMs": 12000, "memoryMb": 64 }),
            Act::Fork => json!({ "timeoutMs": 4000, "memoryMb": 256 }),
            Act::Flood => json!({ "timeoutMs": 4000 }),
        }
    }
}

/// One call: nobody else's has this mark.
#[derive(Debug, Clone)]
pub struct Order {
    pub act: Act,
    pub mark: String,
    /// How long [`Act::Sleep`] sleeps.
    pub ms: u64,
    /// A variable of the call's own.
    pub name: Option<String>,
    /// The oldest revision that may answer.
    pub since: u64,
}

impl Order {
    pub fn body(&self) -> Value {
        let env = self.name.iter().map(|name| ("NAME", name)).collect::<std::collections::BTreeMap<_, _>>();
        json!({ "data": { "act": format!("{:?}", self.act), "mark": self.mark, "ms": self.ms }, "env": env,
            "limits": self.act.limits() })
    }

    /// Asserts that an answer is one to this call, by a revision up to `newest`, and returns its outcome.
    pub fn assert_own<'a>(&self, answer: &'a Value, newest: u64) -> &'a str {
        let outcome = answer["outcome"].as_str().unwrap_or_else(|| panic!("{self:?}: {answer}"));
        assert!(OUTCOMES.contains(&outcome), "{self:?}: {answer}");
        let logs = answer["logs"].as_array().unwrap_or_else(|| panic!("{self:?}: {answer}"));
        let strange = logs.iter().find(|log| log["level"] == "log" && log["message"] != self.mark);
        assert!(strange.is_none(), "{self:?}: {answer}");
        match (self.act, outcome) {
            (Act::Echo | Act::Sleep, "ok") => {
                let result = &answer["result"];
                let own = (&result["mark"], &result["name"], &result["seen"]);
                assert_eq!(own, (&json!(self.mark), &json!(self.name), &json!(1)), "{self:?}: {answer}");
                let word = result["word"].as_u64();
                assert!(word >= Some(self.since) && word <= Some(newest), "{self:?}, up to {newest}: {answer}");
            }
            (Act::Throw, "handler_error") => assert_eq!(answer["error"]["message"], self.mark, "{self:?}: {answer}"),
            _ => {}
        }
        outcome
    }

    /// Whether this outcome shows that the sandbox was struck; one that nothing explains is a defect.
    pub fn was_struck(&self, outcome: &str) -> bool {
        let usual = self.act.outcomes().contains(&outcome);
        assert!(usual || STRUCK.contains(&outcome), "{self:?}: {outcome}");
        !usual
    }
}
