//! Steps: from a message to the end, and what each stop reason means.

use super::kit::{Session, call, kinds};
use crate::{
    agent::Limits,
    ids::{CallId, LoopId},
    message::Part,
    outcome::{EndReason, StopReason},
};

#[test]
fn a_loop_without_tools_is_one_step() {
    let mut s = Session::new(Limits::default(), crate::agent::Agent::default());
    let events = s.start("hello");
    assert_eq!(
        kinds(&events),
        ["MessageAdded", "LoopStarted", "ModelCallStarted"]
    );
    assert_eq!(kinds(&s.say("hi")), ["ModelCallCompleted", "LoopEnded"]);
    assert_eq!(s.reason(), EndReason::Completed);
    let ended = s.state.ended.back().expect("it ended");
    assert_eq!((ended.id, ended.text.as_str()), (LoopId(1), "hi"));
    assert_eq!((ended.totals.steps, ended.totals.usage.total()), (1, 15));
    assert_eq!(ended.totals.cost_micro_usd, 3);
    assert_eq!(s.talk(), ["user: hello", "model: hi"]);
}

#[test]
fn results_start_the_next_step() {
    let mut s = Session::started(Limits::default());
    let events = s.ask(&["read"]);
    assert_eq!(
        kinds(&events),
        ["ModelCallCompleted", "ToolCallRequested", "ToolCallStarted"]
    );
    assert_eq!(
        kinds(&s.tool(2, 1, "text")),
        ["ToolCallCompleted", "ModelCallStarted"]
    );
    assert_eq!(s.model(), (CallId(3), 1));
    s.say("done");
    assert_eq!(
        s.talk(),
        ["user: hello", "model: ", "1 results", "model: done"]
    );
}

#[test]
fn max_steps_ends_the_loop_with_its_results_kept() {
    let mut s = Session::started(Limits {
        max_steps: 2,
        ..Limits::default()
    });
    s.ask(&["read"]);
    s.tool(2, 1, "one");
    s.ask(&["read"]);
    assert_eq!(
        kinds(&s.tool(4, 1, "two")),
        ["ToolCallCompleted", "LoopEnded"]
    );
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 2 });
    assert_eq!(s.results(), [(4, "two".to_owned(), false)]);
}

#[test]
fn a_stop_reason_without_calls_ends_or_goes_on_by_rule() {
    let error = "the model stopped for a reason that is not known: `odd`".to_owned();
    // No window was set: what fits is not known.
    let full = EndReason::ContextExhausted {
        tokens: 11,
        limit: 0,
    };
    let cases = [
        (StopReason::EndTurn, Some(EndReason::Completed)),
        (StopReason::ToolUse, Some(EndReason::Completed)),
        (StopReason::StopSequence, Some(EndReason::Completed)),
        (StopReason::Refusal, Some(EndReason::Refused)),
        (StopReason::ContentFilter, Some(EndReason::Refused)),
        (StopReason::ContextFull, Some(full)),
        (
            StopReason::Other("odd".to_owned()),
            Some(EndReason::Error { message: error }),
        ),
        (StopReason::Pause, None),
    ];
    for (stop, expected) in cases {
        let mut s = Session::started(Limits::default());
        s.reply(vec![Part::Text("so".to_owned())], stop.clone());
        let reason = s.state.active.is_none().then(|| s.reason());
        assert_eq!(reason, expected, "{stop:?}");
    }
}

#[test]
fn a_pause_is_not_forever() {
    let mut s = Session::started(Limits {
        max_steps: 3,
        ..Limits::default()
    });
    for _ in 0..3 {
        s.reply(Vec::new(), StopReason::Pause);
    }
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 3 });
}

#[test]
fn calls_of_a_whole_reply_run_whatever_the_word_that_ends_it() {
    for stop in [
        StopReason::EndTurn,
        StopReason::Pause,
        StopReason::Other("odd".to_owned()),
    ] {
        let mut s = Session::started(Limits::default());
        let events = s.reply(vec![call("read")], stop);
        assert_eq!(
            events.last().map(crate::Event::kind),
            Some("ToolCallStarted")
        );
    }
}

#[test]
fn calls_of_a_refused_reply_do_not_run_and_have_results() {
    for stop in [
        StopReason::Refusal,
        StopReason::ContentFilter,
        StopReason::ContextFull,
    ] {
        let mut s = Session::started(Limits::default());
        let events = s.reply(vec![call("read"), call("once")], stop);
        assert!(!kinds(&events).contains(&"ToolCallStarted"), "{events:?}");
        assert!(s.results().iter().all(|(_, _, is_error)| *is_error));
        assert_eq!(s.results().len(), 2);
    }
}

#[test]
fn an_empty_reply_is_no_turn() {
    let mut s = Session::started(Limits::default());
    s.reply(Vec::new(), StopReason::EndTurn);
    assert_eq!(s.reason(), EndReason::Completed);
    assert_eq!(s.talk(), ["user: hello"]);
}

#[test]
fn the_text_of_an_ended_loop_is_clamped_and_the_last_that_was_said() {
    let mut s = Session::started(Limits::default());
    s.reply(
        vec![Part::Text("ä".repeat(40_000)), call("read")],
        StopReason::ToolUse,
    );
    s.tool(2, 1, "text");
    s.reply(Vec::new(), StopReason::EndTurn);
    let ended = s.state.ended.back().expect("it ended");
    assert_eq!(ended.text, "ä".repeat(32 * 1024));
}
