//! What ComfyUI finds wrong with a prompt before it runs, in its words and its order.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::catalogue::Class;
use crate::prompt::{Node, Prompt, link};
use crate::server::Server;

/// The outputs that can run, and what was found at other nodes.
pub struct Valid {
    pub outputs: Vec<String>,
    pub node_errors: Value,
}

/// The body of a 400.
pub struct Invalid(pub Value);

/// A 400 whose error is about the whole prompt.
pub fn invalid(kind: &str, message: &str, details: &str, extra: Value, node_errors: Value) -> Invalid {
    let error = json!({"type": kind, "message": message, "details": details, "extra_info": extra});
    Invalid(json!({"error": error, "node_errors": node_errors}))
}

/// Checks every node's class, then every output with all that it depends on.
///
/// # Errors
/// When no output can run.
pub fn validate(server: &Server, prompt: &Prompt) -> Result<Valid, Invalid> {
    for (id, node) in prompt.iter() {
        check_class(id, node)?;
    }
    let is_output = |node: &Node| Class::named(node.class()).is_some_and(Class::is_output);
    let outputs: Vec<&str> = prompt.iter().filter(|(_, node)| is_output(node)).map(|(id, _)| id).collect();
    if outputs.is_empty() {
        return Err(invalid("prompt_no_outputs", "Prompt has no outputs", "", json!({}), json!({})));
    }
    let mut check = Check { server, prompt, seen: BTreeMap::new() };
    let (mut good, mut found, mut details) = (Vec::new(), Map::new(), Vec::new());
    for output in outputs {
        if check.node(output, &mut Vec::new()) {
            good.push(output.to_owned());
            continue;
        }
        let own = check.seen.get(output).into_iter().flatten();
        details.extend(own.map(|error| format!("{}: {}", text(error, "message"), text(error, "details"))));
        for (id, errors) in check.seen.iter().filter(|(id, errors)| !errors.is_empty() && check.reaches(output, id)) {
            let class = prompt.get(id).map_or("", Node::class);
            let fresh = json!({"errors": errors, "dependent_outputs": [], "class_type": class});
            let entry = found.entry(id.clone()).or_insert(fresh);
            entry["dependent_outputs"].as_array_mut().expect("a list").push(json!(output));
        }
    }
    if good.is_empty() {
        let message = "Prompt outputs failed validation";
        let kind = "prompt_outputs_failed_validation";
        return Err(invalid(kind, message, &details.join("\n"), json!({}), Value::Object(found)));
    }
    Ok(Valid { outputs: good, node_errors: Value::Object(found) })
}

fn text<'a>(error: &'a Value, field: &str) -> &'a str {
    error[field].as_str().unwrap_or_default()
}

fn check_class(id: &str, node: &Node) -> Result<(), Invalid> {
    let message = match &node.class_type {
        None => {
            format!("Node 'ID #{id}' has no class_type. The workflow may be corrupted or a custom node is missing.")
        }
        Some(class) if Class::named(class).is_none() => {
            format!("Node '{class}' not found. The custom node may not be installed.")
        }
        Some(_) => return Ok(()),
    };
    let extra = json!({"node_id": id, "class_type": node.class_type, "node_title": node.class_type});
    Err(invalid("missing_node_type", &message, &format!("Node ID '#{id}'"), extra, json!({})))
}

/// One prompt under examination.
struct Check<'a> {
    server: &'a Server,
    prompt: &'a Prompt,
    /// Node → its own errors; a node is looked at once.
    seen: BTreeMap<String, Vec<Value>>,
}

