//! The tools `write` and `append_line`. What they report is on the disk.

use std::fs::{File, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use loopwright_tools::{ToolContext, ToolError};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Deserialize;

use super::root::{Beneath, EntryKind, Root, draft_name, failure, kind_of, open_file};

/// Most bytes of a written file.
const MAX_CONTENT_BYTES: usize = 1024 * 1024;
/// Most bytes of an appended line.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// Largest file that is appended to, in bytes.
const MAX_APPENDED_BYTES: u64 = 64 * 1024 * 1024;

/// Arguments of `write`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    /// The file, relative to the root, such as "notes.txt".
    path: String,
    /// The whole new content.
    content: String,
}

/// Arguments of `append_line`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendLine {
    /// The file, relative to the root, such as "log.txt".
    path: String,
    /// The line, without a line break.
    line: String,
}

/// Puts the content in place at once: a reader sees the old file or the new one, also after a crash.
pub(super) fn write(root: &Root, _: &ToolContext, args: Write) -> Result<String, ToolError> {
    let path = Beneath::parse(&args.path)?;
    let bytes = args.content.len();
    if bytes > MAX_CONTENT_BYTES {
        return Err(ToolError::not_executed(format!(
            "The content has {bytes} bytes; at most {MAX_CONTENT_BYTES} can be written."
        )));
    }
    let (parent, name) = path.split()?;
    let shown = path.shown();
    let folder = root.folder(&parent, true)?;
    let permissions = replaced(&folder, name, &shown)?;
    let existed = permissions.is_some();
    let draft = draft_name();
    let placed = fill(&folder, &draft, args.content.as_bytes(), permissions)
        .and_then(|()| Ok(rustix::fs::renameat(&folder, &draft, &folder, name)?))
        .and_then(|()| Ok(rustix::fs::fsync(&folder)?));
    if let Err(error) = placed {
        // The error that counts is the first one.
        let _ = rustix::fs::unlinkat(&folder, &draft, AtFlags::empty());
        return Err(failure(error, &shown));
    }
    let what = if existed {
        "Replaced the file"
    } else {
        "Created the file"
    };
    Ok(format!("{what} {shown}: it has {bytes} bytes now."))
}

/// Appends the line and a line break, on a line of its own.
pub(super) fn append_line(root: &Root, args: &AppendLine) -> Result<String, ToolError> {
    let path = Beneath::parse(&args.path)?;
    if args.line.contains(['\n', '\r']) {
        return Err(ToolError::not_executed(
            "The line contains a line break; append line by line.",
        ));
    }
    if args.line.len() > MAX_LINE_BYTES {
        return Err(ToolError::not_executed(format!(
            "The line has {} bytes; at most {MAX_LINE_BYTES} can be appended.",
            args.line.len()
        )));
    }
    let (parent, name) = path.split()?;
    let shown = path.shown();
    let folder = root.folder(&parent, true)?;
    let access = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
    let mut file = open_file(&folder, name, access, &shown)?;
    if file.metadata()?.len() > MAX_APPENDED_BYTES {
        return Err(ToolError::not_executed(format!(
            "The file {shown} is too large to append to."
        )));
    }
    let opening = if ends_in_mid_line(&mut file)? {
        "\n"
    } else {
        ""
    };
    file.write_all(format!("{opening}{}\n", args.line).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| Ok(rustix::fs::fsync(&folder)?))
        .map_err(|error| failure(error, &shown))?;
    Ok(format!("Appended the line to {shown}."))
}

/// The permissions of the file that is replaced; `None` where there is none yet.
fn replaced(folder: &OwnedFd, name: &str, shown: &str) -> Result<Option<Permissions>, ToolError> {
    match kind_of(folder, name) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(failure(errno, shown)),
        Ok(EntryKind::File { .. }) => {
            let status = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(Some(Permissions::from_mode(status.st_mode & 0o777)))
        }
        Ok(EntryKind::Folder) => Err(ToolError::failed(format!(
            "{shown} is a folder, not a file."
        ))),
        Ok(EntryKind::Link) => Err(ToolError::failed(format!(
            "{shown} is a symbolic link, and links are not followed."
        ))),
        Ok(EntryKind::Other) => Err(ToolError::failed(format!("{shown} is not a file."))),
    }
}

fn fill(
    folder: &OwnedFd,
    draft: &str,
    content: &[u8],
    permissions: Option<Permissions>,
) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let mut file = File::from(rustix::fs::openat(folder, draft, flags, mode)?);
    file.write_all(content)?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.sync_all()
}

fn ends_in_mid_line(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}
