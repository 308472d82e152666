#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::driver::tests::{
    QUICK, SLOW, cancel, create, idle_drivers, key, rig, start, until_ended,
};

/// Alarms that are set.
pub(in crate::driver) fn waits(drivers: &Drivers) -> usize {
    drivers.wake.forget()
}

/// How often in `ends` such ends in a row the session is to be looked at again.
async fn woken(ends: usize, end: impl Fn(String) -> End) -> usize {
    let (drivers, _drain) = idle_drivers();
    let mut woken = 0;
    for n in 0..ends {
        drivers.ended(&key("a"), 0, end(format!("end {n}")), false);
        woken += drivers.wake.forget();
    }
    woken
}

#[tokio::test]
async fn a_lost_driver_is_replaced_only_so_often() {
    let lost = woken(20, |reason| End::Lost { reason }).await;
    assert_eq!(lost + 1, crate::index::MAX_LOSSES as usize);
}

#[tokio::test]
async fn a_log_that_does_nothing_for_long_is_waited_for() {
    let unavailable = woken(1_000, |reason| End::Unavailable { reason }).await;
    assert_eq!(unavailable, 1_000);
}

#[tokio::test]
async fn a_session_with_an_open_loop_is_not_let_go_of() {
    let (rig, a) = (rig(SLOW), key("a"));
    let started = rig.drivers.start_loop(&a, create("a"), start("r1")).await;
    started.unwrap();
    let tail = rig.log.tail(&a).await.unwrap();
    let refused = rig.drivers.release(&a).await;
    assert_eq!(refused.err(), Some(ReleaseError::LoopOpen));
    assert_eq!(rig.drivers.active(), 1, "its driver goes on");
    rig.drivers.command(&a, cancel("r2")).await.unwrap();
    let ended = rig.log.tail(&a).await.unwrap();
    assert_eq!(ended, tail.map(|seq| seq + 1));
}

#[tokio::test]
async fn nobody_drives_what_is_held_and_commands_wait_for_its_end() {
    let (rig, a) = (rig(QUICK), key("a"));
    let started = rig.drivers.start_loop(&a, create("a"), start("r1")).await;
    started.unwrap();
    until_ended(&rig.log, &a, 1).await;
    let hold = rig.drivers.release(&a).await.unwrap();
    let tail = rig.log.tail(&a).await.unwrap();
    rig.drivers.attach(&a);
    let waiting = rig.drivers.start_loop(&a, create("a"), start("r2"));
    let mut waiting = std::pin::pin!(waiting);
    let mut second = std::pin::pin!(async { drop(rig.drivers.release(&a).await) });
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.log.tail(&a).await.unwrap(), tail);
    drop(hold);
    let (answer, ()) = tokio::join!(waiting, second);
    assert!(answer.unwrap().seq > tail.unwrap());
    until_ended(&rig.log, &a, 2).await;
}
