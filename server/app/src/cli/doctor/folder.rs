//! The data directory in the doctor's eyes: whose it is, where it lies, who serves it, what its log holds.
//!
//! Boundary: reads only; the log is looked at as by every command with `--dir`. Invariant: what cannot be
//! looked at is told as such, and never as well.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use loopwright_log::{JsonlLog, KeyQuery, Log as _, StreamKind, held_by};
use rustix::fs::{Access, access, statvfs};
use tokio::runtime::Handle;

use super::Finding;
use crate::config::{SessionLogConfig, units::ByteSize};

const ABOUT: &str = "session_log.dir";
/// Segments of the journal for which there should be room.
const SEGMENTS: u64 = 4;
/// Damaged sessions that are named.
const NAMED: usize = 20;

/// Everything about the folder. Blocks, within a runtime.
pub(super) fn look(config: &SessionLogConfig) -> Vec<Finding> {
    let dir = &config.dir;
    let mut findings = vec![owner(dir)];
    let there = nearest(dir);
    findings.extend(kind(&there));
    findings.push(room(&there, config.segment_bytes));
    findings.extend(holder(dir));
    if dir.join("journal").is_dir() {
        findings.extend(log(dir));
    }
    findings
}

/// Whether the folder is there, and this user's alone.
fn owner(dir: &Path) -> Finding {
    let shown = dir.display();
    let found = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = nearest(dir);
            return match access(&above, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => Finding::fine(
                    ABOUT,
                    format!("{shown} is not there yet; the first start makes it"),
                ),
                Err(error) => Finding::failed(
                    ABOUT,
                    format!(
                        "{shown} is not there and cannot be made in {}: {error}; make it, or set \
                         session_log.dir to another folder",
                        above.display()
                    ),
                ),
            };
        }
        Err(error) => return Finding::failed(ABOUT, format!("{shown}: {error}")),
    };
    if !found.is_dir() {
        let text = format!("{shown} is no folder; move it away, or set session_log.dir to another");
        return Finding::failed(ABOUT, text);
    }
    let (uid, own, mode) = (
        found.uid(),
        rustix::process::geteuid().as_raw(),
        found.mode() & 0o7777,
    );
    if let Err(error) = access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let text = format!(
            "{shown} is of user {uid} with mode {mode:04o}, and this user, {own}, cannot use it: \
             {error}; run as that user, or `chown -R {own} {shown}`"
        );
        return Finding::failed(ABOUT, text);
    }
    if uid != own {
        let text = format!(
            "{shown} is of user {uid}, and this is {own}: a server of this user leaves files there that \
             the other cannot read"
        );
        return Finding::warning(ABOUT, text);
    }
    if mode & 0o077 != 0 {
        let text = format!(
            "{shown} has mode {mode:04o}: others get in, and what sessions say is theirs to read; \
             `chmod 700 {shown}`"
        );
        return Finding::warning(ABOUT, text);
    }
    Finding::fine(ABOUT, format!("{shown}, this user's alone"))
}

/// The folder, or the first one above it that is there.
fn nearest(dir: &Path) -> PathBuf {
    let mut above = dir.ancestors();
    let there = above.find(|at| at.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// On what it lies, where that can be told.
#[cfg(target_os = "linux")]
fn kind(there: &Path) -> Option<Finding> {
    let found = rustix::fs::statfs(there).ok()?;
    // The numbers of statfs(2), of 32 bits; some of them are negative where that is a signed type.
    let number = u32::try_from(i128::from(found.f_type) & 0xffff_ffff).ok()?;
    let far = |name: &str| {
        Finding::warning(
            ABOUT,
            format!(
                "it lies on {name}: whether a sync and a lock there hold what they promise is not \
                 known; use a local disk"
            ),
        )
    };
    let passing = |name: &str, end: &str| {
        let text = format!("it lies on {name}: all sessions go {end}; use a disk, or a volume");
        Finding::warning(ABOUT, text)
    };
    let local = |name: &str| Finding::fine(ABOUT, format!("it lies on {name}"));
    Some(match number {
        0xef53 => local("ext4"),
        0x5846_5342 => local("xfs"),
        0x9123_683e => local("btrfs"),
        0x2fc1_2fc1 => local("zfs"),
        0xf2f5_2010 => local("f2fs"),
        0x0102_1994 => passing("tmpfs", "when the machine stops"),
        0x794c_7630 => passing("overlayfs", "with the container"),
        0x6969 => far("NFS"),
        0xff53_4d42 | 0xfe53_4d42 => far("SMB"),
        0x6573_5546 => far("FUSE"),
        0x0102_1997 => far("9p"),
        _ => return None,
    })
}

#[cfg(not(target_os = "linux"))]
fn kind(_there: &Path) -> Option<Finding> {
    None
}

fn room(there: &Path, segment: ByteSize) -> Finding {
    let free = match statvfs(there) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            let text = format!(
                "how much room {} has is not known: {error}",
                there.display()
            );
            return Finding::warning(ABOUT, text);
        }
    };
    let (left, segment_bytes) = (free >> 20, segment.get());
    let text = format!("{left} MiB are free; one segment of the journal takes {segment}");
    if free < segment_bytes {
        let way_out = "appends will be refused; make room, or lower session_log.segment_bytes";
        Finding::failed(ABOUT, format!("{text}: {way_out}"))
    } else if free < segment_bytes.saturating_mul(SEGMENTS) {
        Finding::warning(ABOUT, format!("{text}: make room soon"))
    } else {
        Finding::fine(ABOUT, text)
    }
}

