//! The file of briefs beside the log: what spares a list, and a start, the fold of every session.
//!
//! Boundary: blocking, and the only place that knows the database. Invariant (law 1): it may be
//! deleted at any time. Whatever is wrong with it, it is thrown away with one line of the server's
//! own log, and the index goes on without; nothing here is ever an error of anybody's.
//!
//! A value is a CRC-32C, then JSON: the brief, and how many bytes of the stream it was folded from.
//! The log says with every listing how many bytes each stream has, so that a brief which is behind,
//! or of a log that was restored from elsewhere, shows.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use loopwright_log::{Id, StreamKey};
use redb::{Database, ReadableDatabase as _, TableDefinition, TableError};
use serde::{Deserialize, Serialize};

use super::brief::Brief;

/// The version of what is written here; another one is thrown away.
const VERSION: u64 = 3;
/// Memory for pages of the file, bytes.
const CACHE_BYTES: usize = 4 << 20;

const BRIEFS: TableDefinition<&str, &[u8]> = TableDefinition::new("briefs");
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");

/// The file; nothing once it was given up or closed.
pub(super) struct Shelf {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

/// A brief, and the size of the stream that it was folded from, bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) bytes: u64,
    pub(super) brief: Brief,
}

/// Something that is to be changed.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Keep(StreamKey, Box<Kept>),
    Forget(StreamKey),
}

impl Shelf {
    /// Opens the file, or a new one in its place. `None` where not even that is possible.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let opened = opened(path).or_else(|reason| {
            tracing::warn!(path = %path.display(), %reason, "the index is thrown away and made anew");
            remove(path)?;
            opened(path)
        });
        match opened {
            Ok(database) => Some(Self {
                path: path.to_owned(),
                database: RwLock::new(Some(database)),
            }),
            Err(reason) => {
                tracing::warn!(path = %path.display(), %reason, "there is no index on disk; lists fold logs");
                None
            }
        }
    }

    /// The brief of one session.
    pub(super) fn get(&self, key: &StreamKey) -> Option<Kept> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(BRIEFS)?;
            let value = table.get(key.as_str())?;
            Ok(value.and_then(|value| parse(value.value())))
        })
        .flatten()
    }

    /// All briefs, of one namespace or of all, in the order of keys.
    pub(super) fn all(&self, namespace: Option<&Id>) -> Vec<(StreamKey, Kept)> {
        // `0` is the character after `/`.
        let (from, to) = match namespace {
            Some(one) => (format!("session/{one}/"), format!("session/{one}0")),
            None => ("session/".to_owned(), "session0".to_owned()),
        };
        let all = self.with(|database| {
            let table = database.begin_read()?.open_table(BRIEFS)?;
            let mut all = Vec::new();
            for row in table.range(from.as_str()..to.as_str())? {
                let (key, value) = row?;
                let found = StreamKey::parse(key.value()).ok().zip(parse(value.value()));
                all.extend(found);
            }
            Ok(all)
        });
        let mut all = all.unwrap_or_default();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Writes changes, all or none, durable.
    pub(super) fn write(&self, changes: &[Change]) {
        self.with(|database| {
            let writing = database.begin_write()?;
            {
                let mut table = writing.open_table(BRIEFS)?;
                for change in changes {
                    match change {
                        Change::Keep(key, kept) => {
                            table.insert(key.as_str(), bytes_of(kept).as_slice())?;
                        }
                        Change::Forget(key) => {
                            table.remove(key.as_str())?;
                        }
                    }
                }
            }
            writing.commit()?;
            Ok(())
        });
    }

    /// Closes the file in order. From here on nothing is kept.
    pub(super) fn close(&self) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        drop(database.take());
    }

    /// Does something with the file; one that fails is given up.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Option<T> {
        let done = {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = database.as_ref()?;
            guarded(|| work(database))
        };
        match done {
            Ok(done) => Some(done),
            Err(reason) => {
                self.give_up(&reason);
                None
            }
        }
    }

    fn give_up(&self, reason: &str) {
        self.close();
        let removed = remove(&self.path);
        tracing::warn!(
            path = %self.path.display(), %reason, removed = removed.is_ok(),
            "the index cannot be used; it is made anew at the next start"
        );
    }
}

/// A file that is whole and of this version, made if there is none.
fn opened(path: &Path) -> Result<Database, String> {
    let made = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path);
    made.map_err(|error| error.to_string())?;
    let database = guarded(|| {
        let mut builder = Database::builder();
        Ok(builder.set_cache_size(CACHE_BYTES).create(path)?)
    })?;
    match guarded(|| version_of(&database))? {
        Some(VERSION) => {}
        Some(other) => {
            return Err(format!(
                "it is of version {other}, this release has {VERSION}"
            ));
        }
        None => guarded(|| {
            let writing = database.begin_write()?;
            writing.open_table(ABOUT)?.insert("version", VERSION)?;
            writing.open_table(BRIEFS)?;
            Ok(writing.commit()?)
        })?,
    }
    Ok(database)
}

fn version_of(database: &Database) -> Result<Option<u64>, redb::Error> {
    let about = match database.begin_read()?.open_table(ABOUT) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        about => about?,
    };
    Ok(about.get("version")?.map(|version| version.value()))
}

/// Runs what may panic on a file that is not what it should be.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("it is not what an index looks like".to_owned()),
    }
}

fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn bytes_of(kept: &Kept) -> Vec<u8> {
    let mut value = vec![0; 4];
    serde_json::to_writer(&mut value, kept).expect("a brief has string keys alone");
    let crc = crc32c::crc32c(&value[4..]);
    value[..4].copy_from_slice(&crc.to_le_bytes());
    value
}

fn parse(value: &[u8]) -> Option<Kept> {
    let (crc, json) = value.split_first_chunk::<4>()?;
    if crc32c::crc32c(json) != u32::from_le_bytes(*crc) {
        return None;
    }
    serde_json::from_slice(json).ok()
}