impl Check<'_> {
    /// Whether a node and all that it depends on are good.
    fn node(&mut self, id: &str, path: &mut Vec<String>) -> bool {
        if let Some(errors) = self.seen.get(id) {
            return errors.is_empty() && self.upstream_is_good(id);
        }
        if let Some(start) = path.iter().position(|above| above == id) {
            self.cycle(&path[start..]);
            return false;
        }
        path.push(id.to_owned());
        let errors = self.errors(id, path);
        path.pop();
        self.seen.entry(id.to_owned()).or_default().extend(errors);
        self.seen[id].is_empty() && self.upstream_is_good(id)
    }

    fn upstream_is_good(&self, id: &str) -> bool {
        let bad = |(other, errors): (&String, &Vec<Value>)| !errors.is_empty() && self.reaches(id, other);
        !self.seen.iter().any(bad)
    }

    /// Whether `from` is `to`, or depends on it.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let (mut open, mut met) = (vec![from], Vec::new());
        while let Some(id) = open.pop() {
            if id == to {
                return true;
            }
            if !met.contains(&id) {
                met.push(id);
                open.extend(self.prompt.get(id).into_iter().flat_map(Node::links).map(|(_, node, _)| node));
            }
        }
        false
    }

    fn cycle(&mut self, nodes: &[String]) {
        let named = |id: &String| format!("{id} ({})", self.prompt.get(id).map_or("", Node::class));
        let walk: Vec<String> = nodes.iter().chain(nodes.first()).map(named).collect();
        for id in nodes {
            let extra = json!({"node_id": id, "cycle_nodes": nodes});
            let error = found("dependency_cycle", "Dependency cycle detected", &walk.join(" -> "), extra);
            self.seen.entry(id.clone()).or_default().push(error);
        }
    }

    /// A node's own errors, its links followed first.
    fn errors(&mut self, id: &str, path: &mut Vec<String>) -> Vec<Value> {
        let prompt = self.prompt;
        let Some(node) = prompt.get(id) else { return Vec::new() };
        let Some(inputs) = &node.inputs else { return vec![exception("KeyError", "'inputs'")] };
        let class = Class::named(node.class()).expect("classes were checked");
        let mut errors = Vec::new();
        for (name, wanted) in class.required() {
            let Some(value) = inputs.get(name) else {
                let extra = json!({"input_name": name});
                errors.push(found("required_input_missing", "Required input is missing", name, extra));
                continue;
            };
            match link(value) {
                Some((from, slot)) => match self.linked(name, wanted, value, from, slot) {
                    Ok(()) => {
                        self.node(from, path);
                    }
                    Err(error) => errors.push(error),
                },
                None => errors.extend(self.value(node.class(), name, wanted, value)),
            }
        }
        errors
    }

    fn linked(&self, name: &str, wanted: &Value, value: &Value, from: &str, slot: usize) -> Result<(), Value> {
        let Some(node) = self.prompt.get(from) else { return Err(exception("KeyError", &format!("'{from}'"))) };
        let class = Class::named(node.class()).expect("classes were checked");
        let Some(received) = class.output(slot) else {
            return Err(exception("IndexError", "tuple index out of range"));
        };
        if wanted[0] == received || wanted[0] == "*" || wanted[0].is_array() && received == "STRING" {
            return Ok(());
        }
        let message = "Return type mismatch between linked nodes";
        let details = format!("{name}, received_type({received}) mismatch input_type({})", shown(&wanted[0]));
        let extra =
            json!({"input_name": name, "input_config": wanted, "received_type": received, "linked_node": value});
        Err(found("return_type_mismatch", message, &details, extra))
    }

    fn value(&self, class: &str, name: &str, wanted: &Value, value: &Value) -> Option<Value> {
        let extra = || json!({"input_name": name, "input_config": wanted, "received_value": value});
        if class == "LoadImage" {
            let there =
                value.as_str().is_some_and(|file| self.server.annotated(file).is_some_and(|path| path.is_file()));
            let details = format!("{name} - Invalid image file: {}", shown(value));
            let message = "Custom validation failed for node";
            return (!there).then(|| found("custom_validation_failed", message, &details, json!({"input_name": name})));
        }
        if let Some(choices) = wanted[0].as_array() {
            let all: Vec<String> = choices.iter().map(|choice| format!("'{}'", shown(choice))).collect();
            let details = format!("{name}: '{}' not in [{}]", shown(value), all.join(", "));
            let absent = !choices.contains(value);
            return absent.then(|| found("value_not_in_list", "Value not in list", &details, extra()));
        }
        if wanted[0] != "INT" && wanted[0] != "FLOAT" {
            return None;
        }
        let parsed = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        let Some(number) = parsed else {
            let message = format!("Failed to convert an input value to a {} value", shown(&wanted[0]));
            let details = format!("{name}, {}, invalid literal", shown(value));
            return Some(found("invalid_input_type", &message, &details, extra()));
        };
        let limit = |which: &str| wanted[1][which].as_f64();
        if limit("min").is_some_and(|min| number < min) {
            let message = format!("Value {value} smaller than min of {}", wanted[1]["min"]);
            return Some(found("value_smaller_than_min", &message, name, extra()));
        }
        if limit("max").is_some_and(|max| number > max) {
            let message = format!("Value {value} bigger than max of {}", wanted[1]["max"]);
            return Some(found("value_bigger_than_max", &message, name, extra()));
        }
        None
    }
}

fn found(kind: &str, message: &str, details: &str, extra: Value) -> Value {
    json!({"type": kind, "message": message, "details": details, "extra_info": extra})
}

fn exception(kind: &str, details: &str) -> Value {
    let traceback = ["  File \"/opt/comfyui/execution.py\", line 1184, in validate_prompt\n"];
    let extra = json!({"exception_type": kind, "traceback": traceback});
    found("exception_during_validation", "Exception when validating node", details, extra)
}

/// A value as Python would print it in a sentence.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
