//! Remembered keys on disk, so that a sidecar that dies and comes back still runs each key once.
//!
//! One JSON line when a call begins and one when it ended, each synced: the first before the tool runs, the
//! second before anybody is answered. A call that began and did not end is answered, after a restart, with an
//! error result that says so: it is never run again. A lock file beside it keeps other processes out.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::{Answer, Outcome};

/// Size from which the file is rewritten without what may be forgotten.
const COMPACT_BYTES: u64 = 32 * 1024 * 1024;
/// What is answered for a call that the sidecar's end interrupted.
const INTERRUPTED: &str = "The sidecar stopped in the middle of this call: whether it had its effect is \
    not known. Check before you try it again.";

/// The file, opened when it is first needed.
pub(crate) struct KeyFile {
    path: PathBuf,
    state: Mutex<State>,
}

/// The open file, and whether what lies at the path is what this process read or wrote.
#[derive(Default)]
struct State {
    opened: Option<Opened>,
    ours: bool,
}

/// A call of a deduplicated tool, as it is remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Begun {
    pub(crate) key: String,
    pub(crate) tool: String,
    pub(crate) arguments_sha256: String,
    pub(crate) epoch: u64,
    pub(crate) retention_ms: u64,
}

impl Begun {
    /// How long the call is remembered once it ended.
    pub(crate) fn retention(&self) -> Duration {
        Duration::from_millis(self.retention_ms)
    }
}

/// A call that ended before this process began.
pub(crate) struct Kept {
    pub(crate) begun: Begun,
    pub(crate) ended_ago: Duration,
    pub(crate) outcome: Outcome,
}

struct Opened {
    file: File,
    bytes: u64,
    _lock: File,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begun(Begun),
    Ended(Ended),
}

#[derive(Clone, Deserialize, Serialize)]
struct Ended {
    key: String,
    at_ms: u64,
    /// `None`: it did nothing, and the key is free.
    answer: Option<Said>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Said {
    text: String,
    structured: Option<Value>,
    is_error: bool,
}

type Calls = BTreeMap<String, (Begun, Option<Ended>)>;

impl KeyFile {
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            path,
            state: Mutex::default(),
        })
    }

    /// What the file holds, if there is one. Nothing is created.
    pub(crate) fn load(&self) -> io::Result<Vec<Kept>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let lock = lock(&self.path)?;
        let mut calls = read(&self.path)?;
        for (begun, ended) in calls.values_mut().filter(|(_, ended)| ended.is_none()) {
            let said = Said {
                text: INTERRUPTED.to_owned(),
                structured: None,
                is_error: true,
            };
            *ended = Some(Ended {
                key: begun.key.clone(),
                at_ms: now_ms(),
                answer: Some(said),
            });
        }
        calls.retain(|_, call| is_live(call));
        state.opened = Some(rewrite(&self.path, &calls, lock)?);
        state.ours = true;
        Ok(calls
            .into_values()
            .filter_map(|(begun, ended)| kept(begun, ended?))
            .collect())
    }

    /// Notes that a call is about to run; once this returned it may.
    pub(crate) async fn begin(self: &Arc<Self>, begun: Begun) -> io::Result<()> {
        self.note(Line::Begun(begun)).await
    }

    /// Notes how a call ended; once this returned it may be answered.
    pub(crate) async fn end(self: &Arc<Self>, key: String, outcome: &Outcome) -> io::Result<()> {
        let answer = match outcome {
            Outcome::NotExecuted { .. } => None,
            Outcome::Answered { answer, is_error } => Some(Said {
                text: answer.text.clone(),
                structured: answer.structured.clone(),
                is_error: *is_error,
            }),
        };
        self.note(Line::Ended(Ended {
            key,
            at_ms: now_ms(),
            answer,
        }))
        .await
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
                let mut calls = read(&self.path)?;
                calls.retain(|_, call| is_live(call));
                rewrite(&self.path, &calls, _lock)?
            }
            None => open(&self.path, state.ours)?,
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

fn open(path: &Path, ours: bool) -> io::Result<Opened> {
    let lock = lock(path)?;
    let file = append_to(path)?;
    let bytes = file.metadata()?.len();
    if bytes > 0 && !ours {
        return Err(io::Error::other(
            "another sidecar wrote keys there since this one started",
        ));
    }
    sync_folder(path)?;
    Ok(Opened {
        file,
        bytes,
        _lock: lock,
    })
}

/// Writes the calls anew and puts the file in place at once.
fn rewrite(path: &Path, calls: &Calls, lock: File) -> io::Result<Opened> {
    let draft = beside(path, ".draft");
    let mut text = Vec::new();
    for (begun, ended) in calls.values() {
        let lines = [
            Some(Line::Begun(begun.clone())),
            ended.clone().map(Line::Ended),
        ];
        for line in lines.iter().flatten() {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
    }
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

fn read(path: &Path) -> io::Result<Calls> {
    let text = std::fs::read(path)?;
    let mut calls = Calls::new();
    let mut lines = text
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
        .peekable();
    while let Some((index, line)) = lines.next() {
        match serde_json::from_slice(line) {
            Ok(Line::Begun(begun)) => {
                calls.insert(begun.key.clone(), (begun, None));
            }
            Ok(Line::Ended(Ended {
                key, answer: None, ..
            })) => {
                calls.remove(&key);
            }
            Ok(Line::Ended(ended)) => {
                if let Some(call) = calls.get_mut(&ended.key) {
                    call.1 = Some(ended);
                }
            }
            // A torn last line: its call did not run, or was not answered.
            Err(_) if lines.peek().is_none() => (),
            Err(error) => {
                let text = format!(
                    "line {} is damaged ({error}); move the file away",
                    index + 1
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    Ok(calls)
}

fn is_live((begun, ended): &(Begun, Option<Ended>)) -> bool {
    let Some(ended) = ended else {
        return true;
    };
    now_ms().saturating_sub(ended.at_ms) <= begun.retention_ms
}

fn kept(begun: Begun, ended: Ended) -> Option<Kept> {
    let said = ended.answer?;
    let answer = Answer {
        text: said.text,
        structured: said.structured,
    };
    let outcome = Outcome::Answered {
        answer,
        is_error: said.is_error,
    };
    let ended_ago = Duration::from_millis(now_ms().saturating_sub(ended.at_ms));
    Some(Kept {
        begun,
        ended_ago,
        outcome,
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

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
