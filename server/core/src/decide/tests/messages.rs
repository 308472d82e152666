//! Messages: start, steer, queue, interrupt; each is taken up once, in accept order.

use std::sync::Arc;

use super::kit::{Session, by, create, kinds, nothing, said, send, start};
use crate::{
    What,
    agent::{Agent, Limits},
    event::Event,
    ids::{CallId, LoopId},
    input::Mode,
    outcome::{EndReason, ModelFailureKind},
    rejection::Rejection,
};

#[test]
fn a_steer_joins_at_the_next_step_in_accept_order() {
    let mut s = Session::started(Limits::default());
    assert_eq!(kinds(&s.send(Mode::Steer, "one")), ["MessageAdded"]);
    s.ask(&["read"]);
    s.send(Mode::Steer, "two");
    assert_eq!(
        s.talk(),
        ["user: hello", "model: "],
        "a fact, and not yet said"
    );
    s.tool(2, 1, "text");
    let talk = [
        "user: hello",
        "model: ",
        "1 results",
        "user: one",
        "user: two",
    ];
    assert_eq!(s.talk(), talk);
}

#[test]
fn a_reply_without_calls_goes_on_while_steers_wait() {
    let mut s = Session::started(Limits::default());
    s.send(Mode::Steer, "and then?");
    assert_eq!(
        kinds(&s.say("done")),
        ["ModelCallCompleted", "ModelCallStarted"]
    );
    assert_eq!(kinds(&s.say("that")), ["ModelCallCompleted", "LoopEnded"]);
    assert_eq!(
        s.talk(),
        [
            "user: hello",
            "model: done",
            "user: and then?",
            "model: that"
        ]
    );
}

#[test]
fn a_steer_does_not_join_a_repeated_attempt() {
    let mut s = Session::started(Limits::default());
    s.fail(ModelFailureKind::Overloaded);
    s.send(Mode::Steer, "wait");
    s.fire_next();
    assert_eq!(s.talk(), ["user: hello"]);
    s.say("hi");
    assert_eq!(s.talk(), ["user: hello", "model: hi", "user: wait"]);
}

#[test]
fn queued_messages_have_a_loop_each() {
    let mut s = Session::started(Limits::default());
    s.send(Mode::Queue, "two");
    s.send(Mode::Queue, "three");
    let events = s.say("1");
    assert_eq!(
        kinds(&events),
        [
            "ModelCallCompleted",
            "LoopEnded",
            "LoopStarted",
            "ModelCallStarted"
        ]
    );
    s.say("2");
    s.say("3");
    assert_eq!(s.state.ended.len(), 3);
    let talk = [
        "user: hello",
        "model: 1",
        "user: two",
        "model: 2",
        "user: three",
        "model: 3",
    ];
    assert_eq!(s.talk(), talk);
}

#[test]
fn the_queue_waits_after_any_other_end() {
    let mut s = Session::started(Limits {
        max_steps: 1,
        ..Limits::default()
    });
    s.send(Mode::Queue, "two");
    s.ask(&["read"]);
    s.tool(2, 1, "text");
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 1 });
    assert_eq!(s.state.queue.len(), 1);
}

#[test]
fn an_interrupt_gives_the_running_call_up() {
    let mut s = Session::started(Limits::default());
    let events = s.send(Mode::Interrupt, "no");
    assert_eq!(
        kinds(&events),
        [
            "MessageAdded",
            "ModelCallAbandoned",
            "BudgetSettled",
            "ModelCallStarted"
        ]
    );
    assert_eq!(s.model(), (CallId(2), 1));
    assert_eq!(s.talk(), ["user: hello", "user: no"]);
    s.fail(ModelFailureKind::Overloaded);
    let events = s.send(Mode::Interrupt, "now");
    assert_eq!(
        kinds(&events),
        ["MessageAdded", "ModelCallAbandoned", "ModelCallStarted"]
    );
    assert_eq!(
        s.model(),
        (CallId(3), 1),
        "a backoff is interrupted as well"
    );
}

#[test]
fn an_interrupt_leaves_tools_running() {
    let mut s = Session::started(Limits::default());
    s.ask(&["read"]);
    assert_eq!(kinds(&s.send(Mode::Interrupt, "no")), ["MessageAdded"]);
    assert_eq!(
        kinds(&s.tool(2, 1, "text")),
        ["ToolCallCompleted", "ModelCallStarted"]
    );
}

#[test]
fn an_interrupt_at_the_last_step_ends_the_loop_and_keeps_the_message() {
    let mut s = Session::started(Limits {
        max_steps: 1,
        ..Limits::default()
    });
    s.send(Mode::Interrupt, "no");
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 1 });
    assert_eq!(s.state.pending.len(), 1);
}

#[test]
fn without_a_loop_any_message_starts_one() {
    for mode in [Mode::Queue, Mode::Steer, Mode::Interrupt] {
        let mut s = Session::new(Limits::default(), Agent::default());
        let events = s.send(mode, "hello");
        assert_eq!(
            kinds(&events),
            ["MessageAdded", "LoopStarted", "ModelCallStarted"]
        );
    }
}

