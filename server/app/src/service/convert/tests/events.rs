//! Every kind of event of the core has its form on the wire, or is known to have none.

use std::collections::BTreeSet;
use std::sync::Arc;

use loopwright_core::{
    agent::UnknownPolicy,
    budget::{Bound, Dimension, Reservation},
    event::{self, Event, Origin, RejectReason, Unknown},
    ids::{CallId, Timestamp},
    message::{BlobPart, Opaque, Part, Thinking, ToolOutput, ToolUsage},
    outcome::{AbandonReason, EndReason, ModelFailureKind, StopReason, ToolFailureKind},
    usage::Usage,
};
use loopwright_proto::v1::{self, event::Kind};

use super::ends::end;
use crate::service::convert::{event as events, kinds::KindSet, message, words};
use crate::service::fixture::{T0, asks, session, started};

pub(super) const CALL: CallId = CallId(7);

pub(super) fn kinds(event: &Event, beside: &[Event]) -> Vec<Kind> {
    let all: Vec<Event> = beside.iter().cloned().chain([event.clone()]).collect();
    events::kinds(
        event,
        &events::Context {
            events: &all,
            seq: 42,
            epoch: 3,
        },
    )
}

/// One of each kind, without those that the sessions of the fixture hold.
pub(super) fn samples() -> Vec<Event> {
    let (call, attempt) = (CALL, 1);
    let words = || "in words".to_owned();
    let mut all: Vec<Event> = vec![
        event::DriverDetached {}.into(),
        event::LogRecovered { cut_bytes: 9 }.into(),
        event::ModelCallReserving {
            call,
            attempt,
            recap: None,
        }
        .into(),
        event::SettlementAcknowledged { call, attempt }.into(),
        model_failed(),
    ];
    all.extend([compacted(), forked(), imported()]);
    all.extend(super::control::samples());
    let reason = AbandonReason::DriverLost;
    all.push(
        event::ModelCallAbandoned {
            call,
            attempt,
            reason,
        }
        .into(),
    );
    let (kind, retry_at) = (ToolFailureKind::NotExecuted, None);
    let message = words();
    all.push(
        event::ToolCallFailed {
            call,
            attempt,
            kind,
            message,
            retry_at,
            cause: None,
        }
        .into(),
    );
    let (reason, message) = (RejectReason::TooManyCalls, words());
    all.push(
        event::ToolCallRejected {
            call,
            reason,
            message,
        }
        .into(),
    );
    all.extend(doubts());
    all.extend(answers());
    let output = Arc::new(ToolOutput::error("gone"));
    all.push(
        event::ToolCallResultLate {
            call,
            attempt,
            output,
        }
        .into(),
    );
    let dispatched = true;
    all.push(event::ToolCallCancelled { call, dispatched }.into());
    all.extend(budgets());
    all
}

fn doubts() -> [Event; 2] {
    let (call, attempt) = (CALL, 1);
    let words = || "in words".to_owned();
    let message = words();
    let doubt = event::ToolCallInDoubt {
        call,
        attempt,
        message,
        failed: false,
    };
    let message = words();
    let unknown = event::ToolCallUnknown {
        call,
        attempt,
        message,
        policy: UnknownPolicy::TellModel,
        asked_at: None,
    };
    [doubt.into(), unknown.into()]
}

fn answers() -> [Event; 3] {
    let (call, at) = (CALL, Timestamp(5));
    let words = || "in words".to_owned();
    let requested = event::ApprovalRequested {
        call,
        reason: event::ApprovalReason::RepeatsUnknown,
        at,
        expires_at: Some(at),
        allow_on_expiry: false,
    };
    let resolved = event::ApprovalResolved {
        call,
        outcome: event::ApprovalOutcome::Denied,
        allowed: false,
        at,
        by: words(),
        reason: words(),
    };
    let known = event::UnknownResolved {
        call,
        resolution: event::UnknownResolution::TellModel,
        output: None,
        at,
        by: words(),
        reason: words(),
    };
    [requested.into(), resolved.into(), known.into()]
}

fn model_failed() -> Event {
    let failed = event::ModelCallFailed {
        call: CALL,
        attempt: 2,
        kind: ModelFailureKind::RateLimited,
        message: "slow down".into(),
        retry_at: Some(Timestamp(1_500)),
        fallback: None,
        usage: None,
        cost_micro_usd: None,
        http_status: 529,
        body_crc: String::new(),
    };
    failed.into()
}

fn compacted() -> Event {
    let compacted = event::ContextCompacted {
        by_model: false,
        fallback: None,
        trigger: loopwright_core::context::CompactionTrigger::Ceiling,
        dropped: 2,
        from_seq: 3,
        through_seq: 9,
        tokens_before: 100,
        tokens_after: 40,
        target_met: true,
        recap: None,
        shortened: Vec::new(),
    };
    compacted.into()
}

