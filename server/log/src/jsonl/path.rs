//! Where things lie in the data directory. Invariant: a path is built from parsed ids and fixed
//! words only.
//!
//! ```text
//! <dir>/LOCK                                   who serves this directory
//! <dir>/checkpoint.json                        what needs no journal any more
//! <dir>/journal/0000000001.jsonl               acknowledged records of all streams, in order
//! <dir>/quarantine/                            bytes that recovery has set aside
//! <dir>/NAMESPACE/session/ID/log.jsonl         the readable image of one stream
//! <dir>/NAMESPACE/session/ID/damage.json       present: the stream is condemned
//! <dir>/NAMESPACE/session/ID/blobs/SHA256      its large payloads
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::blob::BlobRef;
use crate::disk::Disk;
use crate::key::{StreamKey, StreamKind};

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Layout {
        Layout { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint.json")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.journal().join(format!("{number:010}.jsonl"))
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Where bytes of a stream's file are kept that a start found after its last record.
    pub(crate) fn torn_of(&self, key: &StreamKey, next_segment: u64, at: u64) -> String {
        format!("before-{next_segment:010}-{}-at-{at}.torn", flat(key))
    }

    /// Where what a repair cuts from a stream's file is kept.
    pub(crate) fn cut_of(&self, key: &StreamKey, next_segment: u64, count: u64) -> PathBuf {
        let name = format!("repair-{next_segment:010}-{count}-{}.jsonl", flat(key));
        self.quarantine().join(name)
    }

    /// Whether a file in quarantine holds bytes of this stream's file, and so of no other stream.
    pub(crate) fn is_aside_of(&self, name: &str, key: &StreamKey) -> bool {
        let between = |prefix: &str, suffix: &str| name.strip_prefix(prefix)?.strip_suffix(suffix);
        let torn = between("before-", ".torn")
            .and_then(|rest| rest.split_once('-')?.1.rsplit_once("-at-"))
            .map(|(stream, _)| stream);
        let cut = between("repair-", ".jsonl").and_then(|rest| rest.splitn(3, '-').nth(2));
        torn.or(cut) == Some(&*flat(key))
    }

    pub(crate) fn kind(&self, namespace: &str, kind: StreamKind) -> PathBuf {
        self.root.join(namespace).join(kind.as_str())
    }

    pub(crate) fn stream(&self, key: &StreamKey) -> PathBuf {
        self.kind(key.namespace(), key.kind()).join(key.id())
    }

    pub(crate) fn file(&self, key: &StreamKey) -> PathBuf {
        self.stream(key).join("log.jsonl")
    }

    pub(crate) fn damage(&self, key: &StreamKey) -> PathBuf {
        self.stream(key).join("damage.json")
    }

    pub(crate) fn blobs(&self, key: &StreamKey) -> PathBuf {
        self.stream(key).join("blobs")
    }

    /// `blob` is well-formed.
    pub(crate) fn blob(&self, key: &StreamKey, blob: &BlobRef) -> PathBuf {
        self.blobs(key).join(&blob.sha256)
    }

    /// The numbers of the journal's segments, ascending.
    pub(crate) fn segments(&self, disk: &dyn Disk) -> io::Result<Vec<u64>> {
        let listed = disk.list(&self.journal())?;
        let mut numbers: Vec<u64> = listed
            .iter()
            .filter(|entry| !entry.is_dir)
            .filter_map(|entry| entry.name.strip_suffix(".jsonl")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes a directory below the root with all above it. Its name lasts once
    /// [`Layout::chain`] is synced.
    pub(crate) fn create_dirs(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let below = path
            .strip_prefix(&self.root)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut at = self.root.clone();
        for name in below {
            at.push(name);
            disk.create_dir(&at)?;
        }
        Ok(())
    }

    /// A directory and those above it up to the root: what is synced for a new file in it to last.
    /// That a directory is there already does not say that its name is durable: the process that
    /// made it may have died before its sync.
    pub(crate) fn chain<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        dir.ancestors()
            .take_while(|at| at.starts_with(&self.root))
            .map(PathBuf::from)
    }
}

/// A key as a part of a file's name; no id has a dot.
fn flat(key: &StreamKey) -> String {
    key.as_str().replace('/', ".")
}
