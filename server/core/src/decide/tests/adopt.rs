//! Copies of a log: nothing happens in one until it is closed, and it begins at rest.

use std::collections::BTreeMap;

use super::{
    cancel::dispatched,
    kit::{Session, answer, by, kinds, nothing, start},
};
use crate::{
    Entry, Rejection, What,
    agent::{Agent, Limits, UnknownPolicy},
    effect::wanted,
    ids::{LoopId, Timestamp},
    input::{AdoptOrigin, Mode},
    outcome::{EndReason, ToolFailureKind},
    replay::redecide,
};

fn fork(request: &str) -> What {
    adopt(
        request,
        AdoptOrigin::Fork {
            from: "s".to_owned(),
            from_seq: 3,
            labels: BTreeMap::from([("copy".to_owned(), "yes".to_owned())]),
        },
    )
}

fn import() -> What {
    let from = "elsewhere/s".to_owned();
    adopt("", AdoptOrigin::Import { from, from_seq: 3 })
}

fn adopt(request: &str, origin: AdoptOrigin) -> What {
    What::Adopt {
        by: by(request),
        session: "copy".to_owned(),
        namespace: "m".to_owned(),
        origin,
    }
}

fn whole(s: &Session) -> Session {
    s.copied(usize::try_from(s.state.seq).expect("few"))
}

#[test]
fn an_unfinished_copy_wants_nothing_and_takes_nothing() {
    let mut copy = whole(&Session::started(Limits::default()));
    assert!(copy.state.active.is_some());
    assert_eq!(wanted(&copy.state).len(), 0);
    assert_eq!(copy.state.wake_at(), None);
    for what in [
        What::StartLoop(start("", "hi")),
        answer("", 2, true),
        What::Detach,
        What::Attach {
            epoch: 2,
            cut_bytes: None,
            server: String::new(),
        },
    ] {
        assert_eq!(copy.offer(what), Err(Rejection::Unfinished));
    }
}

#[test]
fn a_fork_has_a_name_of_its_own_and_its_loop_has_ended() {
    let mut s = Session::started(Limits::default());
    s.wait(500);
    let mut copy = whole(&s);
    let events = copy.go(fork(""));
    assert_eq!(
        kinds(&events),
        [
            "SessionForked",
            "ModelCallAbandoned",
            "BudgetSettled",
            "LoopEnded"
        ]
    );
    assert_eq!(
        copy.reason().describe(),
        "cancelled by ann: forked at seq 3"
    );
    let head = copy.state.session.as_ref().expect("it is a session");
    assert_eq!((&*head.session, &*head.namespace), ("copy", "m"));
    assert_eq!(head.created_at, Timestamp(s.now));
    assert!(head.labels.contains_key("copy"));
    assert!(!copy.state.copied);
    assert_eq!(kinds(&copy.attach()), ["DriverAttached"]);
    assert_eq!(copy.state.epoch, s.state.epoch + 1);
    copy.start("go on");
    assert_eq!(copy.state.current_loop(), LoopId(2), "ids go on");
    copy.say("yes");
    assert_eq!(copy.reason(), EndReason::Completed);
}

#[test]
fn an_import_keeps_its_labels_and_when_it_began() {
    let s = Session::started(Limits::default());
    let mut copy = whole(&s);
    copy.wait(500);
    assert_eq!(kinds(&copy.go(import()))[0], "SessionImported");
    let (head, before) = (copy.state.session.as_ref(), s.state.session.as_ref());
    assert_eq!(
        head.map(|head| (&*head.session, &head.labels, head.created_at)),
        before.map(|head| ("copy", &head.labels, head.created_at))
    );
    assert_eq!(copy.reason().describe(), "cancelled by ann: imported");
}

