//! A ledger that is carried over into a new stream is the same ledger.

use proptest::prelude::*;

use super::{
    histories::{Step, request_of},
    *,
};

/// What a reader gets of facts that are written down.
fn read(events: Vec<LedgerEvent>) -> LedgerEntry {
    let text = serde_json::to_string(&LedgerEntry { events }).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The ledger that a new stream after this one begins with.
fn carried_over(ledger: &Ledger) -> Ledger {
    let mut next = Ledger::default();
    next.apply_entry(ledger.seq, &read(ledger.carry(ledger.seq)));
    next
}

#[test]
fn what_is_carried_is_counted() {
    let ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 100, 200),
        call(2, &["b"], 10, 20),
        settle(2, 1, 2),
    ]);
    let events = ledger.carry(77);
    let LedgerEvent::LedgerCarried(head) = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!((head.seq, head.events), (77, events.len() as u64 - 1));
    assert_eq!(events.len(), 4, "a budget, a reservation, those that ended");
}

#[test]
fn a_reader_that_knew_something_else_knows_what_is_carried() {
    let ledger = after(&[create("b", terms(1_000)), call(1, &["b"], 100, 200)]);
    let mut other = after(&[create("gone", terms(1)), call(9, &[], 1, 9)]);
    other.apply_entry(ledger.seq, &read(ledger.carry(ledger.seq)));
    assert_eq!(other, ledger);
}

#[test]
fn a_repeat_is_known_after_the_ledger_was_carried_over() {
    let ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 100, 200),
        settle(1, 80, 20),
        call(2, &["b"], 100, 200),
    ]);
    let mut next = carried_over(&ledger);
    let zombie = carry_out(&mut next, NOON, &call(1, &["b"], 100, 200));
    assert_eq!(zombie, Err(Refusal::Ended(hold(1))));
    let again = carry_out(&mut next, NOON, &call(2, &["b"], 100, 200));
    assert_eq!(output_of(again), Some(200));
    assert_eq!(next, ledger, "and takes nothing");
}

proptest! {
    /// Wherever a history is cut and carried over, even twice: the fold of what is carried and of the
    /// rest is the fold of all, whatever was set aside, ended, warned of or passed into a new period.
    #[test]
    fn the_fold_of_what_is_carried_and_the_rest_is_the_fold_of_all(
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), 0u64..400, 0u64..400, 0u64..50_000_000), 1..60),
        cuts in (0usize..60, 0usize..60),
    ) {
        let rolling = Terms { period: Period::Rolling { window_ms: 100_000_000 }, ..terms(2_000) };
        let mut all = after(&[
            create("a", Terms { period: Period::Day, ..terms(900) }),
            create("b", below("a", rolling)),
            create("c", below("b", terms(1_500))),
        ]);
        let mut last = all.clone();
        let mut at = NOON;
        for (number, step) in steps.into_iter().enumerate() {
            let step: Step = step;
            if number == cuts.0 || number == cuts.1 {
                last = carried_over(&last);
                prop_assert_eq!(&last, &all);
            }
            at = at.plus(step.4);
            for request in [Request::Expire, request_of(step)] {
                let Ok((events, _)) = decide(&all, at, &request) else { continue };
                prop_assert_eq!(decide(&last, at, &request).map(|decided| decided.0), Ok(events.clone()));
                for ledger in [&mut all, &mut last] {
                    events.iter().for_each(|event| ledger.apply(event));
                }
            }
        }
        prop_assert_eq!(last, all);
    }
}
