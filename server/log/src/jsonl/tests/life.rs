//! The embedded log in use: failures while it runs, memory, modes, locks, long streams.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use futures_util::StreamExt;

use super::*;
use crate::disk::sim::{Dice, Plan, SimDisk};
use crate::record::{Seq, Timestamp};
use crate::{Keep, LogError, ProgressTopic, ReadItem};

fn key(id: &str) -> StreamKey {
    StreamKey::parse(&format!("session/a/{id}")).unwrap()
}

fn record(size: usize) -> NewRecord {
    let body = format!("{{\"x\":\"{}\"}}", "x".repeat(size));
    NewRecord::new(Timestamp::default(), 1, body.into())
}

async fn fill(log: &dyn Log, key: &StreamKey, sizes: impl IntoIterator<Item = usize>) {
    let tail = log.tail(key).await.unwrap().unwrap_or(0);
    for (size, seq) in sizes.into_iter().zip(tail..) {
        assert_eq!(log.append(key, seq, record(size)).await, Ok(seq + 1));
    }
}

/// Waits for what other threads bring about.
async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect(what);
}

fn on_sim(disk: &SimDisk) -> Arc<JsonlLog> {
    let options = JsonlOptions {
        gather: Duration::from_millis(1),
        idle: Duration::ZERO,
        ..JsonlOptions::new("/state")
    };
    JsonlLog::open_on(Arc::new(disk.clone()), options)
        .unwrap()
        .0
}

#[tokio::test]
async fn a_failed_sync_is_the_end() {
    let disk = SimDisk::default();
    let log = on_sim(&disk);
    fill(&*log, &key("s"), [10, 10]).await;
    until("filed", || log.stats().unfiled_bytes == 0).await;
    disk.plan(Plan {
        failing_sync: Some(1),
        ..Plan::default()
    });
    let refused = log.append(&key("s"), 2, record(10)).await;
    assert!(matches!(
        refused,
        Err(AppendError::Unavailable {
            ambiguous: true,
            ..
        })
    ));
    let failure = log.wait_failed().await;
    assert_eq!(log.failed(), Some(failure.clone()));
    assert!(failure.to_string().contains("restart"), "{failure}");
    for id in ["s", "other"] {
        let refused = log.append(&key(id), 0, record(10)).await;
        assert!(matches!(
            refused,
            Err(AppendError::Unavailable {
                ambiguous: false,
                ..
            })
        ));
    }
    assert_eq!(
        log.tail(&key("s")).await,
        Ok(Some(2)),
        "what is acknowledged can be read"
    );
    assert!(log.close().await.is_err());
    drop(log);
    let log = on_sim(&disk);
    let tail = log.tail(&key("s")).await.unwrap().unwrap();
    assert!(
        (2..=3).contains(&tail),
        "the one in doubt is there or not: {tail}"
    );
}

