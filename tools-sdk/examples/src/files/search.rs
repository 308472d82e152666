//! The tool `search`: the lines that contain a text, over all files beneath a folder.

use loopwright_tools::{ToolContext, ToolError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::MAX_ANSWER_BYTES;
use super::read::text_of;
use super::root::{Beneath, EntryKind, MAX_DEPTH, Root};

/// Most matches of one answer.
const MAX_MATCHES: usize = 100;
/// Most files that one search looks into.
const MAX_FILES: usize = 5_000;
/// Largest file that is looked into, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most characters shown of a line.
const MAX_LINE_CHARS: usize = 200;
/// Progress is told once in so many files.
const PROGRESS_EVERY: usize = 100;

/// Arguments of `search`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    /// The text to look for, as it stands; no patterns.
    #[schemars(length(min = 1, max = 200))]
    text: String,
    /// The folder or file to search, relative to the root. Default: everything.
    path: Option<String>,
}

struct Found<'a> {
    root: &'a Root,
    ctx: &'a ToolContext,
    wanted: String,
    lines: Vec<String>,
    bytes: usize,
    files: usize,
    skipped: usize,
    full: bool,
}

/// Returns matching lines as `path:line: text`, and how much was searched.
pub(super) fn search(root: &Root, ctx: &ToolContext, args: Search) -> Result<String, ToolError> {
    let path = Beneath::parse(args.path.as_deref().unwrap_or("."))?;
    let wanted = args.text.to_lowercase();
    let mut found = Found {
        root,
        ctx,
        wanted,
        lines: Vec::new(),
        bytes: 0,
        files: 0,
        skipped: 0,
        full: false,
    };
    match root.entries(&path) {
        Ok(_) => found.folder(&path)?,
        // The error of the folder is the clearer one where it is no file either.
        Err(error) => match text_of(root, &path) {
            Ok(text) => found.text(&path, &text),
            Err(_) => return Err(error),
        },
    }
    Ok(found.answer(&args.text))
}

impl Found<'_> {
    fn folder(&mut self, path: &Beneath) -> Result<(), ToolError> {
        let (entries, more) = self.root.entries(path)?;
        self.full |= more;
        for entry in entries {
            if self.full {
                return Ok(());
            }
            if self.ctx.is_cancelled() {
                return Err(ToolError::failed("The search was cancelled."));
            }
            let inner = path.join(&entry.name);
            match entry.kind {
                EntryKind::Folder if inner.depth() < MAX_DEPTH => {
                    // A folder that cannot be read, or is gone, does not end the search.
                    if self.folder(&inner).is_err() {
                        self.skipped += 1;
                    }
                }
                EntryKind::File { bytes } if bytes <= MAX_FILE_BYTES => self.file(&inner),
                _ => self.skipped += 1,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Beneath) {
        if self.files == MAX_FILES {
            self.full = true;
            return;
        }
        if self.files.is_multiple_of(PROGRESS_EVERY) {
            self.ctx
                .progress(None, format!("{} files searched", self.files));
        }
        match text_of(self.root, path) {
            Ok(text) => self.text(path, &text),
            Err(_) => self.skipped += 1,
        }
    }

    fn text(&mut self, path: &Beneath, text: &str) {
        self.files += 1;
        for (index, line) in text.lines().enumerate() {
            if !line.to_lowercase().contains(&self.wanted) {
                continue;
            }
            let line: String = line.trim().chars().take(MAX_LINE_CHARS).collect();
            let line = format!("{}:{}: {line}", path.shown(), index + 1);
            self.bytes += line.len() + 1;
            if self.lines.len() == MAX_MATCHES || self.bytes > MAX_ANSWER_BYTES {
                self.full = true;
                return;
            }
            self.lines.push(line);
        }
    }

    fn answer(&self, wanted: &str) -> String {
        let files = if self.files == 1 {
            "1 file".to_owned()
        } else {
            format!("{} files", self.files)
        };
        let skipped = match self.skipped {
            0 => String::new(),
            1 => ", 1 entry skipped".to_owned(),
            count => format!(", {count} entries skipped"),
        };
        let full = if self.full {
            ", and there may be more: search a smaller folder"
        } else {
            ""
        };
        if self.lines.is_empty() {
            return format!("No line contains {wanted:?} ({files} searched{skipped}{full}).");
        }
        let lines = self.lines.join("\n");
        let count = self.lines.len();
        let plural = if count == 1 {
            "line contains"
        } else {
            "lines contain"
        };
        format!("{count} {plural} {wanted:?} ({files} searched{skipped}{full}):\n{lines}")
    }
}
