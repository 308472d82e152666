//! JSON Schemas of tools: compiled once, asked for every call.
//!
//! Boundary: the one place that knows the `jsonschema` crate. Invariants: a schema is never fetched
//! from anywhere; what a model is told is one sentence of bounded length; at most
//! [`MAX_COMPILED`] schemas are kept.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{PatternOptions, Validator};
use loopwright_core::agent::ToolSet;
use loopwright_core::message::{CallPart, Part, clamp};
use loopwright_core::outcome::Verdict;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::alike;

/// Largest arguments of one call, bytes.
pub(crate) const MAX_ARGUMENTS_BYTES: usize = 512 << 10;
/// Largest schema of one tool, bytes.
pub(crate) const MAX_SCHEMA_BYTES: usize = 64 << 10;

/// Schemas kept compiled; past that all are dropped and compiled again as they are asked for.
const MAX_COMPILED: usize = 4096;
/// References in one schema.
const MAX_REFERENCES: usize = 256;
/// Parts of one schema with its references written out.
const MAX_EXPANDED: u64 = 20_000;
/// Problems that are told to a model at once.
const MAX_PROBLEMS: usize = 3;
/// Longest text about one problem, bytes.
const MAX_PROBLEM_BYTES: usize = 240;
/// Steps that a pattern may take on one text; the crate's default would let a hostile one stall.
const BACKTRACK_LIMIT: usize = 100_000;

/// Compiled schemas by their text.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    compiled: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Schemas {
    /// Checks that `text` can be the schema of a tool's arguments.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn check(&self, text: &str) -> Result<(), String> {
        if text.len() > MAX_SCHEMA_BYTES {
            let size = text.len();
            return Err(format!(
                "{size} bytes, over the limit of {MAX_SCHEMA_BYTES} bytes"
            ));
        }
        let schema: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        match schema.get("type") {
            Some(Value::String(of)) if of == "object" => {}
            _ => return Err(r#"its root must have "type": "object""#.to_owned()),
        }
        refuse_bombs(&schema)?;
        self.validator(text).map(drop)
    }

    /// What is to be said of each tool call among `parts`, in their order. A tool that is not in
    /// `tools` gets no verdict on its arguments: the core says that there is no such tool.
    pub(crate) fn verdicts(&self, tools: &ToolSet, parts: &[Part]) -> Vec<Verdict> {
        let calls = parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call),
            Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_) => None,
        });
        calls
            .map(|call| Verdict {
                args_hash: alike::hash(&call.arguments),
                invalid: self.invalid(tools, call),
            })
            .collect()
    }

    fn invalid(&self, tools: &ToolSet, call: &CallPart) -> Option<String> {
        let spec = tools.get(&call.tool)?;
        let text = or_empty_object(&call.arguments);
        if text.len() > MAX_ARGUMENTS_BYTES {
            return Some(format!(
                "The arguments of `{}` are {} bytes, over the limit of {MAX_ARGUMENTS_BYTES}.",
                call.tool,
                text.len()
            ));
        }
        let arguments: Value = match serde_json::from_str(text) {
            Ok(value @ Value::Object(_)) => value,
            Ok(_) => {
                return Some(format!(
                    "The arguments of `{}` must be a JSON object.",
                    call.tool
                ));
            }
            Err(e) => {
                return Some(format!(
                    "The arguments of `{}` are not valid JSON: {e}.",
                    call.tool
                ));
            }
        };
        match self.validator(&spec.input_schema) {
            Ok(validator) => misfit(&call.tool, &validator, &arguments),
            // It compiled when the tool was registered; the sidecar is the better judge then.
            Err(_) => None,
        }
    }

    fn validator(&self, text: &str) -> Result<Arc<Validator>, String> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(validator) = compiled.get(text) {
            return Ok(Arc::clone(validator));
        }
        let schema: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_LIMIT))
            .build(&schema)
            .map_err(|e| {
                let place = e.instance_path().as_str().to_owned();
                let at = if place.is_empty() {
                    "its root".to_owned()
                } else {
                    place
                };
                format!("at {at}: {}", clamp(&e.to_string(), MAX_PROBLEM_BYTES))
            })?;
        if compiled.len() >= MAX_COMPILED {
            compiled.clear();
        }
        let validator = Arc::new(validator);
        compiled.insert(text.to_owned(), Arc::clone(&validator));
        Ok(validator)
    }
}

/// Arguments as they are sent: a model that passes none may write nothing at all.
pub(crate) fn or_empty_object(arguments: &str) -> &str {
    if arguments.trim().is_empty() {
        "{}"
    } else {
        arguments
    }
}

/// SHA-256 in lower-case hexadecimal digits.
pub(crate) fn sha256_hex(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// The first 64 bits of it.
pub(super) fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..8])
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn misfit(tool: &str, validator: &Validator, arguments: &Value) -> Option<String> {
    let mut errors = validator.iter_errors(arguments);
    let first = errors.next()?;
    let mut text = format!("The arguments of `{tool}` do not fit its schema: ");
    for (at, error) in std::iter::once(first)
        .chain(errors.by_ref().take(MAX_PROBLEMS - 1))
        .enumerate()
    {
        if at > 0 {
            text.push_str("; ");
        }
        let place = error.instance_path().as_str();
        if !place.is_empty() {
            // The place comes from the model's own text, so it is bounded too.
            let _ = write!(text, "at {}: ", clamp(place, MAX_PROBLEM_BYTES));
        }
        text.push_str(clamp(&error.to_string(), MAX_PROBLEM_BYTES));
    }
    let more = if errors.next().is_some() {
        "; and more"
    } else {
        ""
    };
    let _ = write!(text, "{more}.");
    Some(text)
}

/// Refuses a schema whose references multiply: small as text, it would take for ever to check.
/// Loops are left to the validator, which notices when it asks itself the same again.
fn refuse_bombs(schema: &Value) -> Result<(), String> {
    let mut sizes = HashMap::new();
    let mut references = 0;
    let size = expanded(schema, schema, &mut sizes, &mut references);
    if references > MAX_REFERENCES {
        return Err(format!("more than {MAX_REFERENCES} of `$ref`"));
    }
    if size > MAX_EXPANDED {
        return Err(format!(
            "with each `$ref` written out it has more than {MAX_EXPANDED} parts"
        ));
    }
    Ok(())
}

/// Parts of `part` with references written out; one that leads back to where it is counts as one.
fn expanded<'a>(
    root: &'a Value,
    part: &'a Value,
    sizes: &mut HashMap<*const Value, u64>,
    references: &mut usize,
) -> u64 {
    if let Some(&size) = sizes.get(&std::ptr::from_ref(part)) {
        return size;
    }
    sizes.insert(std::ptr::from_ref(part), 1);
    let mut size = 1_u64;
    let children: Vec<&Value> = match part {
        Value::Object(members) => members.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    for child in children {
        size = size.saturating_add(expanded(root, child, sizes, references));
    }
    if let Some(pointer) = part.get("$ref").and_then(Value::as_str) {
        *references += 1;
        let target = pointer
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer));
        // The count of references bounds how deep this goes.
        if let Some(target) = target.filter(|_| *references <= MAX_REFERENCES) {
            size = size.saturating_add(expanded(root, target, sizes, references));
        }
    }
    sizes.insert(std::ptr::from_ref(part), size);
    size
}
