//! A recorded session as a golden one: a file that the core's tests read, fold and decide again.
//!
//! Invariant: a file is written whole or not at all, never over another one, and what it holds is said
//! in words: a recording is a conversation, and a repository is read by many.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use loopwright_core::{Entry, ids::Timestamp};
use serde::Serialize;

use super::{Counts, source::Line};

/// Where the core's tests find golden sessions, from the root of the repository.
const FOLDER: &str = "server/core/tests/golden";
/// A golden session is read by every test run, and by people.
const MAX_BYTES: usize = 16 << 20;

/// A golden session in the making.
#[derive(Debug)]
pub(super) struct Golden {
    path: PathBuf,
    lines: Vec<u8>,
}

/// A line of the file.
#[derive(Serialize)]
struct Written<'a> {
    at: Timestamp,
    entry: &'a Entry,
}

impl Golden {
    /// Of a name, in the core's folder; or of a file, where it is written as a path or ends in `.jsonl`.
    pub(super) fn at(name: &str) -> anyhow::Result<Self> {
        let is_file = name.contains('/') || name.ends_with(".jsonl");
        let path = if is_file {
            PathBuf::from(name)
        } else {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            ensure!(
                !name.is_empty() && name.chars().all(allowed),
                "--golden {name:?}: a name has a-z, 0-9 and '_' alone; a file is written with its path"
            );
            let folder = Path::new(FOLDER);
            ensure!(
                folder.is_dir(),
                "--golden {name}: there is no {FOLDER} below this directory; run it at the root of the \
                 repository, or give a file, such as ./{name}.jsonl"
            );
            folder.join(format!("{name}.jsonl"))
        };
        ensure!(
            !path.exists(),
            "--golden: {} is there already, and a golden session is never written over; remove it first",
            path.display()
        );
        Ok(Self {
            path,
            lines: Vec::new(),
        })
    }

    /// Takes one more entry.
    pub(super) fn push(&mut self, line: &Line) -> anyhow::Result<()> {
        let written = Written {
            at: line.at,
            entry: &line.entry,
        };
        serde_json::to_writer(&mut self.lines, &written)?;
        self.lines.push(b'\n');
        if self.lines.len() > MAX_BYTES {
            bail!(
                "--golden: the session is larger than a golden one may be ({} MiB)",
                MAX_BYTES >> 20
            );
        }
        Ok(())
    }

    /// Writes the file; what is to be said about it.
    pub(super) fn write(self, counts: &Counts) -> anyhow::Result<Vec<String>> {
        let path = self.path.display();
        let cannot = || format!("--golden: {path} cannot be written");
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.path)
            .with_context(cannot)?;
        if let Err(error) = file.write_all(&self.lines) {
            // Half a session is none; where it cannot be taken away either, the words say enough.
            let _ = std::fs::remove_file(&self.path);
            return Err(error).with_context(cannot);
        }
        Ok(vec![
            format!(
                "wrote {path}: {} entries, {} bytes",
                counts.entries,
                self.lines.len()
            ),
            format!(
                "  it holds the session as it was recorded ({counts}): every message and reply in full, \
                 arguments and results of tools, the system prompt, the tools on offer, labels and who \
                 asked; payloads kept beside the log stand in it as hashes. Read it before you commit it"
            ),
            format!(
                "  `cargo test -p loopwright-core --test golden` decides every file of {FOLDER} again"
            ),
        ])
    }
}
