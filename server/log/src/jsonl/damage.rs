//! The note beside a condemned stream: what recovery found, kept until `repair` removes it.
//!
//! Invariant: a stream with a note takes no appends. A note that cannot be read still condemns.

use std::io;

use super::path::Layout;
use crate::disk::{Disk, read_file, replace_file};
use crate::error::Corruption;
use crate::key::StreamKey;

#[derive(serde::Serialize, serde::Deserialize)]
struct Note {
    stream: String,
    good_through: u64,
    reason: String,
}

/// Why a stream is condemned, if it is.
pub(crate) fn read(
    disk: &dyn Disk,
    layout: &Layout,
    key: &StreamKey,
) -> io::Result<Option<String>> {
    match read_file(disk, &layout.damage(key)) {
        Ok(content) => Ok(Some(match serde_json::from_slice::<Note>(&content) {
            Ok(note) => note.reason,
            Err(error) => format!("its damage note cannot be read: {error}"),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Condemns a stream, durably once the directories above are synced.
pub(crate) fn write(disk: &dyn Disk, layout: &Layout, corruption: &Corruption) -> io::Result<()> {
    let Corruption {
        stream,
        good_through,
        reason,
    } = corruption;
    let note = Note {
        stream: stream.to_string(),
        good_through: *good_through,
        reason: reason.clone(),
    };
    let mut text = serde_json::to_vec(&note).map_err(io::Error::other)?;
    text.push(b'\n');
    replace_file(disk, &layout.damage(stream), &text)?;
    Ok(())
}
