//! Whether an answer of the double is what the real one answered, up to what differs from run to run.

use serde_json::{Map, Value};

/// Keys whose values are only of the same type.
const VOLATILE: [&str; 13] = [
    "timestamp",
    "create_time",
    "execution_start_time",
    "execution_end_time",
    "sid",
    "delayTime",
    "executionTime",
    "ram_free",
    "vram_free",
    "torch_vram_free",
    "ram_total",
    "vram_total",
    "torch_vram_total",
];
/// Keys whose values have the same keys: the host and its versions.
const OF_THE_HOST: [&str; 1] = ["system"];
/// Keys that 0.33 has and 0.30 has not.
const ONLY_NEWER: [&str; 1] = ["previewable_outputs_count"];
/// Previews have five letters of their own in the name, after this.
const TEMP: &str = "ComfyUI_temp_";

/// Compares, and learns which recorded name stands for which of this run.
///
/// # Errors
/// With the place and both values.
pub fn alike(recorded: &Value, seen: &Value, learned: &mut Vec<(String, String)>) -> Result<(), String> {
    at("", "", recorded, seen, learned)
}

fn at(
    place: &str,
    key: &str,
    recorded: &Value,
    seen: &Value,
    learned: &mut Vec<(String, String)>,
) -> Result<(), String> {
    let differs = || Err(format!("at {place}: recorded {}, seen {}", short(recorded), short(seen)));
    match (recorded, seen) {
        (Value::Object(recorded), Value::Object(seen)) => {
            let mut recorded = recorded.clone();
            recorded.retain(|key, _| !ONLY_NEWER.contains(&key.as_str()));
            if !recorded.keys().eq(seen.keys()) {
                let keys = |object: &Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
                return Err(format!("at {place}: recorded keys {:?}, seen {:?}", keys(&recorded), keys(seen)));
            }
            if OF_THE_HOST.contains(&key) {
                return Ok(());
            }
            let mut pairs = recorded.iter().zip(seen.values());
            pairs.try_for_each(|((key, one), other)| at(&format!("{place}.{key}"), key, one, other, learned))
        }
        (Value::Array(one), Value::Array(other)) if key == "traceback" => {
            if one.is_empty() == other.is_empty() && other.iter().all(Value::is_string) { Ok(()) } else { differs() }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let (mut one, mut other) = (one.clone(), other.clone());
            // Sets of node ids come in any order.
            if one.iter().chain(&other).all(Value::is_string) {
                one.sort_by_key(Value::to_string);
                other.sort_by_key(Value::to_string);
            }
            let mut pairs = one.iter().zip(&other).enumerate();
            pairs.try_for_each(|(index, (one, other))| at(&format!("{place}[{index}]"), key, one, other, learned))
        }
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) if VOLATILE.contains(&key) => {
            Ok(())
        }
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => Ok(()),
        (Value::String(one), Value::String(other)) => {
            if let (Some(one), Some(other)) = (temp_name(one), temp_name(other)) {
                learned.push((one.to_owned(), other.to_owned()));
                return Ok(());
            }
            if strings_alike(key, one, other) { Ok(()) } else { differs() }
        }
        (one, other) if one == other => Ok(()),
        _ => differs(),
    }
}

fn temp_name(name: &str) -> Option<&str> {
    name.starts_with(TEMP).then(|| name.get(..TEMP.len() + 5))?
}

fn strings_alike(key: &str, one: &str, other: &str) -> bool {
    let is_printed = |text: &str| text.starts_with("tensor(") || text.starts_with("{'");
    match key {
        // The rest names folders.
        "exception_message" => one.lines().next() == other.lines().next(),
        _ => one == other || is_printed(one) && is_printed(other),
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(400).collect()
}
