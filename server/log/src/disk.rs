//! All I/O of the file-based log, behind one small trait, so that a simulated disk can do to it
//! what real ones do: lose what was not synced, tear, flip, fill up, and fail.
//!
//! Boundary: bytes, names and syncs; no notion of a record. Invariant: what `sync` and `sync_dir`
//! have answered `Ok` for survives a loss of power, and nothing else is assumed to.

mod overlay;
mod real;
pub mod sim;

use std::any::Any;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use overlay::Overlay;
pub use real::RealDisk;
pub(crate) use real::held_by;

/// An open file. Appends go to its end; reads name their offset.
pub trait DiskFile: Send + Sync {
    /// Writes at the end; may write less than it was given.
    ///
    /// # Errors
    /// As the disk says; bytes may have been written nevertheless.
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Reads from an offset; less than asked for at the end of the file.
    ///
    /// # Errors
    /// As the disk says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// As the disk says.
    fn size(&self) -> io::Result<u64>;

    /// Cuts the file.
    ///
    /// # Errors
    /// As the disk says.
    fn cut(&self, size: u64) -> io::Result<()>;

    /// Makes the content durable. After an error nothing is known of what was not durable before,
    /// and a second call proves nothing.
    ///
    /// # Errors
    /// As the disk says.
    fn sync(&self) -> io::Result<()>;
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenAs {
    /// It exists; only reads.
    Read,
    /// Reads and appends; made (mode 0600) if it does not exist.
    Append,
    /// Reads and appends; made anew and empty (mode 0600).
    Fresh,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name; names that are not UTF-8 are not listed.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Held by another process, or by another log of this one.
#[derive(Debug)]
pub enum LockError {
    /// Somebody holds it.
    Held {
        /// The holder's process id, where it could be read.
        pid: Option<u32>,
    },
    /// The disk failed.
    Io(io::Error),
}

/// Keeps a lock until it is dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A disk.
pub trait Disk: Send + Sync + 'static {
    /// Makes one directory, mode 0700; says whether it is new.
    ///
    /// # Errors
    /// As the disk says.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the disk says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` if it does not exist and is not to be made; else as the disk says.
    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Arc<dyn DiskFile>>;

    /// Whether the name exists.
    ///
    /// # Errors
    /// As the disk says.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The size of a file in bytes; `None` where there is none.
    ///
    /// # Errors
    /// As the disk says.
    fn size(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Renames a file, replacing what has the new name.
    ///
    /// # Errors
    /// As the disk says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the disk says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`; an error if it is not empty; else as the disk says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory in no order; none if it does not exist.
    ///
    /// # Errors
    /// As the disk says.
    fn list(&self, path: &Path) -> io::Result<Vec<Listed>>;

    /// Syncs many files; the first error counts, and then nothing is known of any of them.
    ///
    /// # Errors
    /// As the disk says.
    fn sync_files(&self, files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
        files.iter().try_for_each(|file| file.sync())
    }

    /// Takes the exclusive lock of a directory through the file at `path`, or says who has it.
    ///
    /// # Errors
    /// [`LockError::Held`] if it is taken; never waits for its release.
    fn lock(&self, path: &Path) -> Result<Lock, LockError>;
}

/// Appends all of it, however often the disk takes less.
pub(crate) fn append_all(file: &dyn DiskFile, parts: &[&[u8]]) -> io::Result<()> {
    /// Linux takes at most 1024 parts in one call.
    const PARTS: usize = 1024;
    for parts in parts.chunks(PARTS) {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        while rest.iter().any(|part| !part.is_empty()) {
            match file.append(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Bytes of a file that are copied at once.
const COPIED_AT_ONCE: usize = 1 << 20;

/// Reads `len` bytes from `offset`, or what there is up to the end of the file.
pub(crate) fn read_range(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

/// Reads a whole file.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Bytes> {
    let file = disk.open(path, OpenAs::Read)?;
    let size = usize::try_from(file.size()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    read_range(&*file, 0, size)
}

/// Why something was not put in place durably.
#[derive(Debug)]
pub(crate) enum Unkept {
    /// Nothing is in place; trying again may help.
    Write(io::Error),
    /// A sync failed; trying again proves nothing.
    Sync(io::Error),
}

impl From<Unkept> for io::Error {
    fn from(unkept: Unkept) -> io::Error {
        let (Unkept::Write(error) | Unkept::Sync(error)) = unkept;
        error
    }
}

/// Whether a file is as it was left: so long, and not in the midst of a line. A file that is not
/// is another writer's, too, and wants recovery before anything is added.
pub(crate) fn is_as_left(file: &dyn DiskFile, bytes: u64) -> io::Result<bool> {
    if file.size()? != bytes {
        return Ok(false);
    }
    let Some(last) = bytes.checked_sub(1) else {
        return Ok(true);
    };
    Ok(*read_range(file, last, 1)? == *b"\n")
}

/// Puts a file in place so that a crash leaves the old one or the new one, whole and durable.
pub(crate) fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), Unkept> {
    replace_by(disk, path, |draft| append_all(draft, &[content]))
}

/// Puts a file in place whose content are the first bytes of the one that is there. After a sync of
/// that one has failed, its bytes read as good and another sync of them proves nothing.
pub(crate) fn renew_file(disk: &dyn Disk, path: &Path, size: u64) -> Result<(), Unkept> {
    let file = disk.open(path, OpenAs::Read).map_err(Unkept::Write)?;
    replace_by(disk, path, |draft| {
        let mut at = 0;
        while at < size {
            let len =
                usize::try_from(size - at).map_or(COPIED_AT_ONCE, |left| left.min(COPIED_AT_ONCE));
            let piece = read_range(&*file, at, len)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            append_all(draft, &[&piece])?;
            at += piece.len() as u64;
        }
        Ok(())
    })
}

fn replace_by(
    disk: &dyn Disk,
    path: &Path,
    write: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> Result<(), Unkept> {
    let draft = path.with_extension("draft");
    let file = disk.open(&draft, OpenAs::Fresh).map_err(Unkept::Write)?;
    write(&*file).map_err(Unkept::Write)?;
    file.sync().map_err(Unkept::Sync)?;
    disk.rename(&draft, path).map_err(Unkept::Write)?;
    match path.parent() {
        Some(parent) => disk.sync_dir(parent).map_err(Unkept::Sync),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::sim::{Dice, Plan, SimDisk};
    use super::*;

    #[test]
    fn a_renewed_file_survives_though_a_sync_of_the_old_one_failed() {
        let (disk, dir) = (SimDisk::default(), Path::new("/d"));
        let path = dir.join("f");
        disk.create_dir(dir).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let content: Vec<u8> = (0..=255).cycle().take(2 * COPIED_AT_ONCE + 9).collect();
        disk.plan(Plan {
            failing_sync: Some(1),
            ..Plan::default()
        });
        let file = disk.open(&path, OpenAs::Fresh).unwrap();
        append_all(&*file, &[&content]).unwrap();
        assert!(file.sync().is_err());
        let kept = content.len() - 3;
        renew_file(&disk, &path, kept as u64).unwrap();
        disk.power_cycle(&mut Dice::new(1));
        assert!(disk.content(&path).unwrap() == content[..kept]);

        let too_much = renew_file(&disk, &path, kept as u64 + 1);
        assert!(matches!(too_much, Err(Unkept::Write(_))), "{too_much:?}");
        assert!(disk.content(&path).unwrap() == content[..kept]);
    }
}
