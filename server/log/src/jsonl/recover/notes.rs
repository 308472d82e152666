//! What starts have found, in the log's own stream, and which streams are still to be told of it.
//!
//! A note is written into the stream's file with the files of other streams, before the checkpoint
//! and before any segment of the journal goes: no crash loses it, and one in between writes it
//! twice. Invariant: a stream is owed the word that bytes of it were cut as long as its last record
//! is the one after which they were; the word is its next record's.

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Recovery;
use crate::disk::{Disk, OpenAs, append_all, read_range};
use crate::jsonl::damage;
use crate::jsonl::path::Layout;
use crate::jsonl::session_file;
use crate::jsonl::stream::Mark;
use crate::key::{Id, StreamKey, StreamKind};
use crate::record::{NewRecord, Record, Seq};

/// What one note names of each kind, at most, so that it stays far below the limit of a record.
const PIECE: usize = 200;
/// Bytes of the newest notes that a start reads.
const READ_BYTES: u64 = 1 << 20;

/// Bytes that were cut from the end of a stream.
#[derive(Serialize, Deserialize)]
struct Cut {
    stream: String,
    bytes: u64,
    /// Its last record then, and that record's checksum.
    after: Seq,
    crc: u32,
    /// Where they are: what tells two cuts from one that was noted twice.
    kept_in: String,
}

#[derive(Deserialize)]
struct Note {
    events: Vec<Event>,
}

#[derive(Deserialize)]
enum Event {
    LogRecovered {
        #[serde(default)]
        cut: Vec<Cut>,
    },
    #[serde(untagged)]
    Other(serde::de::IgnoredAny),
}

impl Recovery<'_> {
    /// Brings the file of the notes in order, as every stream's that the journal names.
    pub(super) fn open_notes(&mut self) -> io::Result<()> {
        let key = key();
        if self.marks.contains_key(&key) || self.condemned.contains_key(&key) {
            return Ok(());
        }
        self.refile(&key, &[])
    }

    /// Writes down what this start has found; durable once the files of streams are synced.
    pub(super) fn note(&mut self) -> io::Result<()> {
        if !self.has_found() {
            return Ok(());
        }
        let key = key();
        let condemned = damage::read(self.disk, self.layout, &key)?.is_some();
        if condemned || self.condemned.contains_key(&key) {
            tracing::warn!(stream = %key, "damaged: the recovery is not noted in the log");
            return Ok(());
        }
        let mut mark = self.marks.get(&key).copied().unwrap_or_default();
        let at = SystemTime::now().into();
        let mut records = Vec::new();
        for body in self.bodies()? {
            let new = NewRecord::new(at, 0, body);
            if let Err(error) = new.check(&key) {
                tracing::warn!(%error, "a part of the recovery is not noted in the log");
                continue;
            }
            let record = Record::encode(&key, mark.seq + 1, &new, mark.crc);
            mark = mark.after(&record);
            records.push(record);
        }
        let file = self.disk.open(&self.layout.file(&key), OpenAs::Append)?;
        let (lines, size) = (records.iter().map(Record::raw), file.size()?);
        if let Err(error) = append_all(&*file, &lines.collect::<Vec<_>>()) {
            // A full disk keeps nobody from starting: this process knows what it has cut.
            file.cut(size)?;
            tracing::warn!(%error, "the recovery is not noted in the log");
            return Ok(());
        }
        self.touched.insert(key.clone());
        self.marks.insert(key, mark);
        Ok(())
    }

    /// What is found, in pieces that fit a record.
    fn bodies(&self) -> io::Result<Vec<Bytes>> {
        let set_aside: Vec<_> = self
            .report
            .set_aside
            .iter()
            .map(|one| {
                let (from, kept_in) = (one.from.to_string_lossy(), one.kept_in.to_string_lossy());
                json!({"from": from, "offset": one.offset, "bytes": one.bytes, "kept_in": kept_in})
            })
            .collect();
        let corrupt: Vec<_> = self
            .report
            .corrupt
            .iter()
            .map(|one| {
                let (stream, good_through) = (one.stream.as_str(), one.good_through);
                json!({"stream": stream, "good_through": good_through, "reason": one.reason})
            })
            .collect();
        let cut = self.cuts()?;
        let longest = set_aside.len().max(corrupt.len()).max(cut.len());
        let bodies = (0..longest.max(1)).step_by(PIECE).map(|from| {
            let recovered = json!({
                "set_aside": piece(&set_aside, from),
                "corrupt": piece(&corrupt, from),
                "cut": piece(&cut, from),
                "manifest_damaged": self.report.manifest_damaged,
            });
            let note = json!({"cause": "start", "events": [{"LogRecovered": recovered}]});
            note.to_string().into()
        });
        Ok(bodies.collect())
    }

    /// What was torn of streams that have records and are whole.
    fn cuts(&self) -> io::Result<Vec<Cut>> {
        let mut cuts = Vec::new();
        for aside in self.report.torn() {
            for (stream, bytes) in &aside.streams {
                let mark = match self.marks.get(stream) {
                    Some(mark) => *mark,
                    None => whole(self.disk, self.layout, stream)?,
                };
                if mark.seq > 0 && !self.condemned.contains_key(stream) {
                    cuts.push(Cut {
                        stream: stream.to_string(),
                        bytes: *bytes,
                        after: mark.seq,
                        crc: mark.crc,
                        kept_in: aside.kept_in.to_string_lossy().into_owned(),
                    });
                }
            }
        }
        Ok(cuts)
    }
}

