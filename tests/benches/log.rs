//! The log bench: goal 13 of the project's performance page, and how fast a log opens.
//!
//! `cargo bench -p loopwright-tests --bench log` takes the smoke size, which ends within a minute;
//! `LOOPWRIGHT_BENCH=full` the size of the page. A hundred writers append records of 300 bytes, each
//! to a stream of its own; the floor is a bare journal with group commit that takes the same bytes.
//! It runs before and after every run of the log, on the same file system.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use loopwright_log::{JsonlLog, JsonlOptions, Log, NewRecord, Stats, StreamKey, SyncPolicy};
use loopwright_tests::bench::{
    goal::{Better, Goal, median},
    journal::Journal,
    process::cpu_ms,
    program::{is_full, say},
};
use tokio::task::JoinSet;

const WRITERS: u64 = 100;
/// Bytes of one record in the journal.
const RECORD: usize = 300;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(bench())
}

/// How much to run.
struct Size {
    runs: usize,
    /// Appends of each writer, with sync and without.
    durable: u64,
    lax: u64,
    streams: u32,
}

/// What one run took.
#[derive(Clone, Copy)]
struct Run {
    per_second: f64,
    cpu_us: f64,
    /// Appends for each sync.
    shared: f64,
}

impl Size {
    fn chosen() -> Self {
        if is_full() {
            Self {
                runs: 5,
                durable: 3000,
                lax: 5000,
                streams: 10_000,
            }
        } else {
            Self {
                runs: 3,
                durable: 50,
                lax: 500,
                streams: 1000,
            }
        }
    }
}

async fn bench() -> Result<()> {
    let size = Size::chosen();
    let dir = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for (mode, sync, each) in [
        ("durable", true, size.durable),
        ("no sync", false, size.lax),
    ] {
        let mut floor = vec![floor(dir.path(), sync, each).await?];
        let mut log = Vec::new();
        for _ in 0..size.runs {
            log.push(appends(dir.path(), sync, each).await?);
            floor.push(self::floor(dir.path(), sync, each).await?);
        }
        let (floor, log) = (middle(&floor), middle(&log));
        let value = log.per_second / floor.per_second;
        if sync {
            let goal = Goal {
                number: "13",
                name: "appends_per_second_100_writers".to_owned(),
                value,
                must: 0.7,
                aim: 0.9,
                better: Better::Higher,
            };
            say(&goal.to_string())?;
        } else {
            say(&format!("without sync, of the floor's appends: {value:.3}"))?;
        }
        rows.push((format!("floor {mode}"), floor));
        rows.push((format!("log   {mode}"), log));
    }
    say("\n  what            appends/s  CPU us/append  appends/sync")?;
    for (name, run) in &rows {
        let Run {
            per_second,
            cpu_us,
            shared,
        } = run;
        say(&format!(
            "  {name:<14} {per_second:>10.0} {cpu_us:>14.2} {shared:>13.1}"
        ))?;
    }
    restarts(dir.path(), size.streams).await
}

/// The bare journal under the load.
async fn floor(dir: &Path, sync: bool, each: u64) -> Result<Run> {
    let home = tempfile::tempdir_in(dir)?;
    let journal = Journal::create(&home.path().join("journal"), sync)?;
    let line = vec![b'x'; RECORD];
    timed(each, |_| {
        let (journal, line) = (journal.clone(), line.clone());
        async move {
            for _ in 0..each {
                journal.append(line.clone()).await;
            }
            Ok(())
        }
    })
    .await
}

/// The log under the load.
async fn appends(dir: &Path, sync: bool, each: u64) -> Result<Run> {
    let home = tempfile::tempdir_in(dir)?;
    let log = open(home.path(), sync)?;
    let body = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(RECORD - 134)));
    let mut run = timed(each, |n| {
        let (log, body) = (log.clone(), body.clone());
        async move { fill(&log, &key(n)?, each, &body).await }
    })
    .await?;
    let Stats {
        appends,
        syncs,
        journal_bytes,
        ..
    } = log.stats();
    ensure!(appends == WRITERS * each, "{appends} were appended");
    let size = journal_bytes / appends;
    ensure!(
        size.abs_diff(RECORD as u64) < 10,
        "a record has {size} bytes, the floor's {RECORD}"
    );
    run.shared = ratio(appends, syncs);
    log.close().await?;
    Ok(run)
}

async fn timed<F>(each: u64, writer: impl Fn(u64) -> F) -> Result<Run>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let pid = std::process::id();
    let (start, cpu) = (Instant::now(), cpu_ms(pid)?);
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        writers.spawn(writer(n));
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let appends = ratio(WRITERS * each, 1);
    Ok(Run {
        per_second: appends / start.elapsed().as_secs_f64(),
        cpu_us: (cpu_ms(pid)? - cpu) * 1000.0 / appends,
        shared: 0.0,
    })
}

/// How long a log of many streams takes to open: closed in order, and left as a kill leaves it.
async fn restarts(dir: &Path, streams: u32) -> Result<()> {
    let home = tempfile::tempdir_in(dir)?;
    let body = Bytes::from(format!("{{\"x\":\"{}\"}}", "x".repeat(200)));
    let log = open(home.path(), true)?;
    for wave in (0..streams).collect::<Vec<_>>().chunks(1000) {
        let keys = wave.iter().map(|n| key(u64::from(*n)));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        try_join_all(keys.iter().map(|key| fill(&log, key, 3, &body))).await?;
    }
    log.close().await?;
    drop(log);
    let closed = opening(home.path()).await?;
    let log = open(home.path(), true)?;
    for n in 0..streams {
        let key = key(u64::from(n))?;
        if n % 10 == 0 {
            log.append(
                &key,
                3,
                NewRecord::new(SystemTime::now().into(), 1, body.clone()),
            )
            .await?;
        }
    }
    // Dropped, not closed: what a kill leaves, but for what the filing thread had not begun.
    drop(log);
    let killed = opening(home.path()).await?;
    say(&format!(
        "\n  a log of {streams} streams opens in {closed:.0?} after a close, in {killed:.0?} after a kill"
    ))
}

/// The time that opening takes; leaves the log as it was.
async fn opening(dir: &Path) -> Result<Duration> {
    let start = Instant::now();
    let log = open(dir, true)?;
    let took = start.elapsed();
    log.close().await?;
    Ok(took)
}

fn open(dir: &Path, sync: bool) -> Result<Arc<JsonlLog>> {
    let options = JsonlOptions {
        sync: if sync {
            SyncPolicy::Always
        } else {
            SyncPolicy::Never
        },
        ..JsonlOptions::new(dir.join("state"))
    };
    Ok(JsonlLog::open(options)?.0)
}

async fn fill(log: &JsonlLog, key: &StreamKey, count: u64, body: &Bytes) -> Result<()> {
    for seq in 0..count {
        let new = NewRecord::new(SystemTime::now().into(), 1, body.clone());
        log.append(key, seq, new).await?;
    }
    Ok(())
}

fn key(n: u64) -> Result<StreamKey> {
    Ok(StreamKey::parse(&format!("session/bench/s{n:05}"))?)
}

/// The medians.
fn middle(runs: &[Run]) -> Run {
    let of = |field: fn(&Run) -> f64| median(&runs.iter().map(field).collect::<Vec<_>>());
    Run {
        per_second: of(|run| run.per_second),
        cpu_us: of(|run| run.cpu_us),
        shared: of(|run| run.shared),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}
