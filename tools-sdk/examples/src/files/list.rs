//! The tool `list`: what a folder holds.

use loopwright_tools::{ToolContext, ToolError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::root::{Beneath, EntryKind, Root};

/// Most entries of one answer.
const MAX_SHOWN: usize = 500;

/// Arguments of `list`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// The folder, relative to the root. Default: the root itself.
    path: Option<String>,
}

/// Returns one line for each entry, by name.
pub(super) fn list(root: &Root, _: &ToolContext, args: List) -> Result<String, ToolError> {
    let path = Beneath::parse(args.path.as_deref().unwrap_or("."))?;
    let (entries, more) = root.entries(&path)?;
    let place = match path.depth() {
        0 => "The root folder".to_owned(),
        _ => format!("The folder {}", path.shown()),
    };
    let mut answer = match entries.len() {
        0 => return Ok(format!("{place} is empty.")),
        1 => format!("{place} has 1 entry:"),
        count => format!(
            "{place} has {count}{} entries:",
            if more { " or more" } else { "" }
        ),
    };
    for entry in entries.iter().take(MAX_SHOWN) {
        let line = match entry.kind {
            EntryKind::File { bytes } => format!("\n{} ({bytes} bytes)", entry.name),
            EntryKind::Folder => format!("\n{}/ (folder)", entry.name),
            EntryKind::Link => format!("\n{} (symbolic link, not followed)", entry.name),
            EntryKind::Other => format!("\n{} (not a file)", entry.name),
        };
        answer.push_str(&line);
    }
    if entries.len() > MAX_SHOWN {
        answer.push_str(&format!(
            "\n[{} more are not shown]",
            entries.len() - MAX_SHOWN
        ));
    }
    Ok(answer)
}