fn holder(dir: &Path) -> Option<Finding> {
    match held_by(dir) {
        Ok(None) => None,
        Ok(Some(pid)) => {
            let pid = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            let text = format!("{pid} serves it now: a second server there is refused");
            Some(Finding::warning(ABOUT, text))
        }
        Err(error) => {
            let text = format!("whether a server has it is not known: LOCK: {error}");
            Some(Finding::warning(ABOUT, text))
        }
    }
}

/// What a start would find in the log.
fn log(dir: &Path) -> Vec<Finding> {
    let about = "log";
    let (log, report) = match JsonlLog::open_read_only(dir) {
        Ok(opened) => opened,
        Err(error) => return vec![Finding::failed(about, error.to_string())],
    };
    let mut findings = Vec::new();
    let shown = dir.display();
    for aside in report.nobodys() {
        let (bytes, offset, from) = (aside.bytes, aside.offset, aside.from.display());
        findings.push(Finding::failed(
            about,
            format!(
                "{bytes} bytes at {offset} of {from} are damaged, and nothing tells whose they were: no \
                 server starts; restore the file, or accept the loss with `loopwright log repair --dir \
                 {shown}`"
            ),
        ));
    }
    let torn: u64 = report.torn().map(|aside| aside.bytes).sum();
    if torn > 0 {
        let text = format!(
            "{torn} bytes of writes that were never acknowledged; the next start sets them aside"
        );
        findings.push(Finding::warning(about, text));
    }
    if report.manifest_damaged {
        let text = "checkpoint.json is damaged; the next start writes it anew";
        findings.push(Finding::warning(about, text));
    }
    match log.condemned() {
        Ok(damaged) => {
            for one in damaged.iter().take(NAMED) {
                let (id, namespace) = (one.stream.id(), one.stream.namespace());
                let (good, reason) = (one.good_through, &one.reason);
                findings.push(Finding::failed(
                    about,
                    format!(
                        "{id} in namespace {namespace} is CORRUPT, good up to seq {good}: {reason}; \
                         `loopwright log repair {id} --namespace {namespace} --dir {shown}` lets it go \
                         on from there"
                    ),
                ));
            }
            if let Some(more) = damaged.len().checked_sub(NAMED).filter(|more| *more > 0) {
                let text = format!("and {more} more are CORRUPT; `sessions list` shows all");
                findings.push(Finding::failed(about, text));
            }
        }
        Err(error) => findings.push(Finding::failed(about, error.to_string())),
    }
    if findings.is_empty() {
        findings.push(whole(&log, dir));
    }
    findings
}

/// Nothing is wrong as far as a start looks.
fn whole(log: &JsonlLog, dir: &Path) -> Finding {
    let about = "log";
    let query = KeyQuery {
        namespace: None,
        kind: StreamKind::Session,
        after: None,
        limit: usize::MAX,
    };
    match Handle::current().block_on(log.keys(query)) {
        Ok(page) => {
            let (count, dir) = (page.keys.len(), dir.display());
            let text = format!(
                "whole as far as a start looks, sessions: {count}; `loopwright log verify SESSION --dir \
                 {dir}` reads all of one"
            );
            Finding::fine(about, text)
        }
        Err(error) => Finding::failed(about, error.to_string()),
    }
}
