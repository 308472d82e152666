//! The rules of the memory, on a paused clock.

#![expect(clippy::unwrap_used, reason = "tests")]

use tokio_util::sync::CancellationToken;

use super::*;
use crate::answer::{Answer, ToolError};
use crate::keyfile::Fate;

const RETENTION: Duration = Duration::from_secs(60);

fn asked(key: &str, hash: &str, epoch: u64) -> Begun {
    let retention_ms = u64::try_from(RETENTION.as_millis()).unwrap();
    Begun {
        key: key.to_owned(),
        tool: "t".to_owned(),
        arguments_sha256: hash.to_owned(),
        epoch,
        retention_ms,
        attempt: 1,
        ..Begun::default()
    }
}

fn unended() -> Arc<Running> {
    Running::new(CancellationToken::new())
}

async fn ended(with: Result<Answer, ToolError>) -> Arc<Running> {
    let running = unended();
    let outcome = running.run_to_end(async { with }, None).await;
    running.publish(outcome);
    running
}

fn never(_: Begun) -> Result<Arc<Running>, Outcome> {
    panic!("a second run was started")
}

#[tokio::test(start_paused = true)]
async fn a_key_runs_once_until_its_retention_is_over() {
    let memory = Memory::new();
    let first = ended(Ok(Answer::text("one"))).await;
    memory
        .enter(&asked("k", "h", 1), |_| Ok(Arc::clone(&first)))
        .unwrap();
    tokio::time::advance(RETENTION).await;
    assert!(Arc::ptr_eq(
        &memory.enter(&asked("k", "h", 1), never).unwrap(),
        &first
    ));
    tokio::time::advance(Duration::from_millis(1)).await;
    let again = unended();
    let entered = memory
        .enter(&asked("k", "h", 1), |_| Ok(Arc::clone(&again)))
        .unwrap();
    assert!(Arc::ptr_eq(&entered, &again));
}

#[tokio::test(start_paused = true)]
async fn a_running_call_is_never_forgotten() {
    let memory = Memory::new();
    let first = unended();
    memory
        .enter(&asked("k", "h", 1), |_| Ok(Arc::clone(&first)))
        .unwrap();
    tokio::time::advance(RETENTION * 10).await;
    assert!(Arc::ptr_eq(
        &memory.enter(&asked("k", "h", 1), never).unwrap(),
        &first
    ));
}

#[tokio::test]
async fn other_arguments_and_lower_epochs_are_refused() {
    let memory = Memory::new();
    memory
        .enter(&asked("k", "h", 2), |_| Ok(unended()))
        .unwrap();
    let other = memory.enter(&asked("k", "other", 2), never).err().unwrap();
    assert!(
        other.is_not_executed() && other.text().contains("other arguments"),
        "{other:?}"
    );
    memory.enter(&asked("k", "h", 3), never).unwrap();
    let zombie = memory.enter(&asked("k", "h", 2), never).err().unwrap();
    assert!(
        zombie.is_not_executed() && zombie.text().contains("epoch 3"),
        "{zombie:?}"
    );
    let nameless = memory.enter(&asked("", "h", 3), never).err().unwrap();
    assert!(nameless.is_not_executed(), "{nameless:?}");
}

