//! The rules for names of sidecars and tools; on a model's wire a tool is `sidecar__tool`.

use crate::error::DefinitionError;

/// Longest sidecar name, in characters.
const SIDECAR_CHARS: usize = 23;
/// Longest tool name, in characters.
const TOOL_CHARS: usize = 38;

/// Checks the name of a sidecar.
pub(crate) fn check_sidecar(name: &str) -> Result<(), DefinitionError> {
    let why = match fault(name, SIDECAR_CHARS) {
        None if name == "loopwright" => "it is reserved for built-in tools".to_owned(),
        None => return Ok(()),
        Some(why) => why,
    };
    Err(DefinitionError::SidecarName {
        name: name.to_owned(),
        why,
    })
}

/// Checks the name of a tool.
pub(crate) fn check_tool(name: &str) -> Result<(), DefinitionError> {
    match fault(name, TOOL_CHARS) {
        None => Ok(()),
        Some(why) => Err(DefinitionError::ToolName {
            name: name.to_owned(),
            why,
        }),
    }
}

fn fault(name: &str, max_chars: usize) -> Option<String> {
    let Some(first) = name.chars().next() else {
        return Some("it is empty".to_owned());
    };
    if !first.is_ascii_lowercase() {
        return Some(format!("it begins with {first:?}, not with a letter a-z"));
    }
    let odd = |c: &char| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    if let Some(odd) = name.chars().find(odd) {
        return Some(format!(
            "it contains {odd:?}; allowed are a-z, 0-9, _ and -"
        ));
    }
    if name.len() > max_chars {
        return Some(format!(
            "it has {} characters; at most {max_chars} are allowed",
            name.len()
        ));
    }
    name.contains("__")
        .then(|| "it contains \"__\", which parts sidecar and tool".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_the_wire_are_taken() {
        for name in ["a", "files", "a-b_c9", "abcdefghijklmnopqrstuvw"] {
            assert_eq!(check_sidecar(name), Ok(()), "{name}");
        }
        let longest = "t".repeat(38);
        assert_eq!(check_tool(&longest), Ok(()));
        assert_eq!(format!("{}__{longest}", "s".repeat(23)).len(), 63);
    }

    #[test]
    fn names_that_do_not_fit_are_refused_with_the_reason() {
        let longest = "s".repeat(24);
        let table = [
            ("", "empty"),
            ("Files", "begins with 'F'"),
            ("9a", "begins with '9'"),
            ("_a", "begins with '_'"),
            ("a.b", "contains '.'"),
            ("a b", "contains ' '"),
            ("ä", "begins with 'ä'"),
            ("a__b", "\"__\""),
            ("loopwright", "reserved"),
            (longest.as_str(), "24 characters"),
        ];
        for (name, expected) in table {
            let message = check_sidecar(name).expect_err(name).to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(check_tool(&"t".repeat(39)).is_err());
        assert!(check_tool("loopwright").is_ok());
    }
}
