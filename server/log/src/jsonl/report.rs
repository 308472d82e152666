//! What a start found, for people, for the log's own stream, and as the reason not to open.
//!
//! Invariant: whatever recovery set aside or gave up is named here, with its place.

use std::io;
use std::path::{Path, PathBuf};

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
         session; restore the file, or accept the loss with `loopwright log repair --dir {}`, which \
         keeps these bytes aside",
        path.display(), dir.display()
    )]
    Damaged {
        /// The data directory.
        dir: PathBuf,
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
    /// Bytes that are no good records, kept aside.
    pub set_aside: Vec<SetAside>,
    /// Streams from which bytes were cut, now or at an earlier start, and which have taken no record
    /// since: their next one is to say so. With how many bytes.
    pub owed: Vec<(StreamKey, u64)>,
    /// Streams that have lost acknowledged records; they read up to there and take no appends.
    pub corrupt: Vec<Corruption>,
    /// The checkpoint manifest did not match its checksum; the journal alone was believed.
    pub manifest_damaged: bool,
}

/// What bytes were, before they were set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Part of a write that was never acknowledged.
    Torn,
    /// Acknowledged: the streams that they were of have them in their files, or are damaged.
    Rotten,
    /// Acknowledged, and nothing tells whose they were: any stream may have lost its last records in
    /// them, and reads as whole.
    Nobodys,
}

/// Bytes that recovery has kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// What they were.
    pub remains: Remains,
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
        let streams = self.torn().flat_map(|aside| &aside.streams);
        let own = streams.filter(|(owner, _)| owner == key);
        own.map(|(_, bytes)| *bytes)
            .reduce(|sum, bytes| sum + bytes)
    }

    /// What was cut and had never been acknowledged.
    pub fn torn(&self) -> impl Iterator<Item = &SetAside> {
        let torn = |aside: &&SetAside| aside.remains == Remains::Torn;
        self.set_aside.iter().filter(torn)
    }

    /// What was acknowledged and is lost, and nothing tells whose it was.
    pub fn nobodys(&self) -> impl Iterator<Item = &SetAside> {
        let nobodys = |aside: &&SetAside| aside.remains == Remains::Nobodys;
        self.set_aside.iter().filter(nobodys)
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}
