//! Thousands of lives of one data directory on the simulated disk: power cuts at any operation,
//! kills, full disks, failed and torn writes, failed cuts, failed syncs, in recovery too, with
//! removals and blobs between the appends; and at the end of some worlds, rot.
//!
//! The oracle knows what was submitted and what was acknowledged. After every restart each stream
//! is a prefix of what was submitted that holds all that was acknowledged, a removed stream stays
//! away, a kept blob is there; and no stream is called damaged, for whatever a disk may do to bytes
//! that were not synced is not damage. After rot, what is missing is told. Invariant: a seed is one
//! world, the same on every machine.

mod model;
mod rot;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::engine::Engine;
use super::filer::Filer;
use super::journal::Writer;
use super::queue::Pending;
use super::remove::Removal;
use super::threads::Parts;
use super::{JsonlOptions, OpenError, SyncPolicy};
use crate::disk::sim::{Dice, Plan, SimDisk};
use crate::error::{AppendError, LogError};
use crate::key::StreamKey;
use crate::live::lock;
use crate::record::{NewRecord, Seq, Timestamp};

use model::Model;

const STREAMS: u64 = 4;
const LIVES: u64 = 5;
/// What a live does before it ends.
const STEPS: u64 = 25;

/// What the worlds have met, so that a run that meets nothing shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Worlds, of five lives each.
    pub worlds: u64,
    /// Appends that were acknowledged.
    pub acked: u64,
    /// Appends that were refused, and the log went on.
    pub refused: u64,
    /// Removals that were acknowledged.
    pub removed: u64,
    /// Removals whose outcome the caller did not learn.
    pub removals_in_doubt: u64,
    /// Blobs that were kept.
    pub blobs: u64,
    /// Lives that ended with a loss of power.
    pub power_cuts: u64,
    /// Acknowledged records that such a loss might take, as no sync had been due since.
    pub unsynced: u64,
    /// Lives that ended before the log was open.
    pub in_recovery: u64,
    /// Lives in which a sync, or a write with the cut after it, failed for good.
    pub failed: u64,
    /// Starts that found a torn tail.
    pub torn: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Bits that were flipped.
    pub flips: u64,
    /// Flips that took something away, and were told.
    pub told: u64,
}

struct World {
    disk: SimDisk,
    dice: Dice,
    options: JsonlOptions,
    models: BTreeMap<StreamKey, Model>,
    tally: Tally,
    _seed: Named,
}

/// Whose removal was asked for, whether it was in doubt before, and the answer.
type Asked = (StreamKey, bool, oneshot::Receiver<Result<bool, LogError>>);

/// Prints its seed if it is dropped by a panic.
struct Named(u64);

