//! Names that say nothing, and words that promise work instead of doing it.

use super::sources;

/// Names of modules and types that tell nobody what is in them.
const BANNED: &[&str] = &[
    "manager", "util", "utils", "helper", "helpers", "common", "misc", "imp", "data", "info",
];

#[test]
fn no_module_has_a_name_that_says_nothing() {
    for source in sources::rust() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            assert!(
                !BANNED.contains(&part),
                "{}: a module named {part}",
                source.path
            );
        }
    }
}

#[test]
fn no_type_has_a_name_that_says_nothing() {
    let banned = ["Manager", "Util", "Utils", "Helper", "Helpers", "Misc"];
    for source in sources::rust() {
        for line in source.text.lines() {
            let words = line.trim_start().trim_start_matches("pub ");
            let name = ["struct ", "enum ", "trait "]
                .iter()
                .find_map(|kind| words.strip_prefix(kind));
            let name = name.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
            let bad = name.filter(|name| banned.iter().any(|banned| name.ends_with(banned)));
            assert_eq!(bad, None, "{}: {line}", source.path);
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimplemented", "!("),
    ];
    for source in sources::rust() {
        for word in words {
            assert!(!source.text.contains(word), "{} says {word}", source.path);
        }
    }
}
