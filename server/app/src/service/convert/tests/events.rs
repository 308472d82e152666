//! Every kind of event of the core has its form on the wire, or is known to have none.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use loopwright_core::{
    budget::{Bound, Dimension, Reservation},
    entry::{Cause, Entry},
    event::{self, Event, Origin, RejectReason, Unknown},
    ids::{CallId, LoopId, Timestamp},
    input::TimerWhy,
    message::{BlobPart, Opaque, Part, Thinking, ToolOutput},
    outcome::{
        AbandonReason, DeadlineKind, EndReason, ModelFailureKind, StopReason, ToolFailureKind,
    },
    usage::{Totals, Usage},
};
use loopwright_log::{Keep, Log as _, Progress, ProgressTopic, ReadItem, ReadMode, Record};
use loopwright_proto::v1::{self, event::Kind, loop_ended::Detail};
use prost::Message as _;

use crate::service::convert::{delta, entry, event as events, kinds::KindSet, message, words};
use crate::service::fixture::{Bench, T0, asks, by, created, entry as made, key, session, started};

const CALL: CallId = CallId(7);

fn kinds(event: &Event, beside: &[Event]) -> Vec<Kind> {
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
fn samples() -> Vec<Event> {
    let output = Arc::new(ToolOutput::error("gone"));
    let usage = Usage {
        input: 900,
        output: 90,
        ..Usage::default()
    };
    let reserved = Reservation {
        input: 800,
        output: 80,
    };
    vec![
        event::DriverDetached {}.into(),
        event::LogRecovered { cut_bytes: 9 }.into(),
        event::ModelCallReserving {
            call: CALL,
            attempt: 1,
        }
        .into(),
        event::BudgetReserved {
            call: CALL,
            attempt: 1,
            reserved,
        }
        .into(),
        event::ModelCallFailed {
            call: CALL,
            attempt: 2,
            kind: ModelFailureKind::RateLimited,
            message: "slow down".into(),
            retry_at: Some(Timestamp(1_500)),
            fallback: None,
            usage: Some(usage),
            body_crc: String::new(),
        }
        .into(),
        event::ModelCallAbandoned {
            call: CALL,
            attempt: 1,
            reason: AbandonReason::DriverLost,
        }
        .into(),
        event::BudgetSettled {
            call: CALL,
            attempt: 1,
            usage,
            estimated: true,
        }
        .into(),
        event::SettlementAcknowledged {
            call: CALL,
            attempt: 1,
        }
        .into(),
        event::BudgetWarning {
            budget: "loop".into(),
            dimension: Dimension::TotalTokens,
            limit: 10,
            used: 8,
        }
        .into(),
        event::BudgetOverrun {
            call: CALL,
            attempt: 1,
            reserved,
            usage,
        }
        .into(),
        event::ToolCallRejected {
            call: CALL,
            reason: RejectReason::TooManyCalls,
            message: "enough".into(),
        }
        .into(),
        event::ToolCallFailed {
            call: CALL,
            attempt: 1,
            kind: ToolFailureKind::NotExecuted,
            message: "no sidecar".into(),
            retry_at: None,
        }
        .into(),
        event::ToolCallInDoubt {
            call: CALL,
            attempt: 1,
            message: "lost".into(),
        }
        .into(),
        event::ToolCallUnknown {
            call: CALL,
            message: "who knows".into(),
        }
        .into(),
        event::ToolCallResultLate {
            call: CALL,
            attempt: 1,
            output,
        }
        .into(),
        event::ToolCallCancelled {
            call: CALL,
            dispatched: true,
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
        message: String::new(),
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

fn end(reason: EndReason) -> Event {
    let (id, at, text) = (LoopId(1), Timestamp(T0), "so far".to_owned());
    event::LoopEnded {
        id,
        at,
        reason,
        text,
        totals: Totals::default(),
    }
    .into()
}

#[test]
fn every_end_has_its_reason_and_its_detail() {
    let table = [
        (EndReason::Completed, None),
        (
            EndReason::MaxSteps { limit: 3 },
            Some(Detail::MaxSteps(v1::MaxStepsDetail { limit: 3 })),
        ),
        (
            EndReason::MaxOutput { retries: 2 },
            Some(Detail::MaxOutput(v1::MaxOutputDetail {
                max_output_tokens: 0,
                retries: 2,
            })),
        ),
        (
            EndReason::BudgetExceeded {
                budget: "team".into(),
                dimension: Dimension::ModelCalls,
                limit: 1,
                used: 1,
                requested: 1,
            },
            Some(Detail::BudgetExceeded(v1::BudgetExceededDetail {
                budget: Some(v1::BudgetRef {
                    scope: 3,
                    name: "team".into(),
                }),
                dimension: v1::BudgetDimension::ModelCalls as i32,
                limit: 1,
                used: 1,
                requested: 1,
            })),
        ),
        (
            EndReason::Deadline {
                kind: DeadlineKind::Loop,
            },
            Some(Detail::Deadline(v1::DeadlineDetail { kind: 1 })),
        ),
        (
            EndReason::Refused,
            Some(Detail::Refused(v1::RefusedDetail { stop_reason: 5 })),
        ),
        (
            EndReason::ContextExhausted,
            Some(Detail::ContextExhausted(v1::ContextExhaustedDetail {
                tokens: 0,
                limit: 0,
            })),
        ),
        (
            EndReason::Cancelled {
                by: "ada".into(),
                reason: "enough".into(),
            },
            Some(Detail::Cancelled(v1::CancelledDetail {
                by: "ada".into(),
                reason: "enough".into(),
            })),
        ),
        (
            EndReason::ModelFailed {
                kind: ModelFailureKind::Quota,
                message: "no money".into(),
            },
            Some(Detail::ModelFailed(v1::ModelFailedDetail {
                kind: v1::ModelFailureKind::QuotaExhausted as i32,
                message: "no money".into(),
            })),
        ),
        (
            EndReason::UnknownOutcome { call: CALL },
            Some(Detail::UnknownOutcome(v1::UnknownOutcomeDetail {
                call: "c7".into(),
            })),
        ),
        (
            EndReason::Error {
                message: "odd".into(),
            },
            Some(Detail::Error(v1::ErrorDetail {
                message: "odd".into(),
            })),
        ),
    ];
    for (reason, detail) in table {
        let label = reason.label().to_uppercase();
        let Kind::LoopEnded(ended) = &kinds(&end(reason), &[])[0] else {
            panic!()
        };
        assert_eq!(ended.reason().as_str_name(), format!("END_REASON_{label}"));
        assert_eq!(
            (&ended.detail, ended.result_text.as_str()),
            (&detail, "so far"),
            "{label}"
        );
    }
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
        ..ToolOutput::default()
    };
    let result = message::tool_result(&output);
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

#[tokio::test]
async fn an_entry_is_told_with_its_record() {
    let record = record(vec![created("s1"), started(1, T0, "go")]).await;
    let entry = entry::to_wire(&record, &entry::parse(&record).unwrap());
    let cause = entry.cause.unwrap();
    assert_eq!(
        (
            entry.seq,
            entry.session_id.as_str(),
            entry.epoch,
            entry.events.len()
        ),
        (2, "s1", 1, 3)
    );
    assert_eq!(
        entry.committed_at.unwrap().seconds,
        i64::try_from(T0 / 1_000).unwrap() + 1
    );
    assert_eq!(
        (
            cause.kind.as_str(),
            cause.request_id.as_str(),
            cause.principal.as_str()
        ),
        ("start_loop", "start-1", "ada")
    );
    assert!(entry.traceparent.starts_with("00-0af7651916cd43dd"));

    let ready = entry::ready(&record).unwrap();
    let other = v1::ReadEntriesResponse::decode(ready.message).unwrap();
    assert!(matches!(other.item, Some(v1::read_entries_response::Item::Entry(e)) if e.seq == 2));
    assert!(
        KindSet(1 << 5).wants(ready.kinds),
        "loop_started is among its kinds"
    );
    assert!(!KindSet::LOOP_ENDED.wants(ready.kinds));
}

#[tokio::test]
async fn causes_have_the_words_of_the_wire() {
    let failed = samples()
        .into_iter()
        .find(|e| e.kind() == "ModelCallFailed")
        .unwrap();
    let doubt = samples()
        .into_iter()
        .find(|e| e.kind() == "ToolCallInDoubt")
        .unwrap();
    let model = Cause::Model {
        call: CALL,
        attempt: 1,
        jitter: 0,
        retry_after_ms: None,
    };
    let tool = Cause::Tool {
        call: CALL,
        attempt: 1,
        jitter: 0,
        retryable: false,
    };
    let detached = || -> Event { event::DriverDetached {}.into() };
    for (entry, kind) in [
        (made(Cause::Create(by("r")), [detached()]), "create_session"),
        (made(Cause::Attach, [detached()]), "attached"),
        (made(Cause::Tools, [detached()]), "tools_changed"),
        (made(model.clone(), [failed]), "model_failed"),
        (made(model, [detached()]), "model_completed"),
        (made(tool.clone(), [doubt]), "tool_failed"),
        (made(tool, [detached()]), "tool_completed"),
        (
            made(Cause::Timer(TimerWhy::RetryModel(CALL)), [detached()]),
            "timer_fired",
        ),
    ] {
        let record = record(vec![entry]).await;
        let entry = entry::to_wire(&record, &entry::parse(&record).unwrap());
        assert_eq!(entry.cause.unwrap().kind, kind);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_what_is_new_is_skipped() {
    let later = Unknown {
        kind: "Later".into(),
        json: r#"{"a":1}"#.into(),
    };
    let newer = record(vec![made(Cause::Attach, [Event::Unknown(later)])]).await;
    let ready = entry::ready(&newer).unwrap();
    let entry = v1::WatchLoopResponse::decode(ready.message).unwrap();
    let Some(v1::watch_loop_response::Item::Entry(entry)) = entry.item else {
        panic!()
    };
    assert_eq!(
        (entry.seq, entry.events),
        (1, vec![]),
        "the entry stays, its event has no form"
    );

    let bench = Bench::new();
    let at = loopwright_log::Timestamp::from_unix_ms(T0);
    let odd = loopwright_log::NewRecord::new(at, 1, r#"{"cause":"moon"}"#.into());
    bench.log.append(&key("s1"), 0, odd).await.unwrap();
    let odd = last(&bench).await;
    let unreadable = entry::ready(&odd).unwrap_err().to_string();
    assert!(
        unreadable.starts_with("entry 1 of session/default/s1 cannot be read"),
        "{unreadable}"
    );
}

#[test]
fn progress_becomes_deltas_by_its_channel() {
    let made = |channel, payload: &str| {
        let topic = ProgressTopic {
            anchor: 3,
            call: 2,
            attempt: 1,
            channel,
        };
        let payload = bytes::Bytes::copy_from_slice(payload.as_bytes());
        delta::to_wire(&Progress::new(topic, 9, payload, Keep::Append))
    };
    let expected = |offset, content| v1::Delta {
        anchor_seq: 3,
        call: "c2".into(),
        attempt: 1,
        offset,
        content: Some(content),
    };
    use v1::delta::Content;
    assert_eq!(made(0, "hi"), Some(expected(9, Content::Text("hi".into()))));
    assert_eq!(
        made(1, "hm"),
        Some(expected(9, Content::Thinking("hm".into())))
    );
    let half = v1::ToolProgress {
        fraction: Some(0.5),
        message: "half".into(),
    };
    assert_eq!(
        made(2, r#"{"fraction":0.5,"message":"half"}"#),
        Some(expected(0, Content::ToolProgress(half)))
    );
    assert_eq!(made(2, "not json"), None);
    assert_eq!(made(3, "later"), None);
}

async fn record(entries: Vec<Entry>) -> Arc<Record> {
    let bench = Bench::new();
    bench.append(&key("s1"), entries).await;
    last(&bench).await
}

async fn last(bench: &Bench) -> Arc<Record> {
    let items = bench.log.read(&key("s1"), 0, ReadMode::ToTail);
    let facts = items.filter_map(async |item| match item.unwrap() {
        ReadItem::Fact(record) => Some(record),
        _ => None,
    });
    let all: Vec<_> = facts.collect().await;
    all.into_iter().last().unwrap()
}
