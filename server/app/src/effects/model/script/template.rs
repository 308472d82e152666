//! `{{name}}` in the texts of a script.
//!
//! Invariant: a name that is not known is refused when the script is read, never left standing.

use serde_yaml::Value;

/// What the names stand for in one reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::effects::model) struct Values {
    /// The results of the last step, in call order.
    pub(in crate::effects::model) results: Vec<String>,
    /// The last message of the user.
    pub(in crate::effects::model) user: String,
    /// The number of the reply, from 1.
    pub(in crate::effects::model) turn: u64,
}

impl Values {
    /// `text` with every name replaced; a result that is not there leaves nothing.
    pub(in crate::effects::model) fn fill(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, name, after)) = next(rest) {
            out.push_str(before);
            match name {
                "last_result" => out.push_str(self.results.last().map_or("", String::as_str)),
                "last_user" => out.push_str(&self.user),
                "turn" => out.push_str(&self.turn.to_string()),
                other => {
                    let result = result_number(other).and_then(|at| self.results.get(at));
                    out.push_str(result.map_or("", String::as_str));
                }
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// A value with every name in its strings replaced.
pub(super) fn fill_all(value: &Value, values: &Values) -> Value {
    match value {
        Value::String(text) => Value::String(values.fill(text)),
        Value::Sequence(items) => items.iter().map(|item| fill_all(item, values)).collect(),
        Value::Mapping(members) => Value::Mapping(
            members
                .iter()
                .map(|(name, item)| (name.clone(), fill_all(item, values)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Whether every name in `text` is known.
pub(super) fn check(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some((_, name, after)) = next(rest) {
        let known = matches!(name, "last_result" | "last_user" | "turn");
        if !known && result_number(name).is_none() {
            return Err(format!(
                "{{{{{name}}}}} is not known; there are {{{{last_result}}}}, {{{{result.0}}}}, \
                 {{{{last_user}}}} and {{{{turn}}}}"
            ));
        }
        rest = after;
    }
    Ok(())
}

/// [`check`] of every string in `value`.
pub(super) fn check_all(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => check(text),
        Value::Sequence(items) => items.iter().try_for_each(check_all),
        Value::Mapping(members) => members.values().try_for_each(check_all),
        _ => Ok(()),
    }
}

/// What stands before the next name, the name, and what stands behind it.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name.trim(), after))
}

fn result_number(name: &str) -> Option<usize> {
    name.strip_prefix("result.")?.parse().ok()
}
