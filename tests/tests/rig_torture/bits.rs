//! Every bit of a log of 200 records, one at a time: in the journal, in a session's file, and in the
//! checkpoint's manifest.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result};
use loopwright_log::verify_stream;
use loopwright_tests::rig::{self, Chance, Outcome};

use super::{
    image::{self, Image, Lines, Truth},
    judge::Due,
    look::{self, Seen},
};

/// In CI, one bit of each so many bytes of a file is flipped; all of them in the full size.
const SAMPLE: usize = 9;

/// Where bits are flipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Journal,
    File,
    Manifest,
}

struct Target {
    place: Place,
    path: PathBuf,
    image: Image,
    truth: Truth,
    lines: Lines,
}

/// Flips what is to be flipped, on two threads.
pub(super) fn run(seed: u64) -> Result<Outcome> {
    let runtime = runtime()?;
    let (journal, of_journal) = runtime.block_on(image::journal())?;
    let (closed, of_closed) = runtime.block_on(image::closed())?;
    let manifest = Path::new(image::DIR).join("checkpoint.json");
    let targets = [
        Target::new(Place::Journal, image::segment(), &journal, &of_journal)?,
        Target::new(Place::File, image::file("s0"), &closed, &of_closed)?,
        Target::new(Place::Manifest, manifest, &closed, &of_closed)?,
    ];
    let mut all = Outcome::new("torture", seed);
    for target in &targets {
        all.absorb(target.flip_all(seed)?);
    }
    let (refused, flips) = (all.counted("refused"), all.counted("flips"));
    all.expect(refused * 20 < flips, || {
        format!("{refused} of {flips} starts were refused: damage is to stay where it is")
    });
    Ok(all)
}

impl Target {
    fn new(place: Place, path: PathBuf, image: &Image, truth: &Truth) -> Result<Self> {
        let lines = Lines::of(image.file(&path)?);
        let (image, truth) = (image.clone(), truth.clone());
        Ok(Self {
            place,
            path,
            image,
            truth,
            lines,
        })
    }

    fn flip_all(&self, seed: u64) -> Result<Outcome> {
        let bits = self.bits(seed)?;
        let next = AtomicUsize::new(0);
        let flip_some = || -> Result<Outcome> {
            let runtime = runtime()?;
            let mut outcome = Outcome::new("torture", seed);
            while let Some(bit) = bits.get(next.fetch_add(1, Ordering::Relaxed)) {
                outcome.count("flips", 1);
                let flipped = runtime.block_on(self.flip(*bit, &mut outcome));
                outcome.take(&format!("bit {bit} of {}", self.path.display()), flipped);
            }
            Ok(outcome)
        };
        let mut all = Outcome::new("torture", seed);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(flip_some)).collect();
            for thread in threads {
                let outcome = thread.join().ok().context("a thread of flips panicked")?;
                all.absorb(outcome?);
            }
            anyhow::Ok(())
        })?;
        Ok(all)
    }

    /// Every bit, or one bit of every few bytes.
    fn bits(&self, seed: u64) -> Result<Vec<usize>> {
        let size = self.image.file(&self.path)?.len();
        if rig::is_full() {
            return Ok((0..size * 8).collect());
        }
        let mut chance = Chance::new(seed, self.place as u64);
        let first = chance.place(SAMPLE);
        let bytes = (first..size).step_by(SAMPLE);
        Ok(bytes.map(|byte| byte * 8 + chance.place(8)).collect())
    }

    async fn flip(&self, bit: usize, outcome: &mut Outcome) -> Result<()> {
        let mut content = self.image.file(&self.path)?.to_vec();
        content[bit / 8] ^= 1 << (bit % 8);
        let disk = self.image.with(&self.path, content).disk()?;
        if self.place == Place::File {
            let verdict = verify_stream(&disk, Path::new(image::DIR), &image::key("s0"))?;
            let owner = self.lines.owner(bit / 8);
            let place = verdict.fault.map(|found| found.offset);
            anyhow::ensure!(
                verdict.good_through == owner as u64
                    && place == Some(self.lines.ranges[owner].start as u64),
                "verification says {place:?} after {}",
                verdict.good_through
            );
        }
        let seen = look::look(&disk, &self.truth.streams()).await?;
        outcome.count("refused", u64::from(seen.refused.is_some()));
        let due = self.due(bit / 8);
        due.check(&self.truth, &seen)
            .map_err(|wrong| anyhow::anyhow!("{wrong}: {}", told(&seen)))
    }

    /// What is due after damage to this byte.
    fn due(&self, byte: usize) -> Due<'_> {
        if self.place == Place::Manifest {
            return Due {
                reported: true,
                ..Due::default()
            };
        }
        let owner = self.lines.owner(byte);
        let start = self.lines.ranges[owner].start;
        // The first half of a barrier: nothing is lost.
        if self.place == Place::Journal && byte + 2 == start {
            return Due {
                reported: true,
                ..Due::default()
            };
        }
        let before = |stream: &str| self.truth.bodies(stream, owner).len();
        // Rot in the last batch is a torn tail: the batch ends there.
        if self.place == Place::Journal && owner >= image::last_batch() {
            let cut = self.truth.0[owner..].iter().map(|known| &*known.stream);
            return Due {
                kept: cut.map(|stream| (stream, before(stream))).collect(),
                reported: true,
                ..Due::default()
            };
        }
        // A newline that goes takes the next record of the same batch along.
        let is_newline = byte + 1 == self.lines.ranges[owner].end;
        let joined = self
            .lines
            .ranges
            .get(owner + 1)
            .filter(|next| next.start == byte + 1);
        let hit = 1 + usize::from(is_newline && joined.is_some());
        let victims = self.truth.0[owner..owner + hit].iter();
        let victims: Vec<&str> = victims.map(|known| known.stream.as_str()).collect();
        Due {
            kept: victims
                .iter()
                .map(|victim| (*victim, before(victim)))
                .collect(),
            damaged: victims,
            // Of a file, a start looks at the end alone; a reader meets the rest.
            reported: self.place == Place::Journal || owner + 1 == image::RECORDS,
        }
    }
}

fn told(seen: &Seen) -> String {
    let Seen {
        refused, report, ..
    } = seen;
    format!("refused {refused:?}, {report:?}")
}

/// One for each thread: what blocks in it blocks nobody else.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}
