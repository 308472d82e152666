//! The tool `read`: a text file, whole or by lines.

use std::io::Read as _;

use loopwright_tools::{ToolContext, ToolError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::MAX_ANSWER_BYTES;
use super::root::{Beneath, Root, failure};

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Arguments of `read`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Read {
    /// The file, relative to the root, such as "notes.txt" or "src/main.rs".
    path: String,
    /// The first line to return, from 1. Default: 1.
    #[schemars(range(min = 1))]
    start_line: Option<usize>,
    /// The most lines to return. Default: as many as fit.
    #[schemars(range(min = 1))]
    max_lines: Option<usize>,
}

/// Returns the file's text, or the piece of it that was asked for and fits.
pub(super) fn read(root: &Root, _: &ToolContext, args: Read) -> Result<String, ToolError> {
    let path = Beneath::parse(&args.path)?;
    let shown = path.shown();
    let text = text_of(root, &path)?;
    if text.is_empty() {
        return Ok(format!("{shown} is empty."));
    }
    let first = args.start_line.unwrap_or(1).max(1);
    let total = text.lines().count();
    if first > total {
        let plural = if total == 1 { "line" } else { "lines" };
        return Err(ToolError::failed(format!(
            "{shown} has only {total} {plural}."
        )));
    }
    let wanted = args.max_lines.unwrap_or(usize::MAX).max(1);
    let lines = text.split_inclusive('\n').skip(first - 1);
    let mut piece = String::new();
    let mut taken = 0;
    for line in lines.take(wanted) {
        if piece.len() + line.len() > MAX_ANSWER_BYTES {
            break;
        }
        piece.push_str(line);
        taken += 1;
    }
    if taken == 0 {
        let line = text
            .split_inclusive('\n')
            .nth(first - 1)
            .unwrap_or_default();
        let cut = &line[..line.floor_char_boundary(MAX_ANSWER_BYTES)];
        return Ok(format!(
            "{cut}\n[line {first} of {total} is cut here: it is too long]"
        ));
    }
    let last = first + taken - 1;
    if (first, last) == (1, total) {
        return Ok(piece);
    }
    let ending = if piece.ends_with('\n') { "" } else { "\n" };
    let go_on = match last == total {
        true => "that is the end".to_owned(),
        false => format!("go on with start_line {}", last + 1),
    };
    Ok(format!(
        "{piece}{ending}[lines {first} to {last} of {total}; {go_on}]"
    ))
}

/// The whole text of a file that is not too large.
pub(super) fn text_of(root: &Root, path: &Beneath) -> Result<String, ToolError> {
    let shown = path.shown();
    let file = root.file(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failure(error, &shown))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ToolError::failed(format!(
            "{shown} is larger than {MAX_FILE_BYTES} bytes."
        )));
    }
    String::from_utf8(bytes).map_err(|_| ToolError::failed(format!("{shown} is not a text file.")))
}
