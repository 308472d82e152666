//! The folder that no path leaves.
//!
//! Paths are walked component by component from an open descriptor of the root, and no symbolic link is
//! followed: neither `..`, nor an absolute path, nor a link that is swapped in during the walk leads out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use loopwright_tools::ToolError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Longest path, in bytes.
const MAX_PATH_BYTES: usize = 1024;
/// Longest component of a path, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Most components of a path.
pub(super) const MAX_DEPTH: usize = 32;
/// How the names of the sidecar's own files begin.
const OWN_PREFIX: &str = ".loopwright-";
/// Most entries that are read of one folder.
const MAX_ENTRIES: usize = 10_000;

/// The root, held open: it stays the same folder whatever happens to its name.
pub(super) struct Root {
    folder: OwnedFd,
}

/// A path beneath the root, as its checked components; none for the root itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beneath {
    names: Vec<String>,
}

/// What a folder holds.
pub(super) struct FolderEntry {
    pub(super) name: String,
    pub(super) kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File { bytes: u64 },
    Folder,
    Link,
    Other,
}

impl Beneath {
    /// Reads a path that a model wrote. Refused paths surely did nothing.
    pub(super) fn parse(path: &str) -> Result<Self, ToolError> {
        Self::components(path)
            .map(|names| Self { names })
            .map_err(|why| {
                let shown: String = path.chars().take(80).collect();
                ToolError::not_executed(format!("The path {shown:?} cannot be used: {why}."))
            })
    }

    fn components(path: &str) -> Result<Vec<String>, String> {
        if path.len() > MAX_PATH_BYTES {
            return Err(format!(
                "it has {} bytes, more than {MAX_PATH_BYTES}",
                path.len()
            ));
        }
        if path.starts_with('/') {
            return Err(
                "it is absolute; write it relative to the root, such as notes.txt".to_owned(),
            );
        }
        if path.chars().any(char::is_control) {
            return Err("it contains a control character".to_owned());
        }
        let names: Vec<&str> = path
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".")
            .collect();
        if names.contains(&"..") {
            return Err("\"..\" would lead out of the root".to_owned());
        }
        if names.iter().any(|name| is_own(name)) {
            return Err(format!(
                "names that begin with {OWN_PREFIX:?} are the sidecar's own"
            ));
        }
        if names.len() > MAX_DEPTH {
            return Err(format!("it has more than {MAX_DEPTH} parts"));
        }
        match names.iter().find(|name| name.len() > MAX_NAME_BYTES) {
            Some(_) => Err(format!("a part of it has more than {MAX_NAME_BYTES} bytes")),
            None => Ok(names.into_iter().map(str::to_owned).collect()),
        }
    }

    /// The path for a reader; "." for the root.
    pub(super) fn shown(&self) -> String {
        if self.names.is_empty() {
            ".".to_owned()
        } else {
            self.names.join("/")
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.names.len()
    }

    pub(super) fn join(&self, name: &str) -> Self {
        let mut names = self.names.clone();
        names.push(name.to_owned());
        Self { names }
    }

    /// The folder and the name in it; an error for the root itself.
    pub(super) fn split(&self) -> Result<(Self, &str), ToolError> {
        match self.names.split_last() {
            Some((name, folder)) => Ok((
                Self {
                    names: folder.to_vec(),
                },
                name,
            )),
            None => Err(ToolError::not_executed(
                "The path names the root folder, not a file.",
            )),
        }
    }
}

impl Root {
    /// Opens a folder as the root.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            folder: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    /// Opens a folder beneath the root; makes what is missing of it where `make` says so.
    pub(super) fn folder(&self, path: &Beneath, make: bool) -> Result<OwnedFd, ToolError> {
        let mut folder = self.folder.try_clone()?;
        for (index, name) in path.names.iter().enumerate() {
            let shown = || path.names[..=index].join("/");
            if make {
                make_folder(&folder, name).map_err(|errno| failure(errno, &shown()))?;
            }
            folder = open_folder(&folder, name)
                .map_err(|errno| fault(&folder, name, errno, &shown()))?;
        }
        Ok(folder)
    }

    /// Opens a regular file beneath the root for reading.
    pub(super) fn file(&self, path: &Beneath) -> Result<File, ToolError> {
        let (folder, name) = path.split()?;
        let folder = self.folder(&folder, false)?;
        open_file(&folder, name, OFlags::RDONLY, &path.shown())
    }

    /// The entries of a folder by name, and whether there are more than are read.
    pub(super) fn entries(&self, path: &Beneath) -> Result<(Vec<FolderEntry>, bool), ToolError> {
        let folder = self.folder(path, false)?;
        let mut entries = Vec::new();
        let mut more = false;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            // A name that is no text cannot be asked for either.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." || is_own(name) {
                continue;
            }
            if entries.len() == MAX_ENTRIES {
                more = true;
                break;
            }
            // Gone in the meantime: no entry.
            if let Ok(kind) = kind_of(&folder, name) {
                entries.push(FolderEntry {
                    name: name.to_owned(),
                    kind,
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((entries, more))
    }
}

/// Opens a regular file in a folder. No link is followed and no pipe waited for.
pub(super) fn open_file(
    folder: &OwnedFd,
    name: &str,
    access: OFlags,
    shown: &str,
) -> Result<File, ToolError> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o644));
    let file = File::from(opened.map_err(|errno| fault(folder, name, errno, shown))?);
    if !file.metadata()?.is_file() {
        return Err(ToolError::failed(format!("{shown} is not a file.")));
    }
    Ok(file)
}

/// What the entry of this name is, links not followed.
pub(super) fn kind_of(folder: &OwnedFd, name: &str) -> Result<EntryKind, Errno> {
    let status = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => EntryKind::File {
            bytes: u64::try_from(status.st_size).unwrap_or(0),
        },
        FileType::Directory => EntryKind::Folder,
        FileType::Symlink => EntryKind::Link,
        _ => EntryKind::Other,
    })
}

/// The name of a file that is being written and not yet in place.
pub(super) fn draft_name() -> String {
    format!("{OWN_PREFIX}{}.draft", uuid::Uuid::now_v7().simple())
}

/// A system error at a path in words.
pub(super) fn failure(error: impl Into<io::Error>, shown: &str) -> ToolError {
    ToolError::failed(format!("{shown}: {}.", error.into()))
}

/// Drafts and remembered keys: the sidecar's own files, which no tool shows or touches.
fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
}

fn open_folder(folder: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

fn make_folder(folder: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => rustix::fs::fsync(folder),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Why an entry could not be opened, in words that a model can act on.
fn fault(folder: &OwnedFd, name: &str, errno: Errno, shown: &str) -> ToolError {
    let kind = kind_of(folder, name);
    ToolError::failed(match (errno, kind) {
        (Errno::NOENT, _) => {
            format!("There is no {shown}. The tool `list` shows what there is.")
        }
        (_, Ok(EntryKind::Link)) => {
            format!("{shown} is a symbolic link, and links are not followed.")
        }
        (Errno::NOTDIR, Ok(EntryKind::File { .. })) => format!("{shown} is a file, not a folder."),
        (Errno::ISDIR, _) => format!("{shown} is a folder, not a file."),
        _ => return failure(errno, shown),
    })
}
