//! Thousands of lives of one data directory on the simulated disk: power cuts at any operation,
//! kills, full disks, failed writes, failed cuts, failed syncs, in recovery too.
//!
//! The oracle knows what was submitted and what was acknowledged. After every restart each stream
//! is a prefix of what was submitted that holds all that was acknowledged, and no stream is called
//! damaged: whatever a disk may do to bytes that were not synced is not damage.

use std::collections::BTreeMap;

use super::*;
use crate::disk::sim::{Dice, Plan, SimDisk};
use crate::jsonl::journal::Writer;
use crate::record::{Record, Timestamp};

const STREAMS: u64 = 4;
const LIVES: u64 = 5;

#[derive(Default)]
struct Model {
    /// Bodies that may be in the log, in order.
    submitted: Vec<String>,
    /// How many of them must be.
    acked: usize,
}

struct World {
    disk: SimDisk,
    dice: Dice,
    options: JsonlOptions,
    models: BTreeMap<StreamKey, Model>,
    counts: Counts,
    _seed: Named,
}

/// Prints its seed if it is dropped by a panic.
struct Named(u64);

/// What the seeds have met, so that a rig that meets nothing fails.
#[derive(Debug, Default)]
struct Counts {
    acked: u64,
    power_cuts: u64,
    in_recovery: u64,
    failed_syncs: u64,
    refused: u64,
    torn: u64,
    checkpoints: u64,
}

#[test]
fn nothing_acknowledged_is_lost() {
    let mut counts = Counts::default();
    for seed in 0..seeds(1500) {
        World::new(seed, SyncPolicy::Always).run(&mut counts);
    }
    assert!(
        counts.acked > 50_000 && counts.power_cuts > 2000,
        "{counts:?}"
    );
    assert!(
        counts.in_recovery > 200 && counts.failed_syncs > 200,
        "{counts:?}"
    );
    assert!(
        counts.refused > 200 && counts.torn > 100 && counts.checkpoints > 500,
        "{counts:?}"
    );
}

/// `LOOPWRIGHT_RIG=full` runs ten times as many.
fn seeds(count: u64) -> u64 {
    let full = std::env::var("LOOPWRIGHT_RIG").is_ok_and(|size| size == "full");
    if full { count * 10 } else { count }
}

/// Without syncs a loss of power takes what it takes, but a prefix stays; a kill takes nothing.
#[test]
fn without_syncs_a_prefix_stays() {
    let mut counts = Counts::default();
    for seed in 0..seeds(300) {
        World::new(seed, SyncPolicy::Never).run(&mut counts);
    }
    assert!(
        counts.acked > 5_000 && counts.power_cuts > 200,
        "{counts:?}"
    );
}

#[test]
fn a_blob_that_was_kept_survives_a_power_cut() {
    for seed in 0..100 {
        let disk = SimDisk::default();
        let options = JsonlOptions::new("/state");
        let parts = Parts::open(Arc::new(disk.clone()), options.clone()).unwrap();
        let key = StreamKey::parse("session/a/s").unwrap();
        let payload = Bytes::from("large".repeat(100));
        let blob = parts.engine.put_blob(&key, payload.clone()).unwrap();
        drop(parts);
        disk.power_cycle(&mut Dice::new(seed));
        let parts = Parts::open(Arc::new(disk.clone()), options).unwrap();
        assert_eq!(
            parts.engine.get_blob(&key, &blob),
            Ok(payload),
            "seed {seed}"
        );
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        use std::io::Write;
        if std::thread::panicking() {
            let _ = writeln!(io::stderr(), "the seed was {}", self.0);
        }
    }
}

impl World {
    fn new(seed: u64, sync: SyncPolicy) -> World {
        let mut dice = Dice::new(seed);
        let segment_bytes = 500 + dice.below(4000);
        let options = JsonlOptions {
            sync,
            segment_bytes,
            idle: Duration::ZERO,
            ..JsonlOptions::new("/state")
        };
        let (disk, models) = (SimDisk::default(), BTreeMap::new());
        World {
            disk,
            dice,
            options,
            models,
            counts: Counts::default(),
            _seed: Named(seed),
        }
    }