/// With an interval nobody waits for a sync, and one comes when it is due; without, none comes by itself
/// before records are copied to their files.
#[tokio::test]
async fn an_interval_syncs_what_was_acknowledged_once_it_is_due() {
    let open = |disk: &SimDisk, sync| {
        let options = JsonlOptions {
            sync,
            gather: Duration::from_secs(3_600),
            ..JsonlOptions::new("/state")
        };
        JsonlLog::open_on(Arc::new(disk.clone()), options)
            .unwrap()
            .0
    };
    let disk = SimDisk::default();
    let log = open(&disk, SyncPolicy::Never);
    fill(&*log, &key("s"), [10, 10, 10]).await;
    assert_eq!(log.stats().syncs, 0);
    for dice in 0..8 {
        let disk = SimDisk::default();
        let log = open(&disk, SyncPolicy::Interval(Duration::from_millis(5)));
        fill(&*log, &key("s"), [10, 10, 10]).await;
        until("filed, and so synced", || log.stats().unfiled_bytes == 0).await;
        assert!(log.stats().syncs > 0);
        disk.power_cycle(&mut Dice::new(dice));
        drop(log);
        let log = open(&disk, SyncPolicy::Always);
        assert_eq!(log.tail(&key("s")).await, Ok(Some(3)), "dice {dice}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_room_lets_go_on() {
    let disk = SimDisk::default();
    let log = on_sim(&disk);
    fill(&*log, &key("s"), [10]).await;
    disk.plan(Plan {
        capacity: Some(5_000),
        ..Plan::default()
    });
    let mut tail = 1;
    let refused = loop {
        match log.append(&key("s"), tail, record(500)).await {
            Ok(seq) => tail = seq,
            Err(error) => break error,
        }
        assert!(tail < 100, "the disk never fills");
    };
    assert!(
        matches!(
            refused,
            AppendError::Unavailable {
                ambiguous: false,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(log.failed(), None, "a full disk is not the end");
    disk.plan(Plan::default());
    assert_eq!(log.append(&key("s"), tail, record(500)).await, Ok(tail + 1));
    until("filed", || log.stats().unfiled_bytes == 0).await;
    log.close().await.unwrap();
}

#[tokio::test]
async fn what_was_sent_behind_a_write_that_failed_is_refused() {
    let disk = SimDisk::default();
    let log = on_sim(&disk);
    fill(&*log, &key("s"), [10]).await;
    fill(&*log, &key("t"), [10]).await;
    disk.plan(Plan {
        capacity: Some(5_000),
        ..Plan::default()
    });
    let mut first = record(50_000);
    let fate = first.fate();
    let refused = log.append(&key("s"), 1, first).await;
    assert!(refused.is_err(), "{refused:?}");
    // There is room again, and its own fence would let it in.
    disk.plan(Plan::default());
    let behind = record(10).behind([fate]);
    let refused = log.append(&key("t"), 1, behind).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(log.append(&key("t"), 1, record(10)).await, Ok(2));
}

/// Its stream has to be read first; the one behind it, whose stream is in memory, would be there before it.
#[tokio::test]
async fn what_is_sent_behind_one_that_is_not_queued_yet_waits_for_it() {
    let disk = SimDisk::default();
    let open = || JsonlLog::open_on(Arc::new(disk.clone()), JsonlOptions::new("/state"));
    let (log, _) = open().unwrap();
    fill(&*log, &key("s"), [10]).await;
    fill(&*log, &key("t"), [10]).await;
    log.close().await.unwrap();
    drop(log);
    let (log, _) = open().unwrap();
    assert_eq!(log.tail(&key("t")).await, Ok(Some(1)));
    let mut first = record(10);
    let fate = first.fate();
    let (s, t) = (key("s"), key("t"));
    let sent = futures_util::future::join3(
        log.append(&s, 1, first),
        log.append(&s, 2, record(10).behind([fate.clone()])),
        log.append(&t, 1, record(10).behind([fate])),
    );
    assert_eq!(sent.await, (Ok(2), Ok(3), Ok(2)));
}

#[tokio::test]
async fn a_write_that_cannot_be_cut_back_is_the_end() {
    let disk = SimDisk::default();
    let log = on_sim(&disk);
    fill(&*log, &key("s"), [10]).await;
    until("filed", || log.stats().unfiled_bytes == 0).await;
    disk.plan(Plan {
        failing_append: Some(1),
        failing_cut: true,
        ..Plan::default()
    });
    let refused = log.append(&key("s"), 1, record(10)).await;
    assert!(matches!(
        refused,
        Err(AppendError::Unavailable {
            ambiguous: true,
            ..
        })
    ));
    assert!(log.failed().is_some());
}

#[tokio::test]
async fn a_file_that_something_else_writes_to_stops_the_log() {
    let disk = SimDisk::default();
    let log = on_sim(&disk);
    fill(&*log, &key("s"), [10, 10]).await;
    log.close().await.unwrap();
    drop(log);
    let log = on_sim(&disk);
    assert_eq!(log.tail(&key("s")).await, Ok(Some(2)));
    let watch = log.read(&key("s"), 2, crate::ReadMode::Follow);
    let mut watch = Box::pin(watch);
    assert!(matches!(
        watch.next().await,
        Some(Ok(ReadItem::CompleteThrough(2)))
    ));
    let path = std::path::Path::new("/state/a/session/s/log.jsonl");
    let mut content = disk.content(path).unwrap();
    content.truncate(content.len() - 20);
    disk.put(path, &content);
    fill(&*log, &key("s"), [10]).await;
    let failure = log.wait_failed().await;
    assert!(failure.to_string().contains("something else"), "{failure}");
    drop((watch, log));
    let (log, report) =
        JsonlLog::open_on(Arc::new(disk.clone()), JsonlOptions::new("/state")).unwrap();
    assert_eq!(report.corrupt.len(), 1, "{report:?}");
    let told = log.append(&key("s"), 1, record(10)).await;
    assert!(matches!(told, Err(AppendError::Corrupt(_))), "{told:?}");
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_told() {
    let disk = SimDisk::default();
    let log = on_sim(&disk);
    fill(&*log, &key("s"), [10]).await;
    until("let go", || log.stats().resident_streams == 0).await;
    disk.plan(Plan {
        power_cut_at: Some(1),
        ..Plan::default()
    });
    let told = log.tail(&key("s")).await;
    assert!(
        matches!(told, Err(LogError::Unavailable { .. })),
        "{told:?}"
    );
    assert!(log.put_blob(&key("s"), "x".into()).await.is_err());
    let query = KeyQuery {
        namespace: None,
        kind: crate::StreamKind::Session,
        after: None,
        limit: 9,
    };
    assert!(log.keys(query).await.is_err());
}

#[tokio::test]
async fn a_stream_has_a_largest_size() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = JsonlLog::open(JsonlOptions {
        session_bytes: 1000,
        ..small(&dir)
    })
    .unwrap();
    fill(&*log, &key("s"), [300, 300]).await;
    let refused = log.append(&key("s"), 2, record(300)).await;
    assert!(
        matches!(refused, Err(AppendError::TooLarge { limit: 1000, .. })),
        "{refused:?}"
    );
    fill(&*log, &key("other"), [300]).await;
}

#[tokio::test]
async fn idle_streams_leave_memory_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = JsonlLog::open(small(&dir)).unwrap();
    for n in 0..50 {
        fill(&*log, &key(&format!("s{n}")), [100, 100]).await;
    }
    let topic = ProgressTopic {
        anchor: 1,
        call: 1,
        attempt: 1,
        channel: 0,
    };
    log.publish(
        &key("s7"),
        Progress::new(topic, 0, "in flight".into(), Keep::Append),
    );
    until("let go", || log.stats().resident_streams == 1).await;
    assert_eq!(log.stats().unfiled_bytes, 0);
    fill(&*log, &key("s3"), [100]).await;
    assert_eq!(log.tail(&key("s3")).await, Ok(Some(3)));
    let mut watcher = log.read(&key("s7"), 2, ReadMode::Follow);
    assert!(matches!(
        watcher.next().await,
        Some(Ok(ReadItem::CompleteThrough(2)))
    ));
    assert!(
        matches!(watcher.next().await, Some(Ok(ReadItem::Progress(_)))),
        "progress holds it"
    );
}

#[tokio::test]
async fn a_long_stream_of_uneven_records_is_read_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = JsonlLog::open(small(&dir)).unwrap();
    let sizes = (0..700).map(|n| if n % 97 == 5 { 700_000 } else { 50 + n % 400 });
    fill(&*log, &key("s"), sizes).await;
    until("let go", || log.stats().resident_streams == 0).await;
    for after in [0, 1, 5, 6, 101, 350, 491, 699] {
        let mut reader = log.read(&key("s"), after, ReadMode::ToTail);
        let mut due = after;
        while let Some(item) = reader.next().await {
            if let ReadItem::Fact(fact) = item.unwrap() {
                due += 1;
                assert_eq!(fact.seq, due);
            }
        }
        assert_eq!(due, 700);
    }
    for before in [1, 7, 350, 700, u64::MAX] {
        let back: Vec<_> = log.read_back(&key("s"), before).collect().await;
        assert_eq!(back.len() as u64, before.min(701) - 1);
    }
}

#[tokio::test]
async fn group_commit_shares_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let options = JsonlOptions::new(dir.path());
    let (log, _) = JsonlLog::open(options).unwrap();
    let keys: Vec<_> = (0..64).map(|n| key(&format!("s{n}"))).collect();
    for seq in 0..5 {
        let appends = keys.iter().map(|key| log.append(key, seq, record(100)));
        for answer in futures_util::future::join_all(appends).await {
            assert_eq!(answer, Ok(seq + 1));
        }
    }
    let stats = log.stats();
    assert_eq!(stats.appends, 320);
    assert!(stats.syncs <= 80, "{stats:?}");
}

#[tokio::test]
async fn everything_is_private_to_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let options = small(&dir);
    let (log, _) = JsonlLog::open(options.clone()).unwrap();
    fill(&*log, &key("s"), (0..300).map(|_| 200)).await;
    log.put_blob(&key("s"), "payload".into()).await.unwrap();
    until("a checkpoint", || log.stats().checkpoints > 0).await;
    let mut seen = 0;
    let mut dirs = vec![options.dir.clone()];
    while let Some(dir) = dirs.pop() {
        assert_eq!(
            dir.metadata().unwrap().permissions().mode() & 0o777,
            0o700,
            "{dir:?}"
        );
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(found) = path.metadata() {
                assert_eq!(found.permissions().mode() & 0o777, 0o600, "{path:?}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "{seen}");
    log.close().await.unwrap();
    assert_eq!(
        options.dir.join("journal").read_dir().unwrap().count(),
        0,
        "nothing to recover"
    );
}

const LOCK_DIR: &str = "LOOPWRIGHT_TEST_LOCK_DIR";

/// Not a test of its own: what each process of the next one runs.
#[test]
fn one_of_the_processes() {
    let Ok(dir) = std::env::var(LOCK_DIR) else {
        return;
    };
    let mut out = io::stdout();
    match JsonlLog::open(JsonlOptions::new(dir)) {
        Ok(log) => {
            writeln!(out, "\nserving {}", std::process::id()).unwrap();
            io::stdin().read_line(&mut String::new()).unwrap();
            drop(log);
        }
        Err(OpenError::Locked { pid, .. }) => writeln!(out, "\nrefused {}", pid.unwrap()).unwrap(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn one_process_of_eight_serves_and_seven_name_it() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut children: Vec<Child> = (0..8).map(|_| process(dir.path())).collect();
        let said: Vec<(String, u32)> = children.iter_mut().map(answer).collect();
        let serving: Vec<_> = said.iter().filter(|(word, _)| word == "serving").collect();
        assert_eq!(serving.len(), 1, "{said:?}");
        assert!(said.iter().all(|(_, pid)| *pid == serving[0].1), "{said:?}");
        for (child, (word, _)) in children.iter_mut().zip(&said) {
            // Killed, not closed: the lock goes with the process. The refused end by themselves, so that
            // none is killed while it writes down what it has covered.
            if word == "serving" {
                child.kill().unwrap();
            }
            child.wait().unwrap();
        }
    }
    let (_held, _) = JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    let refused = JsonlLog::open(JsonlOptions::new(dir.path()))
        .map(|_| ())
        .unwrap_err();
    let named = format!("in use by process {}", std::process::id());
    assert!(refused.to_string().contains(&named), "{refused}");
}

fn process(dir: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "jsonl::tests::life::one_of_the_processes",
            "--nocapture",
        ])
        .env(LOCK_DIR, dir.join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn answer(child: &mut Child) -> (String, u32) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find_map(|line| {
        let (word, pid) = line.split_once(' ')?;
        matches!(word, "serving" | "refused").then(|| (word.to_owned(), pid.parse().unwrap()))
    });
    said.expect("the process serves or is refused")
}

#[tokio::test]
async fn a_block_that_was_read_ahead_is_not_for_a_reader_that_passed_it() {
    let log = on_sim(&SimDisk::default());
    // Several blocks of what a reader takes at once.
    fill(&*log, &key("s"), [20_000; 60]).await;
    until("filed", || log.stats().unfiled_bytes == 0).await;
    let mut history = log.opened(&key("s")).await.unwrap().history;
    let mut after = 0;
    // By what live readers saw in memory, some go on further along than the file was read.
    for passed in [0, 3, 0] {
        let block = history.next(after + passed, true).await.unwrap();
        let seqs: Vec<Seq> = block.iter().map(|record| record.seq).collect();
        let last = after + passed + seqs.len() as Seq;
        assert_eq!(seqs, Vec::from_iter(after + passed + 1..=last));
        after = last;
    }
    assert!(after < 60, "{after}: a block is read ahead still");
}
