//! Drivers that panic: alone, and only so often.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use loopwright_log::{JsonlLog, JsonlOptions, Seq};
use loopwright_proto::v1::SessionState;

use super::*;
use crate::{
    driver::drivers::ReleaseError,
    faulty::{Fault, Faulty, Write},
    index::Scope,
    service::convert::summary,
};

/// A panic in whoever appends to one session, while it is armed.
struct Poison {
    key: StreamKey,
    armed: AtomicBool,
    panics: AtomicU32,
}

impl Fault for Poison {
    fn append<'a>(
        &'a self,
        key: &'a StreamKey,
        write: Write<'a, Seq, AppendError>,
    ) -> Write<'a, Seq, AppendError> {
        if *key == self.key && self.armed.load(Ordering::SeqCst) {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("the poison of {key}");
        }
        write
    }
}

/// What a list says of each session: its state, restarts and problem.
async fn listed(rig: &Rig) -> Vec<(SessionState, u32, String)> {
    let scope = Scope::Namespace("default".parse().unwrap());
    let pick = |key: &StreamKey, brief: &_| vec![summary::of_session(key, brief)];
    let mut all = rig.index.scan(scope, pick).await.unwrap();
    all.sort_by(|one, other| one.session_id.cmp(&other.session_id));
    let short =
        |one: loopwright_proto::v1::SessionSummary| (one.state(), one.driver_restarts, one.problem);
    all.into_iter().map(short).collect()
}

/// Until it holds; a test that waits in vain is ended from outside.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_driver_that_panics_ends_alone_and_is_tried_again_only_so_often() {
    let (a, b) = (key("a"), key("b"));
    let poison = Poison {
        key: a.clone(),
        armed: AtomicBool::new(false),
        panics: AtomicU32::new(0),
    };
    let log = Arc::new(Faulty {
        log: MemoryLog::new(),
        fault: poison,
    });
    let poison = &log.fault;
    let rig = rig_on(Arc::clone(&log) as Arc<dyn Log>, SLOW);
    for (key, id) in [(&a, "a"), (&b, "b")] {
        let started = rig.drivers.start_loop(key, create(id), start("r1")).await;
        started.unwrap();
    }
    poison.armed.store(true, Ordering::SeqCst);
    let lost = rig.drivers.command(&a, cancel("r2")).await;
    assert!(matches!(lost, Err(CommandError::Log(_))), "{lost:?}");
    let trouble = || rig.index.troubles().of(&a);
    until(|| trouble().is_some_and(|trouble| trouble.given_up)).await;
    assert_eq!(poison.panics.load(Ordering::SeqCst), 5);
    let [(state, restarts, problem), (other, _, well)] = &*listed(&rig).await else {
        panic!("two sessions")
    };
    assert_eq!((*state, *restarts), (SessionState::Failed, 5));
    assert!(
        problem.contains("the poison of session/default/a"),
        "{problem}"
    );
    assert_eq!((*other, well.as_str()), (SessionState::Active, ""));
    let page = rig.telemetry.metrics().render();
    let line = "loopwright_drivers_lost_total{cause=\"panicked\"} 5";
    assert!(page.lines().any(|l| l == line), "no {line} in {page}");
    // Nobody can cancel its loop: it can be deleted all the same, the other one not.
    drop(rig.drivers.release(&a).await.unwrap());
    let refused = rig.drivers.release(&b).await.map(drop);
    assert_eq!(refused, Err(ReleaseError::LoopOpen));
    // The other one goes on; a command to the failed one is one more try, and no row of them.
    rig.drivers.command(&b, cancel("r2")).await.unwrap();
    let lost = rig.drivers.command(&a, cancel("r2")).await;
    assert!(matches!(lost, Err(CommandError::Log(_))), "{lost:?}");
    until(|| trouble().is_some_and(|trouble| trouble.losses == 6)).await;
    assert_eq!(poison.panics.load(Ordering::SeqCst), 6);
    // Once the cause is gone, the same command is carried out and nothing is left of it.
    poison.armed.store(false, Ordering::SeqCst);
    rig.drivers.command(&a, cancel("r2")).await.unwrap();
    until_ended(&rig.log, &a, 1).await;
    assert_eq!(trouble(), None);
    assert_eq!(listed(&rig).await[0].0, SessionState::Idle);
}

#[tokio::test]
async fn a_session_of_a_newer_version_is_listed_as_failed_and_can_be_deleted() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let first = rig_on(Arc::clone(&log), SLOW);
    first.begin("a", "r1").await;
    first.drain.begin();
    first.drivers.drained().await;
    let a = key("a");
    let entry = Entry::new(loopwright_core::Cause::Detach, vec![]);
    let mut entry = serde_json::to_value(&entry).unwrap();
    entry["events"] = serde_json::json!([{"LoopTeleported": {"to": "mars"}}]);
    let body = serde_json::to_vec(&entry).unwrap();
    let tail = log.tail(&a).await.unwrap().unwrap();
    let record = NewRecord::new(loopwright_log::Timestamp::from_unix_ms(1), 1, body.into());
    log.append(&a, tail, record).await.unwrap();

    let next = rig_on(log, SLOW);
    assert_eq!(next.drivers.recover().await.unwrap(), 1);
    until(|| next.index.troubles().of(&a).is_some()).await;
    let [(state, restarts, problem)] = &*listed(&next).await else {
        panic!("one session")
    };
    assert_eq!((*state, *restarts), (SessionState::Failed, 0));
    assert!(problem.contains("LoopTeleported"), "{problem}");
    let refused = next.drivers.command(&a, cancel("r2")).await;
    assert!(
        matches!(refused, Err(CommandError::Newer { .. })),
        "{refused:?}"
    );
    drop(next.drivers.release(&a).await.unwrap());
}

#[tokio::test]
async fn a_damaged_session_with_an_open_loop_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let open = || JsonlLog::open(JsonlOptions::new(dir.path())).unwrap().0;
    let a = key("a");
    {
        let first = rig_on(open(), SLOW);
        first.begin("a", "r1").await;
        first.drain.begin();
        first.drivers.drained().await;
        first.log.close().await.unwrap();
    }
    // Shorter than the checkpoint says: the start finds it.
    let file = dir.path().join("default/session/a/log.jsonl");
    let size = std::fs::metadata(&file).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    file.set_len(size - 20).unwrap();
    let next = rig_on(open(), SLOW);
    let refused = next.drivers.command(&a, cancel("r2")).await;
    assert!(matches!(refused, Err(CommandError::Read(_))), "{refused:?}");
    let last = rig_on(Arc::clone(&next.log), SLOW);
    let hold = last.drivers.release(&a).await.unwrap();
    assert_eq!(last.log.remove(&a).await, Ok(true));
    drop(hold);
}

#[tokio::test]
async fn a_driver_that_got_further_begins_a_new_row_of_losses() {
    let troubles = crate::index::Troubles::default();
    let a = key("a");
    for (progressed, losses, given_up) in [
        (false, 1, false),
        (false, 2, false),
        (false, 3, false),
        (false, 4, false),
        (true, 1, false),
        (false, 2, false),
        (false, 3, false),
        (false, 4, false),
        (false, 5, true),
        (false, 6, true),
        (true, 1, false),
    ] {
        let trouble = troubles.lost(&a, "why", progressed, true);
        assert_eq!((trouble.losses, trouble.given_up), (losses, given_up));
    }
    troubles.over(&a);
    assert_eq!(troubles.of(&a), None);
}
