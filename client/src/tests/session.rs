//! A short session with everything that text can stumble over: a failed attempt, an abandoned one, a tool.

use loopwright_proto::v1::{
    AbandonReason, Delta, DriverAttached, EndReason, Entry, Event, LoopEnded, LoopStarted, Message,
    MessageAdded, MessageOrigin, ModelCallAbandoned, ModelCallCompleted, ModelCallFailed,
    ModelCallStarted, ModelFailureKind, Part, Role, SessionCreated, StopReason, ToolCallCompleted,
    ToolCallPart, ToolCallRequested, ToolCallStarted, ToolProgress, ToolResult, Totals, Usage,
    delta::Content, event::Kind, part,
};
use loopwright_proto::well_known::{Duration, Timestamp};

/// What the sample's replies say, by call and attempt.
pub(crate) const TEXTS: [(&str, u32, &str); 4] = [
    ("c1", 1, "Let me lo"),
    ("c1", 2, "Good morning"),
    ("c2", 1, "Hello wörld"),
    ("c4", 1, "It is 5."),
];

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Entry(Entry),
    Delta(Delta),
    /// Nothing more comes before the loop is cancelled.
    AwaitCancel,
}

/// The sample: nine entries, deltas between them.
pub(crate) fn sample() -> Vec<Step> {
    vec![
        entry(1, vec![Kind::SessionCreated(SessionCreated::default())]),
        entry(2, vec![attached(1)]),
        entry(
            3,
            vec![user("What is 2 + 3?"), loop_started(), model(1, "c1", 1)],
        ),
        text(3, "c1", 1, 0, "Let "),
        text(3, "c1", 1, 4, "me lo"),
        entry(4, vec![failed("c1", 1)]),
        entry(5, vec![model(1, "c1", 2)]),
        text(5, "c1", 2, 0, "Good "),
        text(5, "c1", 2, 5, "morn"),
        text(5, "c1", 2, 9, "ing"),
        entry(6, vec![abandoned("c1", 2), model(1, "c2", 1)]),
        text(6, "c2", 1, 0, "Hello w"),
        text(6, "c2", 1, 7, "örl"),
        text(6, "c2", 1, 11, "d"),
        entry(7, asks_for_tool()),
        progress(7, "c3", 0.5, "half"),
        entry(8, vec![tool_done("c3"), model(2, "c4", 1)]),
        text(8, "c4", 1, 0, "It is"),
        text(8, "c4", 1, 5, " 5."),
        entry(
            9,
            vec![
                completed("c4", vec![say("It is 5.")]),
                ended(EndReason::Completed),
            ],
        ),
    ]
}

/// A loop that goes on until it is cancelled.
pub(crate) fn endless() -> Vec<Step> {
    vec![
        entry(1, vec![Kind::SessionCreated(SessionCreated::default())]),
        entry(2, vec![attached(1)]),
        entry(3, vec![user("Count"), loop_started(), model(1, "c1", 1)]),
        text(3, "c1", 1, 0, "One, two"),
        Step::AwaitCancel,
        entry(4, vec![abandoned("c1", 1), ended(EndReason::Cancelled)]),
    ]
}

pub(crate) fn entry(seq: u64, kinds: Vec<Kind>) -> Step {
    let events = kinds.into_iter().map(|kind| Event {
        ignorable: false,
        kind: Some(kind),
    });
    Step::Entry(Entry {
        seq,
        session_id: "s1".into(),
        committed_at: Some(Timestamp {
            seconds: 1_763_800_000,
            nanos: i32::try_from(seq).unwrap() * 10_000_000,
        }),
        epoch: 1,
        events: events.collect(),
        ..Entry::default()
    })
}

pub(crate) fn text(anchor_seq: u64, call: &str, attempt: u32, offset: u64, text: &str) -> Step {
    Step::Delta(Delta {
        anchor_seq,
        call: call.into(),
        attempt,
        offset,
        content: Some(Content::Text(text.into())),
    })
}

