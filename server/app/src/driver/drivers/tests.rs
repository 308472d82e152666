use super::*;
use crate::driver::tests::{idle_drivers, key};

/// How often in `ends` such ends in a row the session is to be looked at again.
async fn woken(ends: usize, end: impl Fn(String) -> End) -> usize {
    let (drivers, _drain) = idle_drivers();
    let mut woken = 0;
    for n in 0..ends {
        drivers.ended(&key("a"), 0, end(format!("end {n}")));
        woken += drivers.wake.forget();
    }
    woken
}

#[tokio::test]
async fn a_lost_driver_is_replaced_only_so_often() {
    let lost = woken(20, |reason| End::Lost { reason }).await;
    assert_eq!(lost, MAX_RESTARTS as usize);
}

#[tokio::test]
async fn a_log_that_does_nothing_for_long_is_waited_for() {
    let unavailable = woken(1_000, |reason| End::Unavailable { reason }).await;
    assert_eq!(unavailable, 1_000);
}
