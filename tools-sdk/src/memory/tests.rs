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

/// A call that was made a moment ago to the process of this name.
fn made_to(name: impl Into<String>) -> Dispatched {
    Dispatched {
        to: name.into(),
        first: Some(SystemTime::now()),
    }
}

/// A call that was made a moment ago to this memory, which would surely know of it.
fn lately(memory: &Memory) -> Dispatched {
    made_to(memory.instance())
}

/// A call of which nobody says when it was made, or to whom.
fn sometime() -> Dispatched {
    Dispatched {
        to: String::new(),
        first: None,
    }
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
        let Known::Call(found) = memory.look_up(&asked("k", "h", 1), &sometime()) else {
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
    let other = words(memory.look_up(&asked("k", "other", 3), &lately(&memory)));
    assert!(other.contains("other arguments"), "{other}");
    let zombie = words(memory.look_up(&asked("k", "h", 2), &lately(&memory)));
    assert!(zombie.contains("epoch 3 has taken over"), "{zombie}");
    // Asking takes over as calling does.
    memory.look_up(&asked("k", "h", 4), &lately(&memory));
    assert!(memory.enter(&asked("k", "h", 3), never).is_err());
}

#[tokio::test]
async fn a_call_that_never_started_is_bound_to_its_epoch_and_its_attempt() {
    let memory = Memory::new();
    let second = attempt(2, asked("k", "h", 4));
    assert_eq!(bound(memory.look_up(&second, &lately(&memory))), 2);
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
    assert_eq!(bound(memory.look_up(&asked("k", "h", 1), &sometime())), 1);
    assert!(memory.enter(&asked("k", "h", 1), never).is_err());
}

#[tokio::test]
async fn a_call_to_another_process_is_not_said_to_have_never_started_whatever_the_clocks_say() {
    let (before, memory) = (Memory::new(), Memory::new());
    let ran = unended();
    before.enter(&asked("k", "h", 1), |_| Ok(ran)).unwrap();
    // By its caller's clock it was made after this process had started.
    let first = Some(SystemTime::now() + Duration::from_secs(2));
    for to in [before.instance(), "odd".to_owned(), String::new()] {
        let why = words(memory.look_up(&asked("k", "h", 1), &Dispatched { to, first }));
        assert!(why.contains("process of this sidecar"), "{why}");
    }
    // To this very process, by a clock that is slow or fast.
    for first in [
        SystemTime::now() - RETENTION / 3,
        SystemTime::now() + RETENTION / 3,
    ] {
        let first = Some(first);
        let to = memory.instance();
        let found = memory.look_up(&asked("other", "h", 1), &Dispatched { to, first });
        assert_eq!(bound(found), 1);
    }
}

#[tokio::test]
async fn an_attempt_that_did_nothing_here_says_nothing_of_one_made_elsewhere() {
    let memory = Memory::new();
    let refused = ended(Err(ToolError::not_executed("not now"))).await;
    let second = attempt(2, asked("k", "h", 1));
    memory.enter(&second, |_| Ok(refused)).unwrap();
    let why = words(memory.look_up(&second, &made_to("another.0")));
    assert!(why.contains("another process"), "{why}");
    assert_eq!(bound(memory.look_up(&second, &lately(&memory))), 2);
    // From now on it is known of each attempt up to that one.
    assert_eq!(bound(memory.look_up(&second, &sometime())), 2);
}

#[tokio::test]
async fn calls_of_long_ago_are_not_said_to_have_never_started() {
    let memory = Memory::new();
    memory.restore(Vec::new(), "file".to_owned());
    assert_eq!(memory.instance(), "file.0");
    let at = |first| {
        let to = "file.0".to_owned();
        memory.look_up(&asked("k", "h", 1), &Dispatched { to, first })
    };
    assert!(words(at(None)).contains("nobody says when"));
    let ahead = Duration::from_secs(3600);
    for far in [SystemTime::now() - RETENTION, SystemTime::now() + ahead] {
        let why = words(at(Some(far)));
        assert!(why.contains("kept for 60s"), "{why}");
    }
    assert_eq!(bound(at(Some(SystemTime::now() - RETENTION / 3))), 1);
}

#[tokio::test]
async fn a_call_is_taken_by_the_memory_that_it_is_meant_for() {
    let memory = Memory::new();
    assert!(memory.is_of(&memory.instance()) && !memory.is_of(&Memory::new().instance()));
    assert!(!memory.is_of("odd") && !memory.is_of(""));
}

#[tokio::test(start_paused = true)]
async fn calls_that_may_go_early_make_room_and_the_memory_then_says_less() {
    let memory = Memory::with_room(2);
    let before = memory.instance();
    for key in ["a", "b"] {
        let done = ended(Ok(Answer::text("done"))).await;
        let lossy = Begun {
            lossy: true,
            ..asked(key, "h", 1)
        };
        memory.enter(&lossy, |_| Ok(done)).unwrap();
    }
    memory
        .enter(&asked("c", "h", 1), |_| Ok(unended()))
        .unwrap();
    let gone = words(memory.look_up(&asked("a", "h", 1), &made_to(before.clone())));
    assert!(gone.contains("had no more room"), "{gone}");
    // Whom it told its old name it still serves.
    assert!(memory.is_of(&before) && memory.instance() != before);
    assert_eq!(
        bound(memory.look_up(&asked("d", "h", 1), &lately(&memory))),
        1
    );
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
    memory.restore(kept, "file".to_owned());
    for key in ["once", "dedup"] {
        let why = words(memory.look_up(&asked(key, "h", 1), &lately(&memory)));
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
