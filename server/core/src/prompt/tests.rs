use std::sync::Arc;

use super::*;
use crate::{
    Event,
    agent::Limits,
    event::{
        LoopStarted, MessageAdded, ModelCallCompleted, ModelCallStarted, Origin, SessionCreated,
        ToolCallRequested, ToolCallStarted,
    },
    ids::LoopId,
    message::Part,
    outcome::StopReason,
};

const AT: Timestamp = Timestamp(40);

fn apply(state: &mut State, event: impl Into<Event>) {
    state.apply(&event.into());
}

/// A session whose first model call runs, on the first fallback.
fn called() -> State {
    let mut state = State::default();
    let agent = Arc::new(Agent {
        model: "first".to_owned(),
        fallbacks: vec!["second".to_owned()],
        ..Agent::default()
    });
    apply(
        &mut state,
        SessionCreated {
            session: "s".to_owned(),
            namespace: "n".to_owned(),
            at: AT,
            agent,
            limits: Arc::new(Limits::default()),
            labels: std::collections::BTreeMap::new(),
        },
    );
    let parts = Arc::new(vec![Part::Text("hello".to_owned())]);
    let origin = Origin::User;
    apply(
        &mut state,
        MessageAdded {
            origin,
            parts,
            nudge: None,
        },
    );
    let start = LoopStarted {
        id: LoopId(1),
        at: AT,
        traceparent: None,
        agent: None,
        limits: None,
    };
    apply(&mut state, start);
    let licence = ModelCallStarted {
        recap: None,
        step: 1,
        call: CallId(1),
        attempt: 1,
        at: AT,
        model: "second".to_owned(),
        max_output_tokens: 77,
        bound: crate::budget::Bound::Configured,
    };
    apply(&mut state, licence);
    state
}

#[test]
fn a_licensed_model_call_is_asked_what_the_state_says() {
    let state = called();
    let request = state.model_request().expect("it is licensed");
    assert_eq!((request.call, request.attempt), (CallId(1), 1));
    assert_eq!(request.max_output_tokens, 77);
    assert_eq!(request.model, "first");
    assert_eq!(request.conversation.len(), 1);
    assert_eq!(State::default().model_request(), None);
    assert_eq!(state.tool_request(CallId(1)), None);
}

#[test]
fn a_tool_is_forced_in_the_first_step_alone() {
    let mut request = called().model_request().expect("it is licensed");
    assert_eq!((request.step, request.tool_choice()), (1, None));
    for (choice, later) in [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "auto"),
        ("calc__add", "auto"),
    ] {
        let tool_choice = Some(choice.to_owned());
        request.agent = Arc::new(Agent {
            tool_choice,
            ..Agent::default()
        });
        request.step = 1;
        assert_eq!(request.tool_choice(), Some(choice));
        for step in [2, 75] {
            request.step = step;
            assert_eq!(request.tool_choice(), Some(later), "{choice}");
        }
    }
}

#[test]
fn models_are_the_agents_and_then_its_fallbacks() {
    let state = called();
    assert_eq!(state.model_name(0), "first");
    assert_eq!(state.model_name(1), "second");
    assert_eq!(
        state.model_name(9),
        "first",
        "an index out of range is the agent's own"
    );
}

#[test]
fn a_tool_call_is_asked_for_only_while_it_is_dispatched() {
    let mut state = called();
    let part = CallPart {
        provider_id: "x".to_owned(),
        tool: "read".to_owned(),
        arguments: "{}".to_owned(),
    };
    let parts = vec![Part::Text("so".to_owned()), Part::ToolCall(part.clone())];
    let reply = ModelCallCompleted {
        recap: false,
        call: CallId(1),
        attempt: 1,
        parts: Arc::new(parts),
        stop: StopReason::ToolUse,
        usage: None,
        response_id: None,
        body_crc: String::new(),
        latency_ms: 0,
        first_token_ms: None,
        cost_micro_usd: None,
    };
    apply(&mut state, reply);
    assert_eq!(state.model_request(), None, "it has ended");
    let (call, index) = (CallId(2), 1);
    let args_hash = String::new();
    let requested = ToolCallRequested {
        call,
        index,
        args_hash,
    };
    apply(&mut state, requested);
    assert_eq!(state.tool_request(call), None, "it waits for a slot");
    let (attempt, at) = (1, AT);
    apply(
        &mut state,
        ToolCallStarted {
            call,
            attempt,
            at,
            deadline: None,
            sidecar_instance: "i1".to_owned(),
        },
    );
    let expected = ToolRequest {
        call,
        attempt,
        epoch: 0,
        part,
        first_at: AT,
        sidecar_instance: "i1".into(),
        reads_output: false,
    };
    assert_eq!(state.tool_request(call), Some(expected));
}
