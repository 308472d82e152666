//! What one stream may and must hold, and whether it does.

use bytes::Bytes;

use super::World;
use crate::blob::BlobRef;
use crate::disk::sim::SimDisk;
use crate::error::BlobError;
use crate::jsonl::engine::Engine;
use crate::jsonl::session_file;
use crate::jsonl::stream::Mark;
use crate::jsonl::threads::Parts;
use crate::key::StreamKey;
use crate::record::{Record, Seq};

/// One stream, as its callers know it.
#[derive(Default)]
pub(super) struct Model {
    /// Bodies that may be in the log, in order.
    pub(super) submitted: Vec<String>,
    /// How many of them must be.
    pub(super) acked: usize,
    /// How many of those the last sync that was due has made durable, whatever the policy.
    pub(super) synced: usize,
    /// Blobs that must be.
    pub(super) blobs: Vec<(BlobRef, Bytes)>,
    /// Its removal was asked for, and whether it is over is not known.
    pub(super) in_doubt: bool,
}

impl Model {
    /// The next body, told from every other by `nonce`.
    pub(super) fn submit(&mut self, nonce: u64, filling: u64) -> String {
        let filling = "x".repeat(usize::try_from(filling).expect("small"));
        let n = self.submitted.len();
        let body = format!("{{\"n\":{n},\"by\":{nonce},\"x\":\"{filling}\"}}");
        self.submitted.push(body.clone());
        body
    }

    pub(super) fn acknowledge(&mut self, seq: Seq) {
        self.acked = self.acked.max(usize::try_from(seq).expect("small"));
    }

    /// Nothing was written after `expected`.
    pub(super) fn take_back(&mut self, expected: Seq) {
        self.submitted
            .truncate(usize::try_from(expected).expect("small"));
    }

    /// Whether what the log holds is a prefix of what was submitted.
    pub(super) fn begins_with(&self, bodies: &[String]) -> bool {
        self.submitted.starts_with(bodies)
    }

    fn check(&mut self, key: &StreamKey, bodies: &[String], engine: &Engine) {
        if self.in_doubt && bodies.is_empty() {
            // Gone, with whatever it had.
            *self = Model::default();
            return;
        }
        self.in_doubt = false;
        let (kept, acked, all) = (bodies.len(), self.acked, self.submitted.len());
        assert!(
            kept >= acked,
            "{key}: {acked} were acknowledged, {kept} are there"
        );
        assert!(kept <= all, "{key}: {all} were submitted, {kept} are there");
        assert!(self.begins_with(bodies), "{key} is not what was submitted");
        self.submitted.truncate(kept);
        // Readers may have seen it now, and the start has made it durable.
        (self.acked, self.synced) = (kept, kept);
        for (blob, payload) in &self.blobs {
            match engine.get_blob(key, blob) {
                // The disk of the simulation may fail to be read.
                Err(BlobError::Unavailable { .. }) => {}
                found => assert_eq!(found.as_ref(), Ok(payload), "{key}"),
            }
        }
    }
}

impl World {
    /// Compares what recovery left with what may and must be there.
    pub(super) fn check(&mut self, parts: &Parts) {
        assert!(
            !parts.report.manifest_damaged,
            "a manifest is put in place whole"
        );
        assert_eq!(
            parts.report.corrupt,
            [],
            "a disk that loses what it may is no damage"
        );
        for (key, model) in &mut self.models {
            let bodies = bodies(&self.disk, &parts.engine, key).expect("a good file");
            model.check(key, &bodies, &parts.engine);
        }
    }
}

/// What a stream's file holds; the error has what stands before the first fault.
pub(super) fn bodies(
    disk: &SimDisk,
    engine: &Engine,
    key: &StreamKey,
) -> Result<Vec<String>, Vec<String>> {
    let content = disk.content(&engine.layout.file(key)).unwrap_or_default();
    let (mut bodies, mut mark) = (Vec::new(), Mark::default());
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let line = Bytes::copy_from_slice(line);
        let Ok(record): Result<Record, _> = session_file::decode(line, key, mark) else {
            return Err(bodies);
        };
        mark = mark.after(&record);
        bodies.push(String::from_utf8_lossy(&record.body()).into_owned());
    }
    Ok(bodies)
}
