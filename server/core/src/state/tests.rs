use super::*;
use crate::{
    agent::UnknownPolicy,
    event::{
        Event, LoopStarted, ModelCallCompleted, ToolCallRequested, ToolCallUnknown,
        UnknownResolution, UnknownResolved,
    },
    message::{CallPart, Part},
    outcome::StopReason,
};

/// A loop whose model asks for so many calls of one tool, each with arguments of its own.
fn asked_for(calls: u32) -> State {
    let part = || {
        Part::ToolCall(CallPart {
            provider_id: String::new(),
            tool: "pay".to_owned(),
            arguments: String::new(),
        })
    };
    let mut state = State::default();
    state.apply(&Event::LoopStarted(LoopStarted {
        id: LoopId(1),
        at: Timestamp(1),
        traceparent: None,
        agent: None,
        limits: None,
    }));
    state.apply(&Event::ModelCallCompleted(ModelCallCompleted {
        recap: false,
        call: CallId(1),
        attempt: 1,
        parts: Arc::new((0..calls).map(|_| part()).collect()),
        stop: StopReason::ToolUse,
        usage: None,
        response_id: None,
        body_crc: String::new(),
        latency_ms: 0,
        first_token_ms: None,
        cost_micro_usd: None,
    }));
    for index in 0..calls {
        state.apply(&Event::ToolCallRequested(ToolCallRequested {
            call: CallId(index),
            index,
            args_hash: index.to_string(),
        }));
    }
    state
}

fn unknown(state: &mut State, call: u32) {
    state.apply(&Event::ToolCallUnknown(ToolCallUnknown {
        call: CallId(call),
        attempt: 1,
        message: String::new(),
        policy: UnknownPolicy::Ask,
        asked_at: Some(Timestamp(1)),
    }));
}

fn happened(state: &mut State, call: u32) {
    state.apply(&Event::UnknownResolved(UnknownResolved {
        call: CallId(call),
        resolution: UnknownResolution::Happened,
        output: None,
        at: Timestamp(1),
        by: "ann".to_owned(),
        reason: String::new(),
    }));
}

#[test]
fn with_too_many_unknown_calls_every_call_counts_as_one() {
    let most = u32::try_from(UNKNOWN_KEPT).expect("small");
    let mut state = asked_for(most + 2);
    for call in 1..most {
        unknown(&mut state, call);
    }
    assert!(state.is_unknown("pay", "1") && !state.is_unknown("pay", "0"));
    happened(&mut state, 1);
    assert!(!state.is_unknown("pay", "1"), "one less is one less");
    unknown(&mut state, most);
    unknown(&mut state, most + 1);
    assert!(
        state.is_unknown("pay", "0"),
        "what is not kept is not forgotten"
    );
    happened(&mut state, 2);
    assert!(state.is_unknown("pay", "0"), "nor is what came after");
    assert_eq!(state.unknown.len(), UNKNOWN_KEPT);
}

#[test]
fn answers_are_kept_up_to_the_limit_and_the_oldest_goes_first() {
    let mut answers = Answers::default();
    for n in 0..=ANSWERS_KEPT as u64 {
        answers.remember(
            &format!("r{n}"),
            Answer {
                seq: n,
                loop_id: LoopId(1),
            },
        );
    }
    assert_eq!(answers.by_request.len(), ANSWERS_KEPT);
    assert!(!answers.by_request.contains_key("r0"));
    assert!(answers.by_request.contains_key("r1"));
}
