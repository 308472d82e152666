//! The rules of the memory, on a paused clock.

#![expect(clippy::unwrap_used, reason = "tests")]

use tokio_util::sync::CancellationToken;

use super::*;
use crate::answer::{Answer, ToolError};

const RETENTION: Duration = Duration::from_secs(60);

fn asked(key: &str, hash: &str, epoch: u64) -> Begun {
    let retention_ms = u64::try_from(RETENTION.as_millis()).unwrap();
    Begun {
        key: key.to_owned(),
        tool: "t".to_owned(),
        arguments_sha256: hash.to_owned(),
        epoch,
        retention_ms,
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

fn never() -> Result<Arc<Running>, Outcome> {
    panic!("a second run was started")
}

#[tokio::test(start_paused = true)]
async fn a_key_runs_once_until_its_retention_is_over() {
    let memory = Memory::new();
    let first = ended(Ok(Answer::text("one"))).await;
    memory
        .enter(&asked("k", "h", 1), || Ok(Arc::clone(&first)))
        .unwrap();
    tokio::time::advance(RETENTION).await;
    assert!(Arc::ptr_eq(
        &memory.enter(&asked("k", "h", 1), never).unwrap(),
        &first
    ));
    tokio::time::advance(Duration::from_millis(1)).await;
    let again = unended();
    let entered = memory
        .enter(&asked("k", "h", 1), || Ok(Arc::clone(&again)))
        .unwrap();
    assert!(Arc::ptr_eq(&entered, &again));
}

#[tokio::test(start_paused = true)]
async fn a_running_call_is_never_forgotten() {
    let memory = Memory::new();
    let first = unended();
    memory
        .enter(&asked("k", "h", 1), || Ok(Arc::clone(&first)))
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
    memory.enter(&asked("k", "h", 2), || Ok(unended())).unwrap();
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
    memory.enter(&asked("k", "h", 5), || Ok(refused)).unwrap();
    assert!(memory.enter(&asked("k", "h", 4), never).is_err());
    let second = ended(Ok(Answer::text("two"))).await;
    let entered = memory
        .enter(&asked("k", "h", 5), || Ok(Arc::clone(&second)))
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
        memory.enter(&asked(key, "h", 1), || Ok(done)).unwrap();
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
    memory.enter(&asked("c", "h", 1), || Ok(unended())).unwrap();
}
