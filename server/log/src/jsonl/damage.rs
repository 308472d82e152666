//! The note beside a condemned stream: what recovery found, kept until `repair` removes it.
//!
//! Invariant: a stream with a note takes no appends. A note that cannot be read still condemns.

use std::io;
use std::path::Path;

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

/// Every stream with a note, by key.
pub(crate) fn all(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<Corruption>> {
    let mut found = Vec::new();
    let dirs = |path: &Path| -> io::Result<Vec<String>> {
        let listed = disk.list(path)?.into_iter();
        Ok(listed
            .filter(|one| one.is_dir)
            .map(|one| one.name)
            .collect())
    };
    for namespace in dirs(layout.root())? {
        for kind in dirs(&layout.root().join(&namespace))? {
            for id in dirs(&layout.root().join(&namespace).join(&kind))? {
                let Ok(stream) = StreamKey::parse(&format!("{kind}/{namespace}/{id}")) else {
                    continue;
                };
                let content = match read_file(disk, &layout.damage(&stream)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    content => content?,
                };
                let note = serde_json::from_slice::<Note>(&content);
                found.push(note.map_or_else(
                    |error| Corruption {
                        stream: stream.clone(),
                        good_through: 0,
                        reason: format!("its damage note cannot be read: {error}"),
                    },
                    |note| Corruption {
                        stream: stream.clone(),
                        good_through: note.good_through,
                        reason: note.reason,
                    },
                ));
            }
        }
    }
    found.sort_by(|one, other| one.stream.cmp(&other.stream));
    Ok(found)
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