#[tokio::test]
async fn a_call_that_surely_did_nothing_may_run_again_but_keeps_its_epoch() {
    let memory = Memory::new();
    let refused = ended(Err(ToolError::not_executed("not now"))).await;
    memory.enter(&asked("k", "h", 5), |_| Ok(refused)).unwrap();
    assert!(memory.enter(&asked("k", "h", 4), never).is_err());
    let second = ended(Ok(Answer::text("two"))).await;
    let entered = memory
        .enter(&asked("k", "h", 5), |_| Ok(Arc::clone(&second)))
        .unwrap();
    assert!(Arc::ptr_eq(&entered, &second));
    assert!(Arc::ptr_eq(
        &memory.enter(&asked("k", "h", 6), never).unwrap(),
        &second
    ));
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_refuses_rather_than_forgets() {
    let memory = Memory::with_room(2);
    for key in ["a", "b"] {
        let done = ended(Ok(Answer::text("done"))).await;
        memory.enter(&asked(key, "h", 1), |_| Ok(done)).unwrap();
    }
    let full = memory.enter(&asked("c", "h", 1), never).err().unwrap();
    assert!(
        matches!(
            full,
            Outcome::NotExecuted {
                retry_after: Some(_),
                ..
            }
        ),
        "{full:?}"
    );
    memory.enter(&asked("a", "h", 1), never).unwrap();
    tokio::time::advance(RETENTION * 2).await;
    memory
        .enter(&asked("c", "h", 1), |_| Ok(unended()))
        .unwrap();
}

/// A time at which a call may have been made that the memory would surely know of.
fn lately() -> Option<SystemTime> {
    Some(SystemTime::now() + CLOCK_SLACK)
}

fn attempt(attempt: u32, of: Begun) -> Begun {
    Begun { attempt, ..of }
}

fn words(known: Known) -> String {
    match known {
        Known::Nothing(why) => why,
        Known::Call(_) => panic!("it is known"),
        Known::NeverStarted(_) => panic!("it is said that it never started"),
    }
}

fn bound(known: Known) -> u32 {
    match known {
        Known::NeverStarted(begun) => begun.bound,
        Known::Call(_) => panic!("it is known"),
        Known::Nothing(why) => panic!("{why}"),
    }
}

#[tokio::test]
async fn a_call_is_found_while_it_runs_and_after() {
    let memory = Memory::new();
    let running = unended();
    let same = Arc::clone(&running);
    memory.enter(&asked("k", "h", 1), |_| Ok(same)).unwrap();
    for outcome in [None, Some(Outcome::failed("it failed"))] {
        if let Some(outcome) = &outcome {
            running.publish(outcome.clone());
        }
        let Known::Call(found) = memory.look_up(&asked("k", "h", 1), None) else {
            panic!()
        };
        assert_eq!(found.outcome(), outcome);
    }
}

#[tokio::test]
async fn who_asks_with_other_arguments_or_a_lower_epoch_is_told_nothing() {
    let memory = Memory::new();
    memory
        .enter(&asked("k", "h", 3), |_| Ok(unended()))
        .unwrap();
    let other = words(memory.look_up(&asked("k", "other", 3), lately()));
    assert!(other.contains("other arguments"), "{other}");
    let zombie = words(memory.look_up(&asked("k", "h", 2), lately()));
    assert!(zombie.contains("epoch 3 has taken over"), "{zombie}");
    // Asking takes over as calling does.
    memory.look_up(&asked("k", "h", 4), lately());
    assert!(memory.enter(&asked("k", "h", 3), never).is_err());
}

#[tokio::test]
async fn a_call_that_never_started_is_bound_to_its_epoch_and_its_attempt() {
    let memory = Memory::new();
    let second = attempt(2, asked("k", "h", 4));
    assert_eq!(bound(memory.look_up(&second, lately())), 2);
    for late in [
        attempt(2, asked("k", "h", 4)),
        attempt(1, asked("k", "h", 9)),
    ] {
        let refused = memory.enter(&late, never).err().unwrap();
        assert!(refused.text().contains("never started"), "{refused:?}");
    }
    let zombie = attempt(3, asked("k", "h", 3));
    assert!(memory.enter(&zombie, never).is_err());
    let third = attempt(3, asked("k", "h", 9));
    let begun = std::cell::Cell::new(None);
    let start = |with| {
        begun.set(Some(with));
        Ok(unended())
    };
    memory.enter(&third, start).unwrap();
    assert_eq!(begun.take().unwrap().bound, 2, "to be written down again");
}

#[tokio::test]
async fn a_refusal_is_no_start_and_binds_too() {
    let memory = Memory::new();
    let refused = ended(Err(ToolError::not_executed("not now"))).await;
    memory.enter(&asked("k", "h", 1), |_| Ok(refused)).unwrap();
    assert_eq!(bound(memory.look_up(&asked("k", "h", 1), None)), 1);
    assert!(memory.enter(&asked("k", "h", 1), never).is_err());
}

#[tokio::test]
async fn what_may_have_been_forgotten_is_not_said_to_have_never_started() {
    let memory = Memory::new();
    let at = |time| words(memory.look_up(&asked("k", "h", 1), time));
    let early = at(Some(SystemTime::now() - Duration::from_secs(1)));
    assert!(early.contains("before this sidecar began"), "{early}");
    let future = at(Some(SystemTime::now() + Duration::from_secs(3600)));
    assert!(future.contains("in the future"), "{future}");
    assert!(at(None).contains("nobody says when"));

    memory.restore(Vec::new(), SystemTime::UNIX_EPOCH);
    let at = |ago| {
        let first = SystemTime::now() - ago;
        memory.look_up(&asked("k", "h", 1), Some(first))
    };
    let old = words(at(RETENTION));
    assert!(old.contains("longer ago than the 60s"), "{old}");
    assert_eq!(bound(at(RETENTION / 2)), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_that_may_go_early_make_room_and_the_memory_then_says_less() {
    let memory = Memory::with_room(2);
    memory.restore(Vec::new(), SystemTime::UNIX_EPOCH);
    for key in ["a", "b"] {
        let done = ended(Ok(Answer::text("done"))).await;
        let lossy = Begun {
            lossy: true,
            ..asked(key, "h", 1)
        };
        memory.enter(&lossy, |_| Ok(done)).unwrap();
    }
    let first = Some(SystemTime::now());
    memory
        .enter(&asked("c", "h", 1), |_| Ok(unended()))
        .unwrap();
    let gone = words(memory.look_up(&asked("a", "h", 1), first));
    assert!(gone.contains("had no more room"), "{gone}");
}

#[tokio::test]
async fn an_interrupted_call_is_not_known_and_runs_again_only_if_somebody_insists() {
    let memory = Memory::new();
    let interrupted = |key: &str, lossy| Kept {
        begun: Begun {
            lossy,
            ..asked(key, "h", 1)
        },
        ago: Duration::ZERO,
        fate: Fate::Interrupted,
    };
    let kept = vec![interrupted("once", true), interrupted("dedup", false)];
    memory.restore(kept, SystemTime::UNIX_EPOCH);
    for key in ["once", "dedup"] {
        let why = words(memory.look_up(&asked(key, "h", 1), lately()));
        assert!(why.contains("not known"), "{why}");
        let again = memory.enter(&asked(key, "h", 1), never).unwrap();
        let said = again.outcome().unwrap();
        assert!(!said.is_success() && !said.is_not_executed(), "{said:?}");
    }
    let second = |key| attempt(2, asked(key, "h", 1));
    memory.enter(&second("dedup"), never).unwrap();
    let mut ran = false;
    let start = |_| {
        ran = true;
        Ok(unended())
    };
    memory.enter(&second("once"), start).unwrap();
    assert!(ran, "a person wants it run again");
}
