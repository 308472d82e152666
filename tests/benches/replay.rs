//! The replay bench: goals 15 and 16 of the project's performance page, and how long a start takes
//! with many sessions on disk.
//!
//! `cargo bench -p loopwright-tests --bench replay` takes the smoke size; `LOOPWRIGHT_BENCH=full` the
//! sizes of the page. Goal 15: a session's log read through the log (checked by checksum and chain),
//! parsed and folded, against serde_json parsing the same lines from memory into the same structs.
//! Goal 16: the server is killed with all loops half done; the clock runs from its start to the
//! moment at which every loop has made a call again.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use loopwright_core::{Entry, State};
use loopwright_log::{
    Id, JsonlLog, JsonlOptions, KeyQuery, Log, NewRecord, ReadItem, ReadMode, StreamKey,
    StreamKind, SyncPolicy, Timestamp,
};
use loopwright_tests::bench::{
    Workload,
    goal::{Better, Goal, median},
    process::rss_kib,
    program::{self, is_full, say},
    rig::{Loaded, Rig},
};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    program::run(bench)
}

/// How much to run.
struct Size {
    /// Steps of the session that is replayed, and times that it is.
    replayed: (u32, usize),
    /// Loops that the kill interrupts.
    killed: Workload,
    /// Closed sessions that a start finds.
    closed: usize,
}

impl Size {
    fn chosen() -> Self {
        if is_full() {
            Self {
                replayed: (900, 15),
                killed: Workload::new(1000, 20),
                closed: 10_000,
            }
        } else {
            Self {
                replayed: (200, 7),
                killed: Workload::new(50, 5),
                closed: 1_000,
            }
        }
    }
}

async fn bench() -> Result<()> {
    let size = Size::chosen();
    let mut rig = program::rig()?;
    let mut table = Vec::new();
    let goals = [
        replay(&mut rig, &size, &mut table).await?,
        resume(&mut rig, &size, &mut table).await?,
    ];
    starts(&mut rig, &size, &mut table).await?;
    for goal in &goals {
        say(&goal.to_string())?;
    }
    for line in &table {
        say(&format!("  {line}"))?;
    }
    Ok(())
}

/// Goal 15.
async fn replay(rig: &mut Rig, size: &Size, table: &mut Vec<String>) -> Result<Goal> {
    let (steps, times) = size.replayed;
    let work = Workload {
        result_bytes: 2_000,
        ..Workload::new(1, steps)
    };
    let mut loaded = rig.serve(false, &[]).await?;
    rig.load(&mut loaded, work, 1).await?;
    loaded.server.terminate()?;
    let dir = log_dir(&loaded);
    let (log, _) = JsonlLog::open_read_only(&dir)?;
    let key = sessions(&*log).await?.pop().context("one session")?;
    let file = std::fs::read(file_of(&dir, &key))?;
    let megabytes = size_of(file.len());
    let (mut floor, mut folds) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let began = Instant::now();
        let lines = file.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
        let parsed: Vec<Entry> = lines
            .map(serde_json::from_slice)
            .collect::<serde_json::Result<_>>()?;
        floor.push(megabytes / began.elapsed().as_secs_f64());
        let began = Instant::now();
        let state = fold(&*log, &key).await?;
        folds.push(megabytes / began.elapsed().as_secs_f64());
        ensure!(
            state.seq == parsed.len() as u64,
            "{} entries, not {}",
            state.seq,
            parsed.len()
        );
    }
    let (floor, folded) = (median(&floor), median(&folds));
    table.push(format!(
        "replay of {megabytes:.1} MB: {folded:.0} MB/s, parsing alone {floor:.0} MB/s"
    ));
    Ok(Goal {
        number: "15",
        name: "replay_over_parse".to_owned(),
        value: folded / floor,
        must: 0.7,
        aim: 1.0,
        better: Better::Higher,
    })
}

