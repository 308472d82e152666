//! The sidecar `files`: reads, lists, searches and writes beneath one folder, and nowhere else.

mod list;
mod read;
mod root;
mod search;
mod write;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loopwright_tools::{Sidecar, Tool, ToolContext, ToolError};

use root::Root;

/// Where the keys of appended lines are remembered, beneath the root; out of reach of the tools.
const KEY_FILE: &str = ".loopwright-keys.jsonl";
/// How long appended lines are remembered by the key of their call.
const APPEND_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest delay before a line is appended.
pub(crate) const MAX_APPEND_DELAY: Duration = Duration::from_secs(10);
/// Most bytes of text that one answer holds.
const MAX_ANSWER_BYTES: usize = 24 * 1024;

const READ: &str = "Reads a text file and returns its lines. Long files come in pieces: the answer says \
    how to go on.";
const LIST: &str = "Lists the files and folders of a folder, with sizes.";
const SEARCH: &str = "Searches all files beneath a folder for a text and returns the lines that contain \
    it, as path:line: text. Upper and lower case are the same.";
const WRITE: &str = "Writes a text file: creates it, or replaces its whole content. Missing folders are \
    made.";
const APPEND: &str = "Appends one line to a text file, which is created if it is missing.";

/// What the sidecar `files` works on.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// The folder that no path leaves. Must exist.
    pub root: PathBuf,
    /// Waits this long before it appends a line, at most 10 s: makes a call slow enough to interrupt it, in
    /// demos and tests of crashes.
    pub append_delay: Duration,
}

/// The sidecar `files` under another name or its own. Fails if the root is no folder that can be opened.
pub fn files(name: &str, options: &FilesOptions) -> io::Result<Sidecar> {
    let root = Arc::new(Root::open(&options.root)?);
    let delay = options.append_delay.min(MAX_APPEND_DELAY);
    Ok(Sidecar::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .remember_in(options.root.join(KEY_FILE))
        .tool(on_root("read", READ, &root, read::read).read_only())
        .tool(on_root("list", LIST, &root, list::list).read_only())
        .tool(
            on_root("search", SEARCH, &root, search::search)
                .read_only()
                .max_concurrency(4),
        )
        .tool(
            on_root("write", WRITE, &root, write::write)
                .idempotent()
                .destructive(),
        )
        .tool(append(&root, delay).deduplicated(APPEND_RETENTION)))
}

/// A tool from a blocking function over the root.
fn on_root<A, R>(
    name: &str,
    description: &str,
    root: &Arc<Root>,
    work: fn(&Root, &ToolContext, A) -> Result<R, ToolError>,
) -> Tool
where
    A: serde::de::DeserializeOwned + schemars::JsonSchema + Send + 'static,
    R: loopwright_tools::IntoAnswer + Send + 'static,
{
    let root = Arc::clone(root);
    Tool::new(name, description, move |ctx: ToolContext, args: A| {
        let root = Arc::clone(&root);
        async move { tokio::task::spawn_blocking(move || work(&root, &ctx, args)).await? }
    })
}

fn append(root: &Arc<Root>, delay: Duration) -> Tool {
    let root = Arc::clone(root);
    Tool::new(
        "append_line",
        APPEND,
        move |ctx: ToolContext, args: write::AppendLine| {
            let root = Arc::clone(&root);
            async move {
                if !delay.is_zero() {
                    ctx.progress(
                        0.0,
                        format!("waiting {} ms before appending", delay.as_millis()),
                    );
                    tokio::select! {
                        () = tokio::time::sleep(delay) => (),
                        () = ctx.cancelled() => return Err(ToolError::not_executed("it was cancelled")),
                    }
                }
                tokio::task::spawn_blocking(move || write::append_line(&root, &args)).await?
            }
        },
    )
}

#[cfg(test)]
mod tests;