#[test]
fn calls_in_every_phase_end_with_the_copy() {
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 3,
        on_unknown: Some(UnknownPolicy::Ask),
        ..Limits::default()
    });
    s.ask(&["blind", "once", "idem", "blind", "read", "read", "read"]);
    s.tool_fails(2, 1, ToolFailureKind::Ambiguous, false);
    s.tool_fails(3, 1, ToolFailureKind::Ambiguous, false);
    let mut copy = whole(&s);
    let events = copy.go(fork(""));
    let expected = [
        "SessionForked",
        "UnknownResolved",
        "ToolCallCancelled",
        "ToolCallCancelled",
        "ApprovalResolved",
        "ToolCallCancelled",
        "ToolCallCancelled",
        "ToolCallCancelled",
        "ToolCallCancelled",
        "LoopEnded",
    ];
    assert_eq!(kinds(&events), expected);
    assert_eq!(dispatched(&events), [true, true, false, true, false, false]);
    copy.attach();
    copy.start("again");
    let events = copy.ask(&["blind"]);
    assert_eq!(
        kinds(&events).last(),
        Some(&"ApprovalRequested"),
        "unknown it stays"
    );
}

#[test]
fn what_waits_is_dropped_from_a_fork_and_kept_by_an_import() {
    let mut s = Session::started(Limits::default());
    s.send(Mode::Steer, "mind this");
    s.send(Mode::Queue, "later");
    let waiting = |copy: &Session| (copy.state.pending.len(), copy.state.queue.len());
    let mut copy = whole(&s);
    copy.go(fork(""));
    assert_eq!(waiting(&copy), (0, 0));
    let mut copy = whole(&s);
    copy.go(import());
    assert_eq!(waiting(&copy), (1, 1));
}

#[test]
fn requests_of_the_original_are_not_answered_by_the_copy() {
    let mut s = Session::new(Limits::default(), Agent::default());
    s.go(What::StartLoop(start("r", "hello")));
    s.say("hi");
    let mut copy = whole(&s);
    assert_eq!(kinds(&copy.go(fork("r"))), ["SessionForked"]);
    assert_eq!(copy.state.answer("r").map(|a| a.seq), Some(copy.state.seq));
    assert_eq!(copy.go(fork("r")), nothing(), "the same request");
    let session = "copy".to_owned();
    assert_eq!(
        copy.offer(fork("other")),
        Err(Rejection::SessionExists { session })
    );
    assert_eq!(
        Session::empty().offer(fork("")),
        Err(Rejection::SessionNotFound)
    );
}

#[test]
fn a_copy_owes_named_budgets_nothing() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    s.granted(100);
    s.attach();
    s.granted(100);
    assert_eq!(s.state.settling.len(), 1);
    let mut copy = whole(&s);
    assert_eq!(
        kinds(&copy.go(fork(""))).last(),
        Some(&"SettlementAcknowledged")
    );
    assert_eq!(copy.state.settling.len(), 0);
    assert_eq!(wanted(&copy.state).len(), 0);
}

#[test]
fn copied_entries_are_decided_again_as_their_originals_were() {
    let s = Session::started(Limits::default());
    let copy = s.copied(2);
    let (at, own) = (Timestamp(s.now), s.entry(2));
    let refused = redecide(&copy.state, at, &own).expect_err("the copy is unfinished");
    assert_eq!(refused.decided, Err(Rejection::Unfinished.to_string()));
    let copied = Entry {
        copied: true,
        ..own
    };
    assert_eq!(redecide(&copy.state, at, &copied), Ok(()));
}

#[test]
fn an_import_is_born_when_it_comes_and_was_created_when_it_was() {
    let mut s = Session::started(Limits::default());
    let created = s.state.session.as_deref().map(|head| head.created_at);
    s.wait(500);
    let mut copy = whole(&s);
    copy.go(import());
    let head = copy.state.session.as_deref().expect("it is adopted");
    assert_eq!(Some(head.created_at), created);
    // What is reserved and called for it is told from what the original did under the same id.
    assert_eq!(head.born_at, Timestamp(copy.now));
    assert!(head.born_at > head.created_at);
}
