//! The disk of the operating system.
//!
//! Invariant: files are 0600 and directories 0700, whatever the umask allows beyond.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};

use super::{Disk, DiskFile, Listed, Lock, LockError, OpenAs};

/// How long a refused lock waits for its holder's name: a holder writes it right after it locks.
const NAME_PATIENCE: Duration = Duration::from_millis(500);

/// Threads that sync many files.
const SYNC_THREADS: usize = 8;

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile(File);

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match how {
            OpenAs::Read => {}
            OpenAs::Append => {
                options.append(true).create(true);
            }
            OpenAs::Fresh => {
                // Append and truncate exclude each other in `OpenOptions`.
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => options.append(true).create_new(true),
                };
            }
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let entries = match fs::read_dir(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Vec::new());
            }
            entries => entries?,
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                listed.push(Listed {
                    name,
                    is_dir: entry.file_type()?.is_dir(),
                });
            }
        }
        Ok(listed)
    }

    /// Side by side, so that the file system commits many at once.
    fn sync_files(&self, files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
        let share = files.len().div_ceil(SYNC_THREADS).max(1);
        thread::scope(|scope| {
            let sync_share = |share| move || sync_each(share);
            let threads: Vec<_> = files
                .chunks(share)
                .map(|share| scope.spawn(sync_share(share)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a sync panicked")))
            })
        })
    }

    fn lock(&self, path: &Path) -> Result<Lock, LockError> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(path).map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                return Err(LockError::Held { pid: holder(path) });
            }
            Err(error) => return Err(LockError::Io(error.into())),
        }
        let name = format!("{}\n", std::process::id());
        // On a full disk the name is missing from what the others are told; the lock holds.
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(name.as_bytes()));
        Ok(Box::new(file))
    }
}

impl DiskFile for RealFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.0).write_vectored(parts)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn sync_each(files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
    files.iter().try_for_each(|file| file.sync())
}

/// Who holds the lock behind the file at `path` now, which is not made: `None` if nobody does, else the
/// process, where the file names it. For an instant it is shared, which refuses whoever takes it then.
pub(crate) fn held_by(path: &Path) -> io::Result<Option<Option<u32>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(Some(holder(path))),
        Err(error) => Err(error.into()),
    }
}

/// The process that the lock file names, once it names one that lives: between locking and
/// writing, the name is missing or that of a dead holder before.
fn holder(path: &Path) -> Option<u32> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < NAME_PATIENCE {
        let mut text = String::new();
        let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
        if read.is_ok() {
            last = text.trim().parse::<u32>().ok();
        }
        let pid = last
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        // A process of another user is alive, too, though it may not be signalled.
        let alive =
            |pid| !matches!(test_kill_process(pid), Err(error) if error == rustix::io::Errno::SRCH);
        if pid.is_some_and(alive) {
            return last;
        }
        thread::sleep(Duration::from_millis(5));
    }
    last
}