pub(crate) fn ended(reason: EndReason) -> Kind {
    Kind::LoopEnded(LoopEnded {
        loop_id: "l1".into(),
        reason: reason.into(),
        totals: Some(Totals {
            usage: Some(Usage {
                input_tokens: 1000,
                output_tokens: 56,
                cache_write_tokens: 34,
                cache_read_tokens: 200,
                estimated: false,
                cache_write_1h_tokens: 0,
            }),
            cost_micro_usd: Some(12_300),
            model_calls: 4,
            tool_calls: 1,
            steps: 2,
            wall_time: Some(Duration {
                seconds: 3,
                nanos: 400_000_000,
            }),
        }),
        ..LoopEnded::default()
    })
}

pub(crate) fn model(step: u32, call: &str, attempt: u32) -> Kind {
    Kind::ModelCallStarted(ModelCallStarted {
        call: call.into(),
        attempt,
        step,
        model: "scripted/demo".into(),
        max_output_tokens: 4096,
        ..ModelCallStarted::default()
    })
}

pub(crate) fn completed(call: &str, parts: Vec<Part>) -> Kind {
    Kind::ModelCallCompleted(ModelCallCompleted {
        call: call.into(),
        attempt: 1,
        message: Some(Message {
            role: Role::Assistant.into(),
            parts,
        }),
        stop_reason: StopReason::EndTurn.into(),
        ..ModelCallCompleted::default()
    })
}

pub(crate) fn failed(call: &str, attempt: u32) -> Kind {
    Kind::ModelCallFailed(ModelCallFailed {
        call: call.into(),
        attempt,
        kind: ModelFailureKind::Overloaded.into(),
        message: "try\nlater".into(),
        http_status: 529,
        retry_at: Some(Timestamp::default()),
        ..ModelCallFailed::default()
    })
}

pub(crate) fn say(text: &str) -> Part {
    Part {
        kind: Some(part::Kind::Text(text.into())),
        full: None,
    }
}

pub(crate) fn attached(epoch: u64) -> Kind {
    Kind::DriverAttached(DriverAttached {
        epoch,
        server_version: "0.1.0".into(),
    })
}

pub(crate) fn abandoned(call: &str, attempt: u32) -> Kind {
    Kind::ModelCallAbandoned(ModelCallAbandoned {
        call: call.into(),
        attempt,
        reason: AbandonReason::Interrupted.into(),
    })
}

fn user(text: &str) -> Kind {
    Kind::MessageAdded(MessageAdded {
        origin: MessageOrigin::User.into(),
        message: Some(Message {
            role: Role::User.into(),
            parts: vec![say(text)],
        }),
    })
}

fn loop_started() -> Kind {
    Kind::LoopStarted(LoopStarted {
        loop_id: "l1".into(),
        ..LoopStarted::default()
    })
}

fn asks_for_tool() -> Vec<Kind> {
    let call = Part {
        kind: Some(part::Kind::ToolCall(ToolCallPart {
            call: "c3".into(),
            tool: "calc__add".into(),
            arguments_json: r#"{"a": 2, "b": 3}"#.into(),
            ..ToolCallPart::default()
        })),
        full: None,
    };
    vec![
        completed("c2", vec![say("Hello wörld"), call]),
        Kind::ToolCallRequested(ToolCallRequested {
            call: "c3".into(),
            model_call: "c2".into(),
            tool: "calc__add".into(),
            ..ToolCallRequested::default()
        }),
        Kind::ToolCallStarted(ToolCallStarted {
            call: "c3".into(),
            attempt: 1,
            ..ToolCallStarted::default()
        }),
    ]
}

fn progress(anchor_seq: u64, call: &str, fraction: f64, message: &str) -> Step {
    Step::Delta(Delta {
        anchor_seq,
        call: call.into(),
        attempt: 1,
        offset: 0,
        content: Some(Content::ToolProgress(ToolProgress {
            fraction: Some(fraction),
            message: message.into(),
        })),
    })
}

fn tool_done(call: &str) -> Kind {
    Kind::ToolCallCompleted(ToolCallCompleted {
        call: call.into(),
        attempt: 1,
        result: Some(ToolResult {
            parts: vec![say("5")],
            ..ToolResult::default()
        }),
        latency: Some(Duration {
            seconds: 0,
            nanos: 12_000_000,
        }),
    })
}