#[test]
fn no_more_than_the_limit_wait() {
    let mut s = Session::started(Limits {
        max_waiting_messages: 2,
        ..Limits::default()
    });
    s.send(Mode::Queue, "a");
    s.send(Mode::Steer, "b");
    let third = What::SendMessage(send("", Mode::Steer, "c"));
    assert_eq!(s.offer(third), Err(Rejection::TooManyMessages { limit: 2 }));
}

#[test]
fn a_message_for_another_loop_is_refused() {
    let mut s = Session::started(Limits::default());
    let guarded = |named| {
        let mut message = send("", Mode::Steer, "c");
        message.guard = Some(LoopId(named));
        What::SendMessage(message)
    };
    let (named, running) = (LoopId(7), LoopId(1));
    let mismatch = Rejection::LoopMismatch { named, running };
    assert_eq!(s.offer(guarded(7)), Err(mismatch));
    assert_eq!(kinds(&s.go(guarded(1))), ["MessageAdded"]);
    s.cancel();
    let mismatch = Rejection::LoopMismatch { named, running };
    assert_eq!(s.offer(guarded(7)), Err(mismatch));
    let after = ["MessageAdded", "LoopStarted", "ModelCallStarted"];
    assert_eq!(kinds(&s.go(guarded(1))), after, "the last one");
    s.cancel();
    let running = LoopId(2);
    let mismatch = Rejection::LoopMismatch {
        named: LoopId(1),
        running,
    };
    assert_eq!(s.offer(guarded(1)), Err(mismatch));
}

#[test]
fn a_request_is_answered_once_and_the_same_way() {
    let mut s = Session::new(Limits::default(), Agent::default());
    s.go(What::StartLoop(start("r1", "hello")));
    let answer = s.state.answer("r1").expect("it is answered");
    assert_eq!((answer.seq, answer.loop_id), (3, LoopId(1)));
    assert_eq!(s.go(What::StartLoop(start("r1", "hello"))), nothing());
    s.go(What::SendMessage(send("r2", Mode::Steer, "one")));
    assert_eq!(
        s.go(What::SendMessage(send("r2", Mode::Steer, "one"))),
        nothing()
    );
    s.say("done");
    s.say("done");
    assert_eq!(s.go(What::StartLoop(start("r1", "hello"))), nothing());
    assert_eq!(s.state.answer("r1"), Some(answer));
    assert_eq!(s.state.answer("r3"), None);
}

#[test]
fn requests_without_an_id_are_never_the_same() {
    let mut s = Session::started(Limits::default());
    assert_eq!(s.send(Mode::Steer, "one"), s.send(Mode::Steer, "one"));
    assert_eq!(s.state.pending.len(), 2);
}

#[test]
fn one_loop_at_a_time_and_one_session_of_a_name() {
    let mut s = Session::empty();
    let begin = || What::StartLoop(start("", "hello"));
    let message = || What::SendMessage(send("", Mode::Queue, "hello"));
    assert_eq!(s.offer(begin()), Err(Rejection::SessionNotFound));
    assert_eq!(s.offer(message()), Err(Rejection::SessionNotFound));
    let again = || What::Create(create(by("c"), Limits::default(), Agent::default()));
    assert_eq!(kinds(&s.go(again())), ["SessionCreated", "ToolsChanged"]);
    let session = "s".to_owned();
    assert_eq!(s.offer(again()), Err(Rejection::SessionExists { session }));
    s.go(begin());
    let running = LoopId(1);
    assert_eq!(s.offer(begin()), Err(Rejection::LoopRunning { running }));
}

#[test]
fn a_session_may_begin_without_tools() {
    let mut s = Session::empty();
    let mut bare = create(by(""), Limits::default(), Agent::default());
    bare.tools = Arc::default();
    assert_eq!(kinds(&s.go(What::Create(bare))), ["SessionCreated"]);
}

#[test]
fn a_loop_may_bring_another_agent_and_other_limits() {
    let mut s = Session::started(Limits::default());
    s.say("hi");
    let mut other = start("", "again");
    other.parts = said("again");
    other.agent = Some(Arc::new(Agent {
        model: "other".to_owned(),
        ..Agent::default()
    }));
    other.limits = Some(Arc::new(Limits {
        max_output_tokens: 99,
        ..Limits::default()
    }));
    assert!(s.state.counted.is_some());
    let events = s.go(What::StartLoop(other.clone()));
    assert_eq!(s.state.counted, None, "the other agent has another prompt");
    let Some(Event::ModelCallStarted(licence)) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(
        (licence.model.as_str(), licence.max_output_tokens),
        ("other", 99)
    );
    let whole = s.state.prompt_bound();
    s.say("hi");
    assert!(
        s.state.prompt_bound() < whole,
        "a count is less than the bound by bytes"
    );
    let events = s.go(What::StartLoop(other));
    let Event::LoopStarted(started) = &events[1] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (&started.agent, &started.limits),
        (&None, &None),
        "the same ones are not said"
    );
}
