//! A change to what this version knows of a JSON text, made to the text: what it does not know stays.
//!
//! Boundary: one text, and its known part before and after. Invariant: whatever is the same before and
//! after stands in the outcome byte for byte, in its place; members that are in neither do as well, but
//! for those right beside a text that is changed: they may say the same in another way.

use serde_json::{Value, value::RawValue};

use super::fields::Members;

/// The text with what differs between `was` and `now` made as it is now; `None` where the text is not of
/// their shape.
pub(crate) fn patched(text: &str, was: &Value, now: &Value) -> Option<String> {
    let raw = serde_json::from_str::<&RawValue>(text).ok()?;
    let mut out = String::with_capacity(text.len());
    patch(raw, was, now, &mut out)?;
    Some(out)
}

fn patch(raw: &RawValue, was: &Value, now: &Value, out: &mut String) -> Option<()> {
    if was == now {
        out.push_str(raw.get());
        return Some(());
    }
    match (was, now) {
        (Value::Object(was), Value::Object(now)) => {
            let Members(members) = serde_json::from_str(raw.get()).ok()?;
            let beside = now.iter().any(|(name, value)| {
                was.get(name) != Some(value) && !value.is_object() && !value.is_array()
            });
            let known = |name: &str| was.contains_key(name) || now.contains_key(name);
            // What is known must stand there once, and under the name that it is written by now.
            let written =
                |name: &String| members.iter().filter(|(one, _)| one == name).count() == 1;
            if !now
                .iter()
                .all(|(name, value)| was.get(name) == Some(value) || written(name))
            {
                return None;
            }
            let mut between = '{';
            for (name, value) in &members {
                if !now.contains_key(name) && (beside || known(name)) {
                    continue;
                }
                out.push(between);
                between = ',';
                out.push_str(&serde_json::to_string(name).ok()?);
                out.push(':');
                match (was.get(name), now.get(name)) {
                    (Some(was), Some(now)) => patch(value, was, now, out)?,
                    (None, Some(now)) => out.push_str(&now.to_string()),
                    (_, None) => out.push_str(value.get()),
                }
            }
            if between == '{' {
                out.push('{');
            }
            out.push('}');
        }
        (Value::Array(was), Value::Array(now)) if was.len() == now.len() => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
            if items.len() != now.len() {
                return None;
            }
            out.push('[');
            for (at, value) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                patch(value, &was[at], &now[at], out)?;
            }
            out.push(']');
        }
        _ => out.push_str(&now.to_string()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_changed_and_all_else_is_kept_to_the_letter() {
        let text = r#"{"later": 1e3,"a":[{"x":"old","new":"old"},{"x":1,"n" : 98765432109876543210}],"b":2}"#;
        let (was, now) = (
            json!({"a": [{"x": "old"}, {"x": 1}], "b": 2}),
            json!({"a": [{"x": "hidden"}, {"x": 1}], "b": 2}),
        );
        assert_eq!(
            patched(text, &was, &now).unwrap(),
            r#"{"later":1e3,"a":[{"x":"hidden"},{"x":1,"n" : 98765432109876543210}],"b":2}"#
        );
        assert_eq!(patched(text, &was, &was).unwrap(), text);
        assert_eq!(patched("{}", &json!({"a": 1}), &json!({})).unwrap(), "{}");
    }

    #[test]
    fn a_text_of_another_shape_is_not_changed_by_halves() {
        let (was, now) = (json!({"x": "old"}), json!({"x": "hidden"}));
        for text in [
            r#"{"alias":"old"}"#,
            r#"{"x":"old","x":"old"}"#,
            "[]",
            "not json",
        ] {
            assert_eq!(patched(text, &was, &now), None, "{text}");
        }
    }
}
