//! JSON Schemas derived from Rust types, and the check of arguments against them. The only module that
//! knows the `jsonschema` crate.

use jsonschema::error::ValidationErrorKind;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// Most faults that one message names.
const MAX_FAULTS: usize = 5;
/// Longest text of one fault, in characters: a fault may quote the argument.
const MAX_FAULT_CHARS: usize = 200;

/// The schema of a tool's arguments, ready to check them.
pub(crate) struct ArgumentSchema {
    validator: jsonschema::Validator,
    names: Vec<String>,
}

/// The schema of an argument type.
pub(crate) fn of_arguments<T: JsonSchema>() -> Value {
    plain(
        SchemaSettings::draft2020_12().for_deserialize(),
        |settings| {
            settings
                .into_generator()
                .into_root_schema_for::<T>()
                .to_value()
        },
    )
}

/// The schema of an answer type.
pub(crate) fn of_answer<T: JsonSchema>() -> Value {
    plain(SchemaSettings::draft2020_12().for_serialize(), |settings| {
        settings
            .into_generator()
            .into_root_schema_for::<T>()
            .to_value()
    })
}

impl ArgumentSchema {
    /// Compiles a schema, whose root must be of type "object".
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        let kind = schema.get("type").and_then(Value::as_str);
        if kind != Some("object") {
            return Err(format!(
                "the arguments are of JSON type {}, but must be an object: \
                 take a struct with named fields, or NoArgs",
                kind.unwrap_or("\"any\"")
            ));
        }
        let validator = jsonschema::validator_for(schema)
            .map_err(|error| format!("its schema cannot be used: {error}"))?;
        let properties = schema.get("properties").and_then(Value::as_object);
        let names = properties
            .map(|names| names.keys().cloned().collect())
            .unwrap_or_default();
        Ok(Self { validator, names })
    }

    /// Checks arguments; the error names each field at fault, up to five of them.
    pub(crate) fn check(&self, arguments: &Value) -> Result<(), String> {
        let faults: Vec<String> = self
            .validator
            .iter_errors(arguments)
            .take(MAX_FAULTS)
            .map(|error| self.fault(&error))
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(faults.join("; "))
    }

    fn fault(&self, error: &jsonschema::ValidationError<'_>) -> String {
        let place = error
            .instance_path()
            .as_str()
            .trim_start_matches('/')
            .replace('/', ".");
        let inside = if place.is_empty() {
            String::new()
        } else {
            format!("{place}.")
        };
        let text = match error.kind() {
            ValidationErrorKind::Required { property } => {
                format!(
                    "`{inside}{}` is missing",
                    property.as_str().unwrap_or_default()
                )
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let unknown = unexpected.join("`, `");
                let known = match inside.as_str() {
                    "" => format!("; there are: {}", self.names.join(", ")),
                    _ => String::new(),
                };
                format!("`{inside}{unknown}` is not an argument{known}")
            }
            _ if place.is_empty() => format!("the arguments: {error}"),
            _ => format!("`{place}`: {error}"),
        };
        match text.char_indices().nth(MAX_FAULT_CHARS) {
            Some((cut, _)) => format!("{} ..", &text[..cut]),
            None => text,
        }
    }
}

fn plain(settings: SchemaSettings, generate: impl FnOnce(SchemaSettings) -> Value) -> Value {
    // Definitions in place read better to a model than references do.
    let mut schema = generate(settings.with(|settings| settings.inline_subschemas = true));
    if let Some(root) = schema.as_object_mut() {
        root.remove("$schema");
        root.remove("title");
        // What the type is for; the tool's own description says what the tool is for.
        root.remove("description");
    }
    bound_integers(&mut schema);
    schema
}

/// Says the range of Rust's integers as limits that everybody checks; "uint32" is a format to few.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(bound_integers),
        Value::Object(members) => {
            members.values_mut().for_each(bound_integers);
            let format = members
                .get("format")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let (least, most): (i64, u64) = match format {
                "int8" => (i8::MIN.into(), i8::MAX as u64),
                "int16" => (i16::MIN.into(), i16::MAX as u64),
                "int32" => (i32::MIN.into(), i32::MAX as u64),
                "int64" | "int" => (i64::MIN, i64::MAX as u64),
                "uint8" => (0, u8::MAX.into()),
                "uint16" => (0, u16::MAX.into()),
                "uint32" => (0, u32::MAX.into()),
                "uint64" | "uint" => (0, u64::MAX),
                _ => return,
            };
            members.remove("format");
            members.entry("minimum").or_insert(least.into());
            members.entry("maximum").or_insert(most.into());
        }
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is read")]
    struct Args {
        /// Where.
        path: String,
        #[schemars(range(min = 1, max = 10))]
        count: Option<u32>,
        inner: Option<Inner>,
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is read")]
    struct Inner {
        flag: bool,
    }

    #[test]
    fn a_fault_names_its_field() {
        let schema = ArgumentSchema::compile(&of_arguments::<Args>()).unwrap();
        assert_eq!(schema.check(&json!({"path": "a", "count": 3})), Ok(()));
        let table = [
            (json!({}), "`path` is missing"),
            (json!({"path": 1}), "`path`: 1 is not of type \"string\""),
            (
                json!({"path": "a", "count": 11}),
                "`count`: 11 is greater than the maximum of 10",
            ),
            (
                json!({"path": "a", "pth": 1}),
                "`pth` is not an argument; there are: count, inner, path",
            ),
            (json!([]), "the arguments: [] is not of type \"object\""),
            (json!({"path": "a", "inner": {}}), "`inner.flag` is missing"),
        ];
        for (arguments, expected) in table {
            let fault = schema.check(&arguments).unwrap_err();
            assert!(fault.contains(expected), "{arguments}: {fault}");
        }
    }

    #[test]
    fn a_fault_does_not_repeat_a_huge_argument() {
        let schema = ArgumentSchema::compile(&of_arguments::<Args>()).unwrap();
        let fault = schema
            .check(&json!({"path": vec!["x"; 100_000]}))
            .unwrap_err();
        assert!(fault.len() < 1000, "{} bytes", fault.len());
    }

    #[test]
    fn arguments_that_are_no_object_are_refused_when_the_tool_is_declared() {
        let error = ArgumentSchema::compile(&of_arguments::<String>())
            .err()
            .unwrap();
        assert!(error.contains("must be an object"), "{error}");
    }

    #[test]
    fn descriptions_reach_the_schema_and_titles_do_not() {
        let schema = of_arguments::<Args>();
        assert_eq!(schema["properties"]["path"]["description"], "Where.");
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema.get("$schema").is_none() && schema.get("title").is_none());
        assert_eq!(schema["properties"]["count"]["maximum"], 10);
        assert!(schema["properties"]["count"].get("format").is_none());
    }
}
