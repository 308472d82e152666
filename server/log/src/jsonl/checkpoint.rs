//! The checkpoint manifest: how far the file of every open stream is known to be durable.
//!
//! Invariant: it is written after the files that it speaks of were synced, and before any segment
//! of the journal goes. A file shorter than its mark, or bad below it, has lost what was durable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use super::path::Layout;
use super::stream::Mark;
use crate::disk::{Disk, Unkept, read_file, replace_file};
use crate::key::StreamKey;
use crate::record::parse_hex8;

/// Marks by stream.
pub(crate) type Manifest = BTreeMap<StreamKey, Mark>;

/// What is in place of a manifest.
#[derive(Debug)]
pub(crate) enum Found {
    /// None, as before the first checkpoint.
    Missing,
    /// It does not match its checksum.
    Damaged,
    /// Written by a newer release.
    Newer(u32),
    /// The manifest, and the number of the journal's next segment: it never comes back, so that
    /// names in quarantine stay one-time.
    Good(Manifest, u64),
}

#[derive(serde::Deserialize)]
struct Document {
    v: u32,
    #[serde(default)]
    next_segment: u64,
    #[serde(default)]
    streams: Vec<Entry>,
}

#[derive(serde::Deserialize)]
struct Entry {
    stream: String,
    seq: u64,
    bytes: u64,
    crc: String,
}

pub(crate) fn write(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    next_segment: u64,
) -> Result<(), Unkept> {
    let mut text = format!("{{\"v\":1,\"next_segment\":{next_segment},\"streams\":[");
    for (key, mark) in manifest {
        let comma = if text.ends_with('[') { "" } else { "," };
        let Mark { seq, bytes, crc } = mark;
        write!(
            text,
            "{comma}\n{{\"stream\":\"{key}\",\"seq\":{seq},\"bytes\":{bytes},\"crc\":\"{crc:08x}\"}}"
        )
        .expect("writing to a String does not fail");
    }
    text.push(']');
    let crc = crc32c::crc32c(text.as_bytes());
    write!(text, ",\"crc\":\"{crc:08x}\"}}").expect("writing to a String does not fail");
    text.push('\n');
    replace_file(disk, &layout.checkpoint(), text.as_bytes())
}

pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> io::Result<Found> {
    let content = match read_file(disk, &layout.checkpoint()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        content => content?,
    };
    Ok(parse(&content).unwrap_or(Found::Damaged))
}

fn parse(content: &[u8]) -> Option<Found> {
    let covered = content.len().checked_sub(19)?;
    let crc = content[covered..]
        .strip_prefix(b",\"crc\":\"")?
        .strip_suffix(b"\"}\n")?;
    if parse_hex8(crc)? != crc32c::crc32c(&content[..covered]) {
        return None;
    }
    let document: Document = serde_json::from_slice(content).ok()?;
    if document.v > 1 {
        return Some(Found::Newer(document.v));
    }
    let marks = document.streams.iter().map(|entry| {
        let crc = parse_hex8(entry.crc.as_bytes())?;
        let mark = Mark {
            seq: entry.seq,
            crc,
            bytes: entry.bytes,
        };
        Some((StreamKey::parse(&entry.stream).ok()?, mark))
    });
    marks
        .collect::<Option<Manifest>>()
        .map(|manifest| Found::Good(manifest, document.next_segment))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::path::PathBuf;

    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn what_is_written_is_read_and_a_flip_is_seen() {
        let (disk, layout) = (SimDisk::default(), Layout::new(PathBuf::from("/d")));
        disk.create_dir(layout.root()).unwrap();
        assert!(matches!(read(&disk, &layout).unwrap(), Found::Missing));
        let key = |text: &str| StreamKey::parse(text).unwrap();
        let manifest = Manifest::from([
            (
                key("session/a/b"),
                Mark {
                    seq: 3,
                    crc: 0xdead_beef,
                    bytes: 999,
                },
            ),
            (
                key("ledger/a/main"),
                Mark {
                    seq: 1,
                    crc: 7,
                    bytes: 100,
                },
            ),
        ]);
        for manifest in [Manifest::new(), manifest] {
            write(&disk, &layout, &manifest, 7).unwrap();
            let Found::Good(found, 7) = read(&disk, &layout).unwrap() else {
                panic!()
            };
            assert_eq!(found, manifest);
        }
        let len = disk.content(&layout.checkpoint()).unwrap().len();
        for at in 0..len {
            disk.rot(&layout.checkpoint(), at, |byte| *byte ^= 4);
            assert!(
                matches!(read(&disk, &layout).unwrap(), Found::Damaged),
                "byte {at}"
            );
            disk.rot(&layout.checkpoint(), at, |byte| *byte ^= 4);
        }
    }
}
