//! What a start found, for people, for the log's own stream, and as the reason not to open.
//!
//! Invariant: whatever recovery set aside or gave up is named here, with its place.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;

use crate::error::Corruption;
use crate::key::StreamKey;

/// Why the log did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves the directory.
    #[error("{} is in use by {}; stop it, or give this one a directory of its own", dir.display(), holder(*pid))]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The holder, where its lock file names it.
        pid: Option<u32>,
    },
    /// Written by a newer release.
    #[error("{} has format version {found}, this release reads up to 1; upgrade", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// Acknowledged bytes of the journal are damaged, and nothing tells whose they were.
    #[error(
        "{bytes} bytes at {offset} of {} are damaged, and may have held the last record of any \
         session; restore the file, or accept the loss with `loopwright log repair`",
        path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What a start found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments of the journal that were read.
    pub segments: usize,
    /// Good records in them.
    pub records: u64,
    /// Streams whose files were looked at.
    pub streams: usize,
    /// Records that were written to those files.
    pub refiled: u64,
    /// Bytes that belong to no acknowledged record, kept aside.
    pub set_aside: Vec<SetAside>,
    /// Streams that have lost acknowledged records; they read up to there and take no appends.
    pub corrupt: Vec<Corruption>,
    /// The checkpoint manifest did not match its checksum; the journal alone was believed.
    pub manifest_damaged: bool,
}

/// Bytes that recovery has kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The file that held them.
    pub from: PathBuf,
    /// Where they began.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Where they are now; from a log that is open for reading only, where they would be put.
    pub kept_in: PathBuf,
    /// Whose they seem to be, by the beginnings of their lines, with how many of them.
    pub streams: Vec<(StreamKey, u64)>,
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> OpenError {
        OpenError::Io {
            path: path.into(),
            source,
        }
    }
}

impl RecoveryReport {
    /// Whether the last end left nothing behind that a person should know of.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.set_aside.is_empty() && self.corrupt.is_empty() && !self.manifest_damaged
    }

    /// Bytes of this stream that were set aside: parts of records that were never acknowledged.
    /// `None` if there are none that are known to be its own.
    #[must_use]
    pub fn cut_bytes(&self, key: &StreamKey) -> Option<u64> {
        let streams = self.set_aside.iter().flat_map(|aside| &aside.streams);
        let own = streams.filter(|(owner, _)| owner == key);
        own.map(|(_, bytes)| *bytes)
            .reduce(|sum, bytes| sum + bytes)
    }

    /// What the log's own stream is told.
    pub(super) fn to_body(&self) -> Bytes {
        let set_aside: Vec<_> = self
            .set_aside
            .iter()
            .map(|one| {
                let (from, kept_in) = (one.from.to_string_lossy(), one.kept_in.to_string_lossy());
                json!({"from": from, "offset": one.offset, "bytes": one.bytes, "kept_in": kept_in})
            })
            .collect();
        let corrupt: Vec<_> = self
            .corrupt
            .iter()
            .map(|one| {
                let (stream, good_through) = (one.stream.as_str(), one.good_through);
                json!({"stream": stream, "good_through": good_through, "reason": one.reason})
            })
            .collect();
        let recovered = json!({
            "set_aside": set_aside,
            "corrupt": corrupt,
            "manifest_damaged": self.manifest_damaged,
        });
        json!({"cause": "start", "events": [{"LogRecovered": recovered}]})
            .to_string()
            .into()
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}
