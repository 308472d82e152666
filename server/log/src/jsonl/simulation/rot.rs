//! The end of a world: a bit of what lies on the disk flips. What it takes away is told.

use std::path::Path;
use std::sync::Arc;

use super::World;
use super::model::bodies;
use crate::error::BlobError;
use crate::jsonl::threads::Parts;
use crate::jsonl::{JsonlOptions, OpenError};

impl World {
    /// Flips one bit of one file, and opens the log once more.
    pub(super) fn rot(&mut self) {
        let mut files = self.disk.paths();
        files.retain(|path| self.disk.content(path).is_some_and(|c| !c.is_empty()));
        let Some(path) = pick(&files, self.dice.below(files.len() as u64)) else {
            return;
        };
        let size = self.disk.content(path).map_or(0, |content| content.len());
        let bit = self.dice.below(size as u64 * 8);
        let at = usize::try_from(bit / 8).expect("within the file");
        self.disk.rot(path, at, |byte| *byte ^= 1 << (bit % 8));
        self.tally.flips += 1;

        let mut stopped = false;
        let parts = match self.open() {
            Err(OpenError::Damaged { .. }) => {
                stopped = true;
                self.disk.kill();
                let accepting = JsonlOptions {
                    accept_damage: true,
                    ..self.options.clone()
                };
                Parts::open(Arc::new(self.disk.clone()), accepting)
            }
            opened => opened,
        };
        let parts = parts.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let told_of_all = stopped || !parts.report.is_clean();
        let mut lost = false;
        for (key, model) in &self.models {
            let place = || format!("{key}, bit {bit} of {}", path.display());
            let found = bodies(&self.disk, &parts.engine, key).unwrap_or_else(|prefix| prefix);
            assert!(model.begins_with(&found), "{}", place());
            let verdict = parts.engine.verify(key, None);
            let verdict = verdict.expect("the disk can be read");
            let short = found.len() < model.acked;
            assert!(
                !short || told_of_all || !verdict.is_good(),
                "{}: the loss goes unnoticed",
                place()
            );
            lost |= short;
            for (blob, payload) in &model.blobs {
                match parts.engine.get_blob(key, blob) {
                    Ok(same) => assert_eq!(same, payload, "{}", place()),
                    Err(BlobError::Damaged { .. }) => lost = true,
                    Err(other) => panic!("{}: {other}", place()),
                }
            }
        }
        self.tally.told += u64::from(lost);
    }
}

fn pick(files: &[std::path::PathBuf], n: u64) -> Option<&Path> {
    let n = usize::try_from(n).ok()?;
    files.get(n).map(std::path::PathBuf::as_path)
}
