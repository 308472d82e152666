#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use loopwright_proto::v1::{
    BudgetDimension, BudgetExceededDetail, BudgetRef, BudgetScope, Delta, EndReason, Entry,
    LoopEnded, Message, ModelCallCompleted, Part, Role, ToolResultPart, Usage, delta::Content,
    event::Kind, loop_ended::Detail, part,
};
use loopwright_proto::well_known::Timestamp;

use super::words::{label, one_line, printable};
use super::*;
use crate::WatchEvent;
use crate::tests::session::{Step, completed, entry, model, sample, say, text};

pub(crate) const GOLDEN: &str = "\
Let me lo
✗ model call failed, overloaded, HTTP 529: try later; it is tried again; what it said is void
Good morning
· reply given up (interrupted); what it said is void
Hello wörld
→ calc__add {\"a\": 2, \"b\": 3}
✓ calc__add {\"a\": 2, \"b\": 3}  12 ms
It is 5.
completed · 1,234 tokens in (16 % cached), 56 out · 2 steps · 1 tool call · 3.4 s · $0.0123
";

fn rendered(steps: &[Step], style: Style) -> String {
    let mut view = RunView::new(style, 0);
    let mut out = Vec::new();
    for step in steps {
        let event = match step {
            Step::Entry(entry) => WatchEvent::Entry(entry.clone()),
            Step::Delta(delta) => WatchEvent::Delta(delta.clone()),
            Step::AwaitCancel => continue,
        };
        view.write(&event, &mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

fn fact(step: Step) -> Entry {
    match step {
        Step::Entry(entry) => entry,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_session_reads_as_expected() {
    assert_eq!(rendered(&sample(), Style::default()), GOLDEN);
}

#[test]
fn a_watcher_of_a_whole_session_sees_who_asked() {
    let style = Style {
        user_messages: true,
        ..Style::default()
    };
    let shown = rendered(&sample(), style);
    assert_eq!(shown, format!("> What is 2 + 3?\n{GOLDEN}"));
}

#[test]
fn replies_are_whole_without_a_single_delta() {
    let mut steps = sample();
    steps.retain(|step| !matches!(step, Step::Delta(_)));
    let shown = rendered(&steps, Style::default());
    assert!(shown.contains("Hello wörld\n→ calc__add"), "{shown}");
    assert!(shown.contains("It is 5.\ncompleted"), "{shown}");
    assert!(!shown.contains("void"), "{shown}");
}

#[test]
fn a_hole_in_the_deltas_is_filled_from_the_reply() {
    let mut steps = sample();
    steps.retain(|step| !matches!(step, Step::Delta(d) if d.call == "c2" && d.offset == 7));
    assert_eq!(rendered(&steps, Style::default()), GOLDEN);
}

#[test]
fn a_delta_that_comes_twice_is_shown_once() {
    let mut steps = Vec::new();
    for step in sample() {
        if let Step::Delta(_) = &step {
            steps.push(step.clone());
        }
        steps.push(step);
    }
    assert_eq!(rendered(&steps, Style::default()), GOLDEN);
}

#[test]
fn a_reply_that_differs_from_what_was_shown_is_shown_as_logged() {
    let steps = [
        entry(1, vec![model(1, "c1", 1)]),
        text(1, "c1", 1, 0, "my key is hunter2"),
        entry(2, vec![completed("c1", vec![say("my key is ***")])]),
    ];
    let shown = rendered(&steps, Style::default());
    assert_eq!(
        shown,
        "my key is hunter2\n· the reply as it was logged:\nmy key is ***\n"
    );
}

#[test]
fn foreign_text_never_steers_the_terminal() {
    let steps = [
        entry(1, vec![model(1, "c1", 1)]),
        text(1, "c1", 1, 0, "a\u{1b}[2Jb\r\u{7}\n"),
    ];
    assert_eq!(rendered(&steps, Style::default()), "a[2Jb\n");
    assert_eq!(one_line("a\nb\u{1b}[31m\tc", 80), "a b[31m c");
    assert_eq!(printable("a\n\tb\u{9b}c"), "a\n\tbc");
}

#[test]
fn colours_only_where_they_are_asked_for() {
    let style = Style {
        color: true,
        ..Style::default()
    };
    let plain = rendered(&sample(), style)
        .replace("\u{1b}[0m", "")
        .replace("\u{1b}[2m", "")
        .replace("\u{1b}[32m", "")
        .replace("\u{1b}[33m", "");
    assert_eq!(plain, GOLDEN);
}

#[test]
fn the_log_has_one_line_an_event() {
    let steps = sample();
    let entries = steps
        .into_iter()
        .filter(|step| matches!(step, Step::Entry(_)));
    let lines: Vec<String> = entries.flat_map(|step| entry_lines(&fact(step))).collect();

    assert_eq!(
        lines[2..6],
        [
            "    3  2025-11-22 08:26:40.030  MessageAdded        user: What is 2 + 3?",
            "                                LoopStarted         l1",
            "                                ModelCallStarted    c1 attempt 1: step 1, scripted/demo, \
             at most 4,096 tokens out",
            "    4  2025-11-22 08:26:40.040  ModelCallFailed     c1 attempt 1: overloaded, HTTP 529: \
             try later; it is tried again",
        ]
    );
    assert_eq!(lines.len(), 16);
}

#[test]
fn an_event_of_a_newer_version_is_never_silent() {
    let mut newer = fact(entry(1, vec![]));
    newer.events.push(loopwright_proto::v1::Event::default());
    assert!(entry_lines(&newer)[0].contains("does not know"));
    let shown = rendered(&[Step::Entry(newer)], Style::default());
    assert!(shown.contains("newer version"), "{shown}");
}

#[test]
fn a_conversation_is_printed_with_who_speaks() {
    let result = Part {
        kind: Some(part::Kind::ToolResult(ToolResultPart {
            call: "c2".into(),
            is_error: true,
            parts: vec![say("no such file")],
            ..ToolResultPart::default()
        })),
        full: None,
    };
    let message = |role: Role, part| Message {
        role: role.into(),
        parts: vec![part],
    };
    let lines = message_lines(&[
        message(Role::User, say("one\n\ntwo")),
        message(Role::Tool, result),
    ]);
    assert_eq!(
        lines,
        [
            "user:",
            "  one",
            "",
            "  two",
            "tool:",
            "  ✗ c2",
            "  no such file"
        ]
    );
}

#[test]
fn every_reason_of_an_end_has_words() {
    for reason in 1..13 {
        let end = LoopEnded {
            reason,
            ..LoopEnded::default()
        };
        let words = end_words(&end);
        assert!(!words.is_empty() && !words.contains('_'), "{words}");
    }
    let end = LoopEnded {
        reason: EndReason::BudgetExceeded.into(),
        detail: Some(Detail::BudgetExceeded(BudgetExceededDetail {
            budget: Some(BudgetRef {
                scope: BudgetScope::Loop.into(),
                name: String::new(),
            }),
            dimension: loopwright_proto::v1::BudgetDimension::TotalTokens.into(),
            limit: 1000,
            used: 940,
            requested: 1500,
        })),
        ..LoopEnded::default()
    };
    assert_eq!(
        end_words(&end),
        "the loop's budget is exhausted: 940 of 1,000 total tokens used, the next call needs at \
         least 1,500 total tokens"
    );
}

#[test]
fn an_exhausted_budget_tells_money_as_money() {
    let detail = |dimension: BudgetDimension| BudgetExceededDetail {
        budget: Some(BudgetRef {
            scope: BudgetScope::Loop.into(),
            name: String::new(),
        }),
        dimension: dimension.into(),
        limit: 250_000,
        used: 243_200,
        requested: 30_000,
    };
    let words = |dimension| {
        end_words(&LoopEnded {
            reason: EndReason::BudgetExceeded.into(),
            detail: Some(Detail::BudgetExceeded(detail(dimension))),
            ..LoopEnded::default()
        })
    };
    assert_eq!(
        words(BudgetDimension::CostMicroUsd),
        "the loop's budget is exhausted: $0.2432 of $0.2500 used, the next call needs at least \
         $0.0300"
    );
    assert_eq!(
        words(BudgetDimension::WallTimeMs),
        "the loop's budget is exhausted: 4 min 3 s of 4 min 10 s used",
        "any call needs some"
    );
}

#[test]
fn the_share_that_came_from_the_cache_is_told() {
    let share = |cached, fresh| {
        cached_words(&Usage {
            input_tokens: fresh,
            cache_read_tokens: cached,
            ..Usage::default()
        })
    };
    assert_eq!(share(0, 0), "0 % cached");
    assert_eq!(share(91, 9), "91 % cached");
    assert_eq!(share(1, 999), "1 % cached", "little is not nothing");
    assert_eq!(share(999, 1), "99 % cached", "nor is most of it all");
    assert_eq!(share(u64::MAX, 1), "100 % cached", "it saturates");
    let call = Kind::ModelCallCompleted(ModelCallCompleted {
        call: "c1".into(),
        attempt: 1,
        usage: Some(Usage {
            input_tokens: 1_000,
            output_tokens: 5,
            cache_read_tokens: 11_345,
            ..Usage::default()
        }),
        cost_micro_usd: Some(1_200),
        ..ModelCallCompleted::default()
    });
    let (_, words) = describe(Some(&call));
    assert!(
        words.contains("12,345 in (91 % cached), 5 out, $0.0012"),
        "{words}"
    );
}

#[test]
fn numbers_and_times_are_readable() {
    assert_eq!(
        [0, 999, 1000, 1_234_567].map(token_words),
        ["0", "999", "1,000", "1,234,567"]
    );
    let times = [12, 3_450, 125_000, 3_720_000].map(|ms| time_words(Duration::from_millis(ms)));
    assert_eq!(times, ["12 ms", "3.4 s", "2 min 5 s", "1 h 2 min"]);
    assert_eq!(
        [12_300, 1_000_001, 0].map(cost_words),
        ["$0.0123", "$1.000001", "$0.0000"]
    );
    let at = |seconds| timestamp_words(&Timestamp { seconds, nanos: 0 });
    assert_eq!(at(951_782_400), "2000-02-29 00:00:00.000");
    assert_eq!(at(-1), "1969-12-31 23:59:59.000");
    assert_eq!(label("END_REASON_MAX_STEPS", "END_REASON_"), "max steps");
    assert_eq!(one_line("äöü", 2), "ä…");
}

#[test]
fn a_table_is_as_wide_as_its_cells() {
    let rows = vec![
        vec!["aaaa".to_owned(), "1".to_owned()],
        vec!["b".to_owned()],
    ];
    assert_eq!(table(&["X", "LONG"], &rows), ["X     LONG", "aaaa  1", "b"]);
}

#[test]
fn tool_progress_is_for_spinners_alone() {
    let mut view = RunView::new(Style::default(), 0);
    let mut pieces = Vec::new();
    for step in sample() {
        match step {
            Step::Entry(entry) => pieces.extend(view.feed(&WatchEvent::Entry(entry))),
            Step::Delta(delta) => pieces.extend(view.feed(&WatchEvent::Delta(delta))),
            Step::AwaitCancel => {}
        }
    }
    let progress: Vec<&Piece> = pieces
        .iter()
        .filter(|piece| matches!(piece, Piece::Progress { .. }))
        .collect();
    let expected = Piece::Progress {
        call: "c3".into(),
        line: "50 % half".into(),
    };
    assert_eq!(progress, [&expected]);
    assert_eq!(view.ended().unwrap().reason(), EndReason::Completed);
}

#[test]
fn a_clamped_reply_is_not_shown_a_second_time() {
    let clamped = Part {
        full: Some(loopwright_proto::v1::BlobRef::default()),
        ..say("a very lo [clamped]")
    };
    let reply = Kind::ModelCallCompleted(ModelCallCompleted {
        call: "c1".into(),
        attempt: 1,
        message: Some(Message {
            role: Role::Assistant.into(),
            parts: vec![clamped],
        }),
        ..ModelCallCompleted::default()
    });
    let steps = [
        entry(1, vec![model(1, "c1", 1)]),
        Step::Delta(Delta {
            anchor_seq: 1,
            call: "c1".into(),
            attempt: 1,
            offset: 0,
            content: Some(Content::Text("a very long reply".into())),
        }),
        entry(2, vec![reply]),
    ];
    assert_eq!(rendered(&steps, Style::default()), "a very long reply\n");
}

#[test]
fn the_time_of_a_run_is_shown_though_the_server_did_not_measure_it() {
    let mut steps = sample();
    let last = steps.pop().map(fact).unwrap();
    let mut unmeasured = last;
    for event in &mut unmeasured.events {
        if let Some(Kind::LoopEnded(end)) = &mut event.kind {
            end.totals.as_mut().unwrap().wall_time = None;
        }
    }
    steps.push(Step::Entry(unmeasured));
    let shown = rendered(&steps, Style::default());
    assert!(shown.contains("1 tool call · 60 ms · $0.0123"), "{shown}");
}