/// The streams that are still to be told, with the bytes that were cut from them. The files of
/// streams are in order.
pub(super) fn owed(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<(StreamKey, u64)>> {
    let mut cuts: BTreeMap<(String, String), Cut> = BTreeMap::new();
    for cut in noted(disk, layout)? {
        cuts.insert((cut.stream.clone(), cut.kept_in.clone()), cut);
    }
    let mut owed: Vec<(StreamKey, u64)> = Vec::new();
    let mut stands: Option<(StreamKey, Mark)> = None;
    // By stream, so that each is looked at once.
    for cut in cuts.into_values() {
        let Ok(key) = StreamKey::parse(&cut.stream) else {
            continue;
        };
        let mark = match &stands {
            Some((of, mark)) if *of == key => *mark,
            _ => whole(disk, layout, &key)?,
        };
        stands = Some((key.clone(), mark));
        if (mark.seq, mark.crc) != (cut.after, cut.crc) {
            continue;
        }
        match owed.last_mut() {
            Some((last, bytes)) if *last == key => *bytes += cut.bytes,
            _ => owed.push((key, cut.bytes)),
        }
    }
    Ok(owed)
}

/// The cuts in the newest notes. Notes that cannot be read are nobody's loss but a word's.
fn noted(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<Cut>> {
    let key = key();
    let file = match disk.open(&layout.file(&key), OpenAs::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let from = file.size()?.saturating_sub(READ_BYTES);
    let bytes = read_range(
        &*file,
        from,
        usize::try_from(READ_BYTES).unwrap_or(usize::MAX),
    )?;
    let mut cuts = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        // Where the reading begins in the midst of one, that one is left out.
        let Ok(record) = Record::decode_of(Bytes::copy_from_slice(line), &key) else {
            continue;
        };
        let note = serde_json::from_slice::<Note>(&record.body());
        for event in note.map_or_else(|_| Vec::new(), |note| note.events) {
            match event {
                Event::LogRecovered { cut } => cuts.extend(cut),
                Event::Other(_) => {}
            }
        }
    }
    Ok(cuts)
}

/// Where a stream ends; nowhere if it is damaged.
fn whole(disk: &dyn Disk, layout: &Layout, key: &StreamKey) -> io::Result<Mark> {
    if damage::read(disk, layout, key)?.is_some() {
        return Ok(Mark::default());
    }
    let (mark, _, fault) = session_file::load(disk, &layout.file(key), key)?;
    Ok(if fault.is_none() {
        mark
    } else {
        Mark::default()
    })
}

fn piece<T>(all: &[T], from: usize) -> &[T] {
    let end = (from + PIECE).min(all.len());
    all.get(from.min(end)..end).unwrap_or_default()
}

fn key() -> StreamKey {
    let id = |text| Id::parse(text).expect("a fixed id is good");
    StreamKey::new(StreamKind::Log, &id("system"), &id("recovery"))
}
