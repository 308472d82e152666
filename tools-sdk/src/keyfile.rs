//! Remembered keys on disk, so that a sidecar that dies and comes back still runs each key once, and can
//! still say what became of a call.
//!
//! One JSON line when a call begins and one when it ended, each synced: the first before the tool runs, the
//! second before anybody is answered. A promise that a call never started is synced before it is given. A
//! call that began and did not end was interrupted: it is never run again unasked. A lock file beside it
//! keeps other processes out.

mod lines;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::answer::Outcome;
use crate::memory::random_name;
use lines::{Book, Ended, Line, now_ms};

pub(crate) use lines::{Begun, Fate, Kept};

/// Size from which the file is rewritten without what may be forgotten.
const COMPACT_BYTES: u64 = 32 * 1024 * 1024;

/// The file, opened when it is first needed.
pub(crate) struct KeyFile {
    path: PathBuf,
    state: Mutex<State>,
}

/// The open file, and whether what lies at the path is what this process read or wrote.
struct State {
    opened: Option<Opened>,
    ours: bool,
    /// What the memory is called that the file holds.
    memory: String,
}

struct Opened {
    file: File,
    bytes: u64,
    _lock: File,
}

impl KeyFile {
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        let state = State {
            opened: None,
            ours: false,
            memory: random_name(),
        };
        Arc::new(Self {
            path,
            state: Mutex::new(state),
        })
    }

    /// What the file holds, if there is one. Nothing is created.
    pub(crate) fn load(&self) -> io::Result<Vec<Kept>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let lock = lock(&self.path)?;
        let mut book = Book::read(&std::fs::read(&self.path)?)?;
        book.interrupt();
        book.forget();
        // A file of an earlier version does not say what it is called.
        state.memory = book.memory.get_or_insert(state.memory.clone()).clone();
        state.opened = Some(rewrite(&self.path, &book, lock)?);
        state.ours = true;
        Ok(book.kept())
    }

    /// What the memory is called that the file holds: no call that was made to it is missing but those
    /// whose retention is over.
    pub(crate) fn memory(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.memory.clone()
    }

    /// Notes that a call is about to run; once this returned it may.
    pub(crate) async fn begin(self: &Arc<Self>, begun: Begun) -> io::Result<()> {
        self.note(Line::Begun(begun)).await
    }

    /// Notes how a call ended; once this returned it may be answered.
    pub(crate) async fn end(self: &Arc<Self>, begun: &Begun, outcome: &Outcome) -> io::Result<()> {
        self.note(Line::Ended(Ended::of(begun, outcome))).await
    }

    /// Notes that a call never started; once this returned it may be said.
    pub(crate) async fn bind(self: &Arc<Self>, begun: Begun) -> io::Result<()> {
        let at_ms = now_ms();
        self.note(Line::Bound { begun, at_ms }).await
    }

    /// Lets go of the file and its lock; a later note opens it again.
    pub(crate) fn close(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .opened = None;
    }

    async fn note(self: &Arc<Self>, line: Line) -> io::Result<()> {
        let file = Arc::clone(self);
        let noted = tokio::task::spawn_blocking(move || file.append(&line)).await;
        noted.map_err(io::Error::other)?
    }

    fn append(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out until it is whole again: after an error the next call starts from the disk.
        let mut opened = match state.opened.take() {
            Some(opened) if opened.bytes < COMPACT_BYTES => opened,
            Some(Opened { _lock, .. }) => {
                let mut book = Book::read(&std::fs::read(&self.path)?)?;
                book.forget();
                if book.text()?.len() as u64 > COMPACT_BYTES / 2 {
                    book.forget_early();
                }
                rewrite(&self.path, &book, _lock)?
            }
            None => open(&self.path, state.ours, &state.memory)?,
        };
        state.ours = true;
        let written = if opened.bytes < COMPACT_BYTES {
            opened.write(&text)
        } else {
            Err(io::Error::other(
                "too many calls are remembered there already",
            ))
        };
        state.opened = Some(opened);
        written
    }
}

impl Opened {
    /// Appends a whole line or nothing.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self
            .file
            .write_all(line)
            .and_then(|()| self.file.sync_data())
        {
            // A piece that stays is a torn line, and no call runs by it.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn open(path: &Path, ours: bool, memory: &str) -> io::Result<Opened> {
    let lock = lock(path)?;
    let file = append_to(path)?;
    let bytes = file.metadata()?.len();
    if bytes > 0 && !ours {
        return Err(io::Error::other(
            "another sidecar wrote keys there since this one started",
        ));
    }
    sync_folder(path)?;
    let mut opened = Opened {
        file,
        bytes,
        _lock: lock,
    };
    if bytes == 0 {
        // What was noted before is gone with the file that held it.
        let memory = if ours {
            random_name()
        } else {
            memory.to_owned()
        };
        let mut since = serde_json::to_vec(&Line::Since {
            at_ms: now_ms(),
            memory: Some(memory),
        })?;
        since.push(b'\n');
        opened.write(&since)?;
    }
    Ok(opened)
}

/// Writes the calls anew and puts the file in place at once.
fn rewrite(path: &Path, book: &Book, lock: File) -> io::Result<Opened> {
    let draft = beside(path, ".draft");
    let text = book.text()?;
    let mut file = private()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&draft)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    sync_folder(path)?;
    Ok(Opened {
        file: append_to(path)?,
        bytes: text.len() as u64,
        _lock: lock,
    })
}

fn lock(path: &Path) -> io::Result<File> {
    use rustix::fs::{FlockOperation, flock};
    let file = private()
        .write(true)
        .create(true)
        .truncate(false)
        .open(beside(path, ".lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => {
            io::Error::other("another running sidecar remembers its keys there")
        }
        errno => errno.into(),
    })?;
    Ok(file)
}

fn append_to(path: &Path) -> io::Result<File> {
    private().append(true).create(true).open(path)
}

/// Options for a file that is for its owner only and no link.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests;