/// Lives through the worlds of these seeds, on all processors. Every sixth is one without syncs,
/// where a loss of power takes what it takes but leaves a prefix, and another sixth syncs now and
/// then: there it takes nothing that was acknowledged before the last sync that was due.
///
/// # Panics
/// At the first promise that is broken, with the seed on standard error.
#[must_use]
pub fn run(seeds: Range<u64>) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Tally::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            tally.add(&World::new(seed).run());
        }
        lock(&total).add(&tally);
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    fn fields(&mut self) -> [(&'static str, &mut u64); 14] {
        [
            ("worlds", &mut self.worlds),
            ("acked", &mut self.acked),
            ("refused", &mut self.refused),
            ("removed", &mut self.removed),
            ("removals_in_doubt", &mut self.removals_in_doubt),
            ("blobs", &mut self.blobs),
            ("power_cuts", &mut self.power_cuts),
            ("unsynced", &mut self.unsynced),
            ("in_recovery", &mut self.in_recovery),
            ("failed", &mut self.failed),
            ("torn", &mut self.torn),
            ("checkpoints", &mut self.checkpoints),
            ("flips", &mut self.flips),
            ("told", &mut self.told),
        ]
    }

    fn add(&mut self, other: &Tally) {
        let mut other = *other;
        for ((_, sum), (_, more)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }
}

/// `worlds=.. acked=.. ..`
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tally = *self;
        for (n, (name, count)) in tally.fields().into_iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{name}={count}")?;
        }
        Ok(())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody reads it, nobody misses it.
            let _ = writeln!(io::stderr(), "the seed was {}", self.0);
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice::new(seed);
        let segment_bytes = 500 + dice.below(4000);
        let sync = match seed % 6 {
            5 => SyncPolicy::Never,
            2 => SyncPolicy::Interval(Duration::from_millis(50)),
            _ => SyncPolicy::Always,
        };
        World {
            disk: SimDisk::default(),
            dice,
            options: JsonlOptions {
                sync,
                segment_bytes,
                idle: Duration::ZERO,
                ..JsonlOptions::new("/state")
            },
            models: BTreeMap::new(),
            tally: Tally::default(),
            _seed: Named(seed),
        }
    }

    fn run(mut self) -> Tally {
        for _ in 0..LIVES {
            let plan = self.plan();
            self.disk.plan(plan);
            self.live();
            let powered = plan
                .power_cut_at
                .is_none_or(|cut| self.disk.operations() < cut);
            if powered && self.dice.one_in(2) {
                self.disk.kill();
            } else {
                self.tally.power_cuts += 1;
                self.disk.power_cycle(&mut self.dice);
                self.lose_what_was_not_synced();
            }
        }
        self.disk.plan(Plan::default());
        let parts = self.open().expect("without faults the log opens");
        self.check(&parts);
        drop(parts);
        self.disk.kill();
        if self.dice.one_in(3) {
            self.rot();
        }
        self.tally.worlds += 1;
        self.tally
    }

    /// What may be gone after a loss of power, by the policy.
    fn lose_what_was_not_synced(&mut self) {
        for model in self.models.values_mut() {
            match self.options.sync {
                SyncPolicy::Always => {}
                SyncPolicy::Interval(_) => {
                    self.tally.unsynced += (model.acked - model.synced) as u64;
                    model.acked = model.synced;
                }
                SyncPolicy::Never => model.acked = 0,
            }
        }
    }

    /// A pass of the filing thread: an interval is over, and the sync that was due with it.
    fn file_pass(&mut self, engine: &Engine, filer: &mut Filer) {
        engine.file_pass(filer);
        if engine.failed().is_none() {
            let models = self.models.values_mut();
            models.for_each(|model| model.synced = model.acked);
        }
    }

    fn plan(&mut self) -> Plan {
        let dice = &mut self.dice;
        let mut rarely = |bound: u64, n: u64| dice.one_in(n).then(|| 1 + dice.below(bound));
        Plan {
            power_cut_at: rarely(300, 2),
            failing_sync: rarely(80, 4),
            failing_append: rarely(40, 3),
            failing_cut: rarely(1, 6).is_some(),
            capacity: rarely(20_000, 8),
        }
    }

    fn open(&mut self) -> Result<Parts, OpenError> {
        Parts::open(Arc::new(self.disk.clone()), self.options.clone())
    }

    fn live(&mut self) {
        let Parts {
            engine,
            mut writer,
            mut filer,
            lock,
            report,
        } = match self.open() {
            Ok(parts) => {
                self.check(&parts);
                parts
            }
            Err(OpenError::Io { .. }) => {
                self.tally.in_recovery += 1;
                return;
            }
            Err(other) => panic!("{other}"),
        };
        self.tally.torn += u64::from(!report.set_aside.is_empty());
        let mut asked = Vec::new();
        for _ in 0..STEPS {
            match self.dice.below(16) {
                0 | 1 => engine.evict(),
                2..=4 => self.file_pass(&engine, &mut filer),
                5 => self.put_blob(&engine),
                6 => self.remove(&engine, &mut writer, &mut asked),
                _ => self.append_batch(&engine, &mut writer),
            }
            self.take_answers(&mut asked);
        }
        if self.dice.one_in(3) {
            engine.filing.push_segment(writer.segment().number);
            self.file_pass(&engine, &mut filer);
            self.take_answers(&mut asked);
        }
        self.tally.removals_in_doubt += asked.len() as u64;
        self.tally.checkpoints += engine.stats().checkpoints;
        self.tally.failed += u64::from(engine.failed().is_some());
        drop(lock);
    }

    fn key(&mut self) -> StreamKey {
        let text = format!("session/a/s{}", self.dice.below(STREAMS));
        StreamKey::parse(&text).expect("a fixed key is good")
    }

    fn append_batch(&mut self, engine: &Arc<Engine>, writer: &mut Writer) {
        let (mut batch, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.dice.below(6) {
            let key = self.key();
            let stream = engine.stream(&key);
            let model = self.models.entry(key.clone()).or_default();
            if model.in_doubt || engine.load(&stream).is_err() {
                continue;
            }
            let expected = model.submitted.len() as u64;
            let filling = self.dice.below(120);
            let body = model.submit(self.dice.below(1 << 40), filling);
            let (done, answer) = oneshot::channel();
            batch.push(Pending {
                stream,
                expected,
                record: NewRecord::new(Timestamp::default(), 1, body.into()),
                done,
            });
            sent.push((key, expected, answer));
        }
        let had_failed = engine.failed().is_some();
        engine.write_batch(writer, batch);
        for (key, expected, mut answer) in sent.into_iter().rev() {
            let answer = answer.try_recv().expect("every append is answered");
            self.take_answer(engine, &key, expected, answer, had_failed);
        }
    }

    fn take_answer(
        &mut self,
        engine: &Engine,
        key: &StreamKey,
        expected: Seq,
        answer: Result<Seq, AppendError>,
        had_failed: bool,
    ) {
        let model = self.models.get_mut(key).expect("it was asked for");
        match answer {
            Ok(seq) => {
                assert!(!had_failed, "{key}: acknowledged after the log had failed");
                assert_eq!(seq, expected + 1, "{key}");
                model.acknowledge(seq);
                self.tally.acked += 1;
            }
            Err(AppendError::Unavailable {
                ambiguous: true, ..
            }) => {
                assert!(engine.failed().is_some(), "only a failed log does not know");
            }
            Err(AppendError::Unavailable {
                ambiguous: false, ..
            }) => {
                self.tally.refused += 1;
                model.take_back(expected);
            }
            // After an ambiguous one, the model runs ahead of the log.
            Err(AppendError::Conflict { tail }) if had_failed => assert!(tail <= expected),
            Err(other) => panic!("{key}: {other}"),
        }
    }

    fn put_blob(&mut self, engine: &Engine) {
        let key = self.key();
        let len = usize::try_from(self.dice.below(300)).expect("small");
        let payload = Bytes::from(format!("{:x}", self.dice.below(1 << 40)).repeat(len));
        let model = self.models.entry(key.clone()).or_default();
        if let Ok(blob) = engine.put_blob(&key, payload.clone())
            && !model.in_doubt
        {
            model.blobs.push((blob, payload));
            self.tally.blobs += 1;
        }
    }

    fn remove(&mut self, engine: &Engine, writer: &mut Writer, asked: &mut Vec<Asked>) {
        let key = self.key();
        let stream = engine.stream(&key);
        if engine.load(&stream).is_err() {
            return;
        }
        let (done, answer) = oneshot::channel();
        engine.write_tombstones(writer, vec![Removal { stream, done }]);
        let model = self.models.entry(key.clone()).or_default();
        let again = std::mem::replace(&mut model.in_doubt, true);
        asked.push((key, again, answer));
    }

    fn take_answers(&mut self, asked: &mut Vec<Asked>) {
        asked.retain_mut(|(key, again, answer)| {
            let model = self.models.get_mut(key).expect("it was asked for");
            match answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return true,
                Ok(Ok(true)) => {
                    self.tally.removed += 1;
                    *model = Model::default();
                }
                // An earlier removal went on after its caller was sent away.
                Ok(Ok(false)) if *again => *model = Model::default(),
                Ok(Ok(false)) => {
                    assert_eq!(model.acked, 0, "{key} is there, and was not found");
                    model.in_doubt = false;
                }
                // Of a log that has failed, or cannot go on for now.
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {
                    self.tally.removals_in_doubt += 1;
                }
            }
            false
        });
    }
}