/// Goal 16.
async fn resume(rig: &mut Rig, size: &Size, table: &mut Vec<String>) -> Result<Goal> {
    let work = size.killed;
    let mut loaded = rig.serve(true, &[]).await?;
    let witness = rig.begin(&loaded, work).await?;
    let half = work.all_steps() / 2;
    let began = Instant::now();
    while witness.look().await?.model_calls < half {
        ensure!(began.elapsed() < PATIENCE, "the loops do not get on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    loaded.server.kill()?;
    let replay = replay_all(&log_dir(&loaded)).await?;
    witness.mark().await?;
    let began = Instant::now();
    loaded.server.restart()?;
    let listening = began.elapsed().as_secs_f64();
    let standing = loop {
        let standing = witness.look().await?;
        if standing.silent == 0 {
            break standing;
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "loops stay silent: {standing:?}\n{}",
            loaded.server.stderr()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    table.push(format!(
        "kill -9 at W({},{}): {} loops went on {:.3} s after the start, listening after {listening:.3} s; \
         replay of their logs {replay:.3} s",
        work.loops, work.steps, standing.resumed, standing.seconds
    ));
    Ok(Goal {
        number: "16",
        name: format!("resumed_s_w{}x{}", work.loops, work.steps),
        value: standing.seconds,
        must: 2.0 * replay + 1.0,
        aim: 1.5 * replay + 0.3,
        better: Better::Lower,
    })
}

/// Starts with many closed sessions on disk: without an index, after an orderly end, after a kill.
async fn starts(rig: &mut Rig, size: &Size, table: &mut Vec<String>) -> Result<()> {
    let says = [("telemetry.log_level", "info")];
    let mut loaded = rig.serve(false, &says).await?;
    rig.load(&mut loaded, Workload::new(1, 2), 1).await?;
    loaded.server.terminate()?;
    let dir = log_dir(&loaded);
    copies(&dir, size.closed).await?;
    let index = dir.join("index.redb");
    let mut start = |what: &str, loaded: &mut Loaded| -> Result<()> {
        let began = Instant::now();
        loaded.server.restart()?;
        let took = began.elapsed().as_secs_f64();
        let resident = rss_kib(loaded.server.pid())? / 1024.0;
        table.push(format!(
            "start with {} sessions, {what}: {took:.3} s, then {resident:.1} MiB resident",
            size.closed
        ));
        Ok(())
    };
    start("without an index", &mut loaded)?;
    until_indexed(&loaded)?;
    loaded.server.terminate()?;
    start("after an orderly end", &mut loaded)?;
    loaded.server.kill()?;
    start("after a kill", &mut loaded)?;
    loaded.server.kill()?;
    std::fs::remove_file(index)?;
    start("after a kill, without an index", &mut loaded)
}

/// Until the server says that its index is up to the log.
fn until_indexed(loaded: &Loaded) -> Result<()> {
    let began = Instant::now();
    while !loaded.server.stderr().contains("up to the log") {
        ensure!(began.elapsed() < PATIENCE, "{}", loaded.server.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    // What was found is written a few seconds later.
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
}

/// Writes the one session of a log `times` times more, under other ids.
async fn copies(dir: &Path, times: usize) -> Result<()> {
    let options = JsonlOptions {
        sync: SyncPolicy::Never,
        ..JsonlOptions::new(dir)
    };
    let (log, _) = JsonlLog::open(options)?;
    let key = sessions(&*log).await?.pop().context("one session")?;
    let mut bodies = Vec::new();
    let mut items = log.read(&key, 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        if let ReadItem::Fact(record) = item? {
            bodies.push((record.epoch, record.body()));
        }
    }
    drop(items);
    for n in 0..times {
        let copy = StreamKey::session(
            &Id::parse(key.namespace())?,
            &Id::parse(&format!("copy-{n}"))?,
        );
        for (expected, (epoch, body)) in (0..).zip(&bodies) {
            let at = Timestamp::from_unix_ms(1_767_225_600_000 + n as u64);
            let record = NewRecord::new(at, *epoch, body.clone());
            log.append(&copy, expected, record).await?;
        }
    }
    Ok(log.close().await?)
}

/// Seconds that folding every session of a log takes, one after the other.
async fn replay_all(dir: &Path) -> Result<f64> {
    let (log, _) = JsonlLog::open_read_only(dir)?;
    let keys = sessions(&*log).await?;
    let began = Instant::now();
    for key in &keys {
        fold(&*log, key).await?;
    }
    Ok(began.elapsed().as_secs_f64())
}

async fn fold(log: &dyn Log, key: &StreamKey) -> Result<State> {
    let mut state = State::default();
    let mut items = log.read(key, 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        if let ReadItem::Fact(record) = item? {
            let entry: Entry = serde_json::from_slice(record.line())?;
            state.apply_entry(record.seq, &entry);
        }
    }
    Ok(state)
}

async fn sessions(log: &dyn Log) -> Result<Vec<StreamKey>> {
    let query = KeyQuery {
        namespace: None,
        kind: StreamKind::Session,
        after: None,
        limit: usize::MAX,
    };
    Ok(log.keys(query).await?.keys)
}

fn log_dir(loaded: &Loaded) -> PathBuf {
    loaded.server.dir().join("log")
}

fn file_of(dir: &Path, key: &StreamKey) -> PathBuf {
    dir.join(key.namespace())
        .join("session")
        .join(key.id())
        .join("log.jsonl")
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn size_of(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