fn forked() -> Event {
    let forked = event::SessionForked {
        session: "s2".into(),
        namespace: "n".into(),
        at: Timestamp(1),
        from: "s1".into(),
        from_seq: 4,
        labels: Default::default(),
    };
    forked.into()
}

fn imported() -> Event {
    let imported = event::SessionImported {
        session: "s2".into(),
        namespace: "n".into(),
        at: Timestamp(1),
        from: "n/s1".into(),
        from_seq: 4,
    };
    imported.into()
}

fn budgets() -> [Event; 4] {
    let (call, attempt, estimated) = (CALL, 1, true);
    let (input, output) = (900, 90);
    let usage = Usage {
        input,
        output,
        ..Usage::default()
    };
    let (input, output) = (800, 80);
    let reserved = Reservation { input, output };
    let (budget, dimension) = ("loop".to_owned(), Dimension::TotalTokens);
    let (limit, used) = (10, 8);
    [
        event::BudgetReserved {
            call,
            attempt,
            reserved,
            tool_calls: Some(7),
            left: std::sync::Arc::default(),
        }
        .into(),
        event::BudgetSettled {
            tool_calls: 3,
            wall_ms: 1_500,
            cost_micro_usd: 0,
            call,
            attempt,
            usage,
            estimated,
        }
        .into(),
        event::BudgetWarning {
            budget,
            dimension,
            limit,
            used,
        }
        .into(),
        event::BudgetOverrun {
            call,
            attempt,
            reserved,
            usage,
            reserved_micro_usd: 0,
            cost_micro_usd: 0,
        }
        .into(),
    ]
}

#[test]
fn every_kind_of_the_core_has_the_form_of_its_own_name() {
    let known: Vec<Event> = session("s1")
        .into_iter()
        .flat_map(|entry| entry.events)
        .collect();
    let mut seen = BTreeSet::new();
    for event in known.into_iter().chain(samples()) {
        seen.insert(event.kind().to_owned());
        let forms = kinds(&event, &[]);
        if event.kind() == "SettlementAcknowledged" {
            assert_eq!(forms, [], "it has no form");
            continue;
        }
        assert!(!forms.is_empty(), "{} has no form", event.kind());
        let name = crate::service::convert::kinds::KIND_NAMES
            .iter()
            .position(|name| name.replace('_', "") == event.kind().to_lowercase())
            .unwrap_or_else(|| panic!("{} is not on the wire", event.kind()));
        assert!(
            forms
                .iter()
                .all(|form| KindSet::of(form) == KindSet(1 << name)),
            "{}",
            event.kind()
        );
    }
    let all: BTreeSet<String> = Event::KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(seen, all, "a kind of the core is not among the samples");
    let unknown = Unknown {
        kind: "Later".into(),
        json: "{}".into(),
    };
    assert_eq!(kinds(&Event::Unknown(unknown), &[]), []);
}

#[test]
fn what_stands_in_a_neighbour_is_told() {
    let entry = asks(1, 2);
    let Kind::ToolCallRequested(requested) = &kinds(&entry.events[1], &entry.events)[0] else {
        panic!()
    };
    let sha256 = "fde64ffe7a4a0bbd5d2fe2c294b795808c14bcb57a1d08f1c9dcd59871a020f4";
    let expected = v1::ToolCallRequested {
        call: "c2".into(),
        model_call: "c1".into(),
        provider_call_id: "toolu_1".into(),
        tool: "files__read".into(),
        arguments_json: r#"{"path":"a"}"#.into(),
        arguments_sha256: sha256.into(),
    };
    assert_eq!(*requested, expected);

    let Kind::ModelCallCompleted(reply) = &kinds(&entry.events[0], &entry.events)[0] else {
        panic!()
    };
    let Some(v1::part::Kind::ToolCall(part)) = &reply.message.as_ref().unwrap().parts[1].kind
    else {
        panic!()
    };
    assert_eq!((part.call.as_str(), reply.request_crc32c), ("c2", 42));

    let reserved = Reservation {
        input: 77,
        output: 5,
    };
    let reserved = event::BudgetReserved {
        call: CallId(1),
        attempt: 1,
        reserved,
        tool_calls: None,
        left: std::sync::Arc::default(),
    }
    .into();
    let begins = started(1, T0, "go");
    let Kind::ModelCallStarted(call) = &kinds(&begins.events[2], &[reserved])[0] else {
        panic!()
    };
    assert_eq!(
        (call.estimated_input_tokens, call.max_output_tokens),
        (77, 4_096)
    );

    let unknown: Event = event::ToolCallUnknown {
        call: CALL,
        attempt: 1,
        message: String::new(),
        policy: UnknownPolicy::TellModel,
        asked_at: None,
    }
    .into();
    let policy = |beside: &[Event]| match &kinds(&unknown, beside)[0] {
        Kind::ToolCallUnknown(unknown) => unknown.policy(),
        _ => panic!(),
    };
    let ended = end(EndReason::UnknownOutcome { call: CALL });
    assert_eq!(policy(&[ended]), v1::UnknownPolicy::End);
    assert_eq!(policy(&[]), v1::UnknownPolicy::TellModel);
}

