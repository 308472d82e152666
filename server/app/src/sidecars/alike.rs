//! What stands for the arguments of a call where it matters whether two calls ask for the same.
//!
//! Boundary: texts in, a hash out; a sidecar is sent the text as the model wrote it, and the hash of
//! that. Invariant: texts that say the same to whoever reads them as JSON have one hash, however they
//! are written: the order of members, white space, escapes, `1` and `1.0`, nothing and `{}`.

use serde_json::{Map, Number, Value};

use super::schema::{MAX_ARGUMENTS_BYTES, or_empty_object, short_hash};

/// From there on a whole number is not surely the one that was written.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// First 64 bits of the SHA-256 of the arguments in their one form, 16 hexadecimal digits. Text that is no
/// JSON, or too long to be sent, stands for itself.
pub(super) fn hash(arguments: &str) -> String {
    let text = or_empty_object(arguments);
    if text.len() > MAX_ARGUMENTS_BYTES {
        return short_hash(arguments);
    }
    match serde_json::from_str(text) {
        Ok(value) => short_hash(&in_one_form(value).to_string()),
        Err(_) => short_hash(arguments),
    }
}

/// Deep as the reader lets it be, which is not deep.
fn in_one_form(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(&number).unwrap_or(number)),
        Value::Array(items) => Value::Array(items.into_iter().map(in_one_form).collect()),
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            let in_order = members
                .into_iter()
                .map(|(name, of)| (name, in_one_form(of)));
            Value::Object(in_order.collect::<Map<_, _>>())
        }
        value @ (Value::Null | Value::Bool(_) | Value::String(_)) => value,
    }
}

/// A whole number that is written as a fraction or with an exponent, as it is written without.
fn whole(number: &Number) -> Option<Number> {
    if number.is_i64() || number.is_u64() {
        return None;
    }
    let value = number.as_f64()?;
    let is_whole = value.fract() == 0.0 && value.abs() < MAX_WHOLE;
    let digits = is_whole.then(|| format!("{value:.0}"))?;
    digits.parse::<i64>().ok().map(Number::from)
}