    fn run(mut self, counts: &mut Counts) {
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
                self.counts.power_cuts += 1;
                self.disk.power_cycle(&mut self.dice);
                if self.options.sync != SyncPolicy::Always {
                    self.models.values_mut().for_each(|model| model.acked = 0);
                }
            }
        }
        self.disk.plan(Plan::default());
        let parts = self.open().expect("without faults the log opens");
        self.check(&parts);
        counts.acked += self.counts.acked;
        counts.power_cuts += self.counts.power_cuts;
        counts.in_recovery += self.counts.in_recovery;
        counts.failed_syncs += self.counts.failed_syncs;
        counts.refused += self.counts.refused;
        counts.torn += self.counts.torn;
        counts.checkpoints += self.counts.checkpoints;
    }

    fn plan(&mut self) -> Plan {
        let dice = &mut self.dice;
        let mut rarely = |bound: u64, n: u64| dice.one_in(n).then(|| 1 + dice.below(bound));
        Plan {
            power_cut_at: rarely(250, 2),
            failing_sync: rarely(60, 4),
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
                self.counts.in_recovery += 1;
                return;
            }
            Err(other) => panic!("{other}"),
        };
        self.counts.torn += u64::from(!report.set_aside.is_empty());
        for _ in 0..25 {
            match self.dice.below(8) {
                0 => engine.evict(),
                1 | 2 => engine.file_pass(&mut filer),
                _ => self.append_batch(&engine, &mut writer),
            }
        }
        if self.dice.one_in(3) {
            engine.filing.push_segment(writer.segment().number);
            engine.file_pass(&mut filer);
        }
        self.counts.checkpoints += engine.stats().checkpoints;
        self.counts.failed_syncs += u64::from(engine.failed().is_some());
        drop(lock);
    }

    fn append_batch(&mut self, engine: &Arc<Engine>, writer: &mut Writer) {
        let (mut batch, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.dice.below(6) {
            let key =
                StreamKey::parse(&format!("session/a/s{}", self.dice.below(STREAMS))).unwrap();
            let stream = engine.stream(&key);
            if engine.load(&stream).is_err() {
                continue;
            }
            let model = self.models.entry(key.clone()).or_default();
            let expected = model.submitted.len() as u64;
            let filling = "x".repeat(usize::try_from(self.dice.below(120)).unwrap());
            let body = format!(
                "{{\"n\":{expected},\"by\":{},\"x\":\"{filling}\"}}",
                self.dice.below(1 << 40)
            );
            model.submitted.push(body.clone());
            let (done, answer) = oneshot::channel();
            let record = NewRecord::new(Timestamp::default(), 1, body.into());
            batch.push(Pending {
                stream,
                expected,
                record,
                done,
            });
            sent.push((key, expected, answer));
        }
        let had_failed = engine.failed().is_some();
        engine.write_batch(writer, batch);
        for (key, expected, mut answer) in sent.into_iter().rev() {
            let model = self.models.get_mut(&key).unwrap();
            match answer.try_recv().expect("every append is answered") {
                Ok(seq) => {
                    assert!(
                        !had_failed,
                        "an append was acknowledged after the log had failed"
                    );
                    assert_eq!(seq, expected + 1);
                    model.acked = model.acked.max(usize::try_from(seq).unwrap());
                    self.counts.acked += 1;
                }
                Err(AppendError::Unavailable {
                    ambiguous: true, ..
                }) => {
                    assert!(engine.failed().is_some(), "only a failed log does not know");
                }
                Err(AppendError::Unavailable {
                    ambiguous: false, ..
                }) => {
                    self.counts.refused += 1;
                    model.submitted.truncate(usize::try_from(expected).unwrap());
                }
                // After an ambiguous one, the model runs ahead of the log.
                Err(AppendError::Conflict { tail }) if had_failed => assert!(tail <= expected),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Compares what recovery left with what may and must be there.
    fn check(&mut self, parts: &Parts) {
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
            let content = self
                .disk
                .content(&parts.engine.layout.file(key))
                .unwrap_or_default();
            let mut bodies = Vec::new();
            let mut mark = stream::Mark::default();
            for line in content.split_inclusive(|byte| *byte == b'\n') {
                let line = Bytes::copy_from_slice(line);
                let record: Record = session_file::decode(line, key, mark).expect("a good file");
                mark = mark.after(&record);
                bodies.push(String::from_utf8(record.body().to_vec()).unwrap());
            }
            let (kept, acked, all) = (bodies.len(), model.acked, model.submitted.len());
            assert!(
                kept >= acked,
                "{key}: {acked} were acknowledged, {kept} are there"
            );
            assert!(kept <= all, "{key}: {all} were submitted, {kept} are there");
            assert_eq!(
                bodies,
                model.submitted[..kept],
                "{key} is a prefix of what was submitted"
            );
            model.submitted.truncate(kept);
            // Readers may have seen it now.
            model.acked = kept;
        }
    }
}