#[test]
fn an_overrun_is_told_by_dimension() {
    let overrun = |input, output| {
        let reserved = Reservation {
            input: 800,
            output: 80,
        };
        let usage = Usage {
            input,
            output,
            ..Usage::default()
        };
        let event = event::BudgetOverrun {
            call: CALL,
            attempt: 1,
            reserved,
            usage,
            reserved_micro_usd: 0,
            cost_micro_usd: 0,
        };
        let told = kinds(&event.into(), &[]);
        told.into_iter()
            .map(|kind| match kind {
                Kind::BudgetOverrun(one) => (one.dimension(), one.reserved, one.used),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    use v1::BudgetDimension::{InputTokens, OutputTokens};
    assert_eq!(overrun(900, 80), [(InputTokens, 800, 900)]);
    assert_eq!(
        overrun(900, 90),
        [(InputTokens, 800, 900), (OutputTokens, 80, 90)]
    );
}

#[test]
fn words_that_do_not_share_a_name_mean_the_same() {
    use ModelFailureKind as M;
    for (core, wire) in [
        (M::Server, v1::ModelFailureKind::ServerError),
        (M::TryAgain, v1::ModelFailureKind::ServerError),
        (M::Connect, v1::ModelFailureKind::Connection),
        (M::Cut, v1::ModelFailureKind::Connection),
        (M::Stalled, v1::ModelFailureKind::Timeout),
        (M::Auth, v1::ModelFailureKind::Unauthenticated),
        (M::NoSuchModel, v1::ModelFailureKind::NotFound),
    ] {
        assert_eq!(words::model_failure(core), wire, "{core:?}");
    }
    assert_eq!(
        words::stop(&StopReason::Other("odd".into())),
        v1::StopReason::Other
    );
    assert_eq!(
        words::bound(Bound::Budget(Dimension::InputTokens)),
        v1::OutputBound::Budget
    );
    assert_eq!(words::origin(Origin::Nudge), v1::MessageOrigin::Nudge);
}

#[test]
fn parts_keep_what_they_hold() {
    let blob = BlobPart {
        sha256: "ab".into(),
        bytes: 3,
        media_type: "image/png".into(),
    };
    let wire_blob = v1::BlobRef {
        sha256: "ab".into(),
        bytes: 3,
    };
    let thinking = Thinking {
        text: "hm".into(),
        signature: Some("sig".into()),
    };
    let opaque = Opaque {
        provider: "anthropic".into(),
        json: "{}".into(),
    };
    let kind = |part| message::part(&part, None).kind.unwrap();
    assert_eq!(
        kind(Part::Thinking(thinking)),
        v1::part::Kind::Thinking(v1::ThinkingPart {
            text: "hm".into(),
            signature: "sig".into()
        })
    );
    assert_eq!(
        kind(Part::Opaque(opaque)),
        v1::part::Kind::Opaque(v1::OpaquePart {
            provider: "anthropic".into(),
            json: "{}".into()
        })
    );
    assert_eq!(
        kind(Part::Blob(blob.clone())),
        v1::part::Kind::Blob(v1::BlobPart {
            blob: Some(wire_blob.clone()),
            media_type: "image/png".into(),
        })
    );
    let output = ToolOutput {
        text: "short".into(),
        structured: Some("[1]".into()),
        full: Some(blob),
        usage: Some(ToolUsage {
            tokens: Usage {
                input: 3,
                ..Usage::default()
            },
            cost_micro_usd: Some(5),
        }),
        ..ToolOutput::default()
    };
    let result = message::tool_result(&output);
    let used = result.usage.unwrap();
    assert_eq!(
        (used.tokens.unwrap().input_tokens, used.cost_micro_usd),
        (3, Some(5))
    );
    assert_eq!(
        (result.parts[0].full.clone(), result.structured_json),
        (Some(wire_blob), "[1]".into())
    );
    assert_eq!(
        message::tool_result(&ToolOutput::default()).parts,
        [],
        "no empty text"
    );
}
