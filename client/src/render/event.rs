//! One event as a name and a few words.
//!
//! Boundary: one event at a time; what it means for the events around it is the view's. Invariant: every
//! kind of event has words; one that this version does not know says so.

use loopwright_proto::v1::{
    BudgetAmount, BudgetDimension, BudgetRef, BudgetScope, ContextCompacted, Message,
    ModelCallCompleted, ModelCallFailed, ModelCallPurpose, ModelCallStarted, Part, RecapFallback,
    ToolCallCompleted, ToolCallFailed, ToolResult, Usage, event::Kind, part,
};

use super::ending::{budget_words, counted, summary_line};
use super::wait;
use super::words::{
    QUOTE, cached_words, cost_words, duration, label, one_line, read_tokens, time_words,
    token_words,
};

/// The event's name and what it says: `("ToolCallStarted", "c2 attempt 1")`.
#[must_use]
pub fn describe(kind: Option<&Kind>) -> (&'static str, String) {
    let Some(kind) = kind else {
        return ("?", "an event that this version does not know".to_owned());
    };
    session_event(kind)
        .or_else(|| model_event(kind))
        .or_else(|| tool_event(kind))
        .or_else(|| wait_event(kind))
        .or_else(|| loop_event(kind))
        .unwrap_or(("?", String::new()))
}

/// The first line of what a message says, its kinds of parts named where they are not text.
pub(super) fn quote(message: Option<&Message>) -> String {
    let parts = message.map(|message| message.parts.as_slice());
    let words: Vec<String> = parts.unwrap_or_default().iter().map(part_words).collect();
    one_line(&words.join(" "), 2 * QUOTE)
}

pub(super) fn budget_name(budget: &BudgetRef) -> String {
    match budget.scope() {
        BudgetScope::Loop => "the loop's budget".to_owned(),
        BudgetScope::Session => "the session's budget".to_owned(),
        BudgetScope::Namespace => "the namespace's budget".to_owned(),
        BudgetScope::Named => format!("budget {}", one_line(&budget.name, QUOTE)),
        BudgetScope::Unspecified => "a budget".to_owned(),
    }
}

/// An amount in the dimension's own unit.
pub(super) fn dimension_words(dimension: BudgetDimension, amount: u64) -> String {
    match dimension {
        BudgetDimension::CostMicroUsd => cost_words(amount),
        BudgetDimension::WallTimeMs => time_words(std::time::Duration::from_millis(amount)),
        other => {
            let unit = label(other.as_str_name(), "BUDGET_DIMENSION_");
            format!("{} {unit}", token_words(amount))
        }
    }
}

/// What is used of a limit whose words follow: a count without its unit, anything else with it.
pub(super) fn amount_used(dimension: BudgetDimension, amount: u64) -> String {
    match dimension {
        BudgetDimension::CostMicroUsd | BudgetDimension::WallTimeMs => {
            dimension_words(dimension, amount)
        }
        BudgetDimension::Unspecified
        | BudgetDimension::InputTokens
        | BudgetDimension::OutputTokens
        | BudgetDimension::TotalTokens
        | BudgetDimension::ModelCalls
        | BudgetDimension::ToolCalls => token_words(amount),
    }
}

pub(super) fn failed_words(failed: &ModelCallFailed) -> String {
    let kind = label(failed.kind().as_str_name(), "MODEL_FAILURE_KIND_");
    let status = match failed.http_status {
        0 => String::new(),
        status => format!(", HTTP {status}"),
    };
    let message = one_line(&failed.message, 2 * QUOTE);
    format!(
        "{kind}{status}: {message}{}",
        again(failed.retry_at.is_some())
    )
}

pub(super) fn tool_failed_words(failed: &ToolCallFailed) -> String {
    let kind = label(failed.kind().as_str_name(), "TOOL_FAILURE_KIND_");
    let message = one_line(&failed.message, 2 * QUOTE);
    format!("{kind}: {message}{}", again(failed.retry_at.is_some()))
}

pub(super) fn result_words(result: Option<&ToolResult>) -> String {
    let Some(result) = result else {
        return String::new();
    };
    let words: Vec<String> = result.parts.iter().map(part_words).collect();
    one_line(&words.join(" "), QUOTE)
}

pub(super) fn compacted_words(e: &ContextCompacted) -> String {
    let missed = if e.target_met {
        ""
    } else {
        ", short of its target"
    };
    let by = match e.recap_fallback() {
        _ if e.recap_by_model => ", recap by a model".to_owned(),
        RecapFallback::Unspecified => String::new(),
        why => format!(
            ", recap by the rule (model: {})",
            label(why.as_str_name(), "RECAP_FALLBACK_")
        ),
    };
    let dropped = match e.messages_dropped {
        0 => String::new(),
        1 => ", 1 message dropped".to_owned(),
        count => format!(", {count} messages dropped"),
    };
    format!(
        "{} from seq {} through {}: {} to {} tokens{dropped}{missed}{by}",
        label(e.kind().as_str_name(), "COMPACTION_KIND_"),
        e.from_seq,
        e.through_seq,
        token_words(e.tokens_before),
        token_words(e.tokens_after)
    )
}

fn session_event(kind: &Kind) -> Option<(&'static str, String)> {
    Some(match kind {
        Kind::SessionCreated(e) => {
            let model = e.agent.as_ref().map_or("", |agent| agent.model.as_str());
            let words = format!("{} in namespace {}", e.session_id, e.namespace);
            ("SessionCreated", with("model", model, &words))
        }
        Kind::SessionForked(e) => (
            "SessionForked",
            format!(
                "{} from {} at seq {}",
                e.session_id, e.from_session_id, e.from_seq
            ),
        ),
        Kind::SessionImported(e) => (
            "SessionImported",
            format!("{} from {} at seq {}", e.session_id, e.from, e.from_seq),
        ),
        Kind::DriverAttached(e) => (
            "DriverAttached",
            with("server", &e.server_version, &format!("epoch {}", e.epoch)),
        ),
        Kind::DriverDetached(e) => ("DriverDetached", format!("epoch {}", e.epoch)),
        Kind::MessageAdded(e) => {
            let origin = label(e.origin().as_str_name(), "MESSAGE_ORIGIN_");
            (
                "MessageAdded",
                format!("{origin}: {}", quote(e.message.as_ref())),
            )
        }
        Kind::LogRecovered(e) => (
            "LogRecovered",
            format!("{} torn bytes cut after seq {}", e.cut_bytes, e.tail_seq),
        ),
        Kind::ToolsChanged(e) => {
            let names: Vec<&str> = e.tools.iter().map(|tool| tool.name.as_str()).collect();
            ("ToolsChanged", one_line(&names.join(", "), 2 * QUOTE))
        }
        _ => return None,
    })
}

fn model_event(kind: &Kind) -> Option<(&'static str, String)> {
    Some(match kind {
        Kind::ModelCallReserving(e) => ("ModelCallReserving", tried(&e.call, e.attempt)),
        Kind::ModelCallStarted(e) => ("ModelCallStarted", started_words(e)),
        Kind::ModelCallCompleted(e) => ("ModelCallCompleted", completed_words(e)),
        Kind::ModelCallFailed(e) => (
            "ModelCallFailed",
            format!("{}: {}", tried(&e.call, e.attempt), failed_words(e)),
        ),
        Kind::ModelCallAbandoned(e) => {
            let reason = label(e.reason().as_str_name(), "ABANDON_REASON_");
            let words = format!("{}: {reason}", tried(&e.call, e.attempt));
            ("ModelCallAbandoned", words)
        }
        Kind::BudgetReserved(e) => (
            "BudgetReserved",
            format!(
                "{}: {}",
                tried(&e.call, e.attempt),
                amount(e.amount.as_ref())
            ),
        ),
        Kind::BudgetSettled(e) if e.attempt == 0 => {
            let amount = e.amount.unwrap_or_default();
            let ran = dimension_words(BudgetDimension::WallTimeMs, amount.wall_time_ms);
            ("BudgetSettled", format!("{ran} after the last model call"))
        }
        Kind::BudgetSettled(e) => {
            let how = if e.estimated {
                " (the whole reservation)"
            } else {
                ""
            };
            let used = amount(e.amount.as_ref());
            let words = format!("{}: {used}{how}", tried(&e.call, e.attempt));
            ("BudgetSettled", words)
        }
        Kind::BudgetWarning(e) => {
            let budget = e
                .budget
                .as_ref()
                .map_or_else(|| "a budget".into(), budget_name);
            let limit = dimension_words(e.dimension(), e.limit);
            let used = amount_used(e.dimension(), e.used);
            let words = format!("{budget}: {used} of {limit} used");
            ("BudgetWarning", words)
        }
        Kind::BudgetOverrun(e) => {
            let reserved = dimension_words(e.dimension(), e.reserved);
            let used = amount_used(e.dimension(), e.used);
            let words = format!(
                "{}: {used} used, {reserved} reserved",
                tried(&e.call, e.attempt)
            );
            ("BudgetOverrun", words)
        }
        _ => return None,
    })
}

fn tool_event(kind: &Kind) -> Option<(&'static str, String)> {
    Some(match kind {
        Kind::ToolCallRequested(e) => {
            let arguments = one_line(&e.arguments_json, QUOTE);
            let words = format!("{} {} {arguments}", e.call, one_line(&e.tool, QUOTE));
            ("ToolCallRequested", words.trim_end().to_owned())
        }
        Kind::ToolCallRejected(e) => {
            let why = label(e.kind().as_str_name(), "TOOL_REJECT_KIND_");
            let words = format!("{}: {why}: {}", e.call, one_line(&e.message, QUOTE));
            ("ToolCallRejected", words)
        }
        Kind::ToolCallStarted(e) => ("ToolCallStarted", tried(&e.call, e.attempt)),
        Kind::ToolCallCompleted(e) => ("ToolCallCompleted", answered_words(e)),
        Kind::ToolCallFailed(e) => (
            "ToolCallFailed",
            format!("{}: {}", tried(&e.call, e.attempt), tool_failed_words(e)),
        ),
        Kind::ToolCallInDoubt(e) => {
            let reason = one_line(&e.reason, QUOTE);
            (
                "ToolCallInDoubt",
                format!("{}: {reason}", tried(&e.call, e.attempt)),
            )
        }
        Kind::ToolCallUnknown(e) => {
            let words = format!("{}: {}", tried(&e.call, e.attempt), wait::unknown_words(e));
            ("ToolCallUnknown", words)
        }
        Kind::ToolCallResultLate(e) => (
            "ToolCallResultLate",
            format!(
                "{}: {}",
                tried(&e.call, e.attempt),
                result_words(e.result.as_ref())
            ),
        ),
        Kind::ToolCallCancelled(e) => {
            let ran = if e.dispatched {
                "it may have run"
            } else {
                "it did not run"
            };
            ("ToolCallCancelled", format!("{}: {ran}", e.call))
        }
        _ => return None,
    })
}

fn wait_event(kind: &Kind) -> Option<(&'static str, String)> {
    Some(match kind {
        Kind::ApprovalRequested(e) => (
            "ApprovalRequested",
            format!("{}: {}", e.call, wait::asked_words(e)),
        ),
        Kind::ApprovalResolved(e) => (
            "ApprovalResolved",
            format!("{}: {}", e.call, wait::answered_words(e)),
        ),
        Kind::UnknownResolved(e) => (
            "UnknownResolved",
            format!("{}: {}", e.call, wait::resolved_words(e)),
        ),
        Kind::LoopPaused(e) => {
            let reason = label(e.reason().as_str_name(), "PAUSE_REASON_");
            let words = match &e.budget {
                Some(budget) => format!("{}: {}", e.loop_id, budget_words(budget)),
                None => format!("{}: {reason}", e.loop_id),
            };
            ("LoopPaused", with("by", &e.by, &words))
        }
        Kind::LoopResumed(e) => ("LoopResumed", with("by", &e.by, &e.loop_id)),
        _ => return None,
    })
}

fn loop_event(kind: &Kind) -> Option<(&'static str, String)> {
    Some(match kind {
        Kind::LoopStarted(e) => {
            let model = e.agent.as_ref().map_or("", |agent| agent.model.as_str());
            ("LoopStarted", with("model", model, &e.loop_id))
        }
        Kind::LimitsUpdated(e) => ("LimitsUpdated", with("by", &e.by, &e.loop_id)),
        Kind::ContextCompacted(e) => ("ContextCompacted", compacted_words(e)),
        Kind::LoopEnded(e) => ("LoopEnded", format!("{}: {}", e.loop_id, summary_line(e))),
        _ => return None,
    })
}

fn started_words(e: &ModelCallStarted) -> String {
    let step = match e.step {
        _ if e.purpose() == ModelCallPurpose::Recap => "recap, ".to_owned(),
        0 => String::new(),
        step => format!("step {step}, "),
    };
    format!(
        "{}: {step}{}, at most {} tokens out",
        tried(&e.call, e.attempt),
        one_line(&e.model, QUOTE),
        token_words(e.max_output_tokens)
    )
}

fn completed_words(e: &ModelCallCompleted) -> String {
    let mut words = format!(
        "{}: {}",
        tried(&e.call, e.attempt),
        label(e.stop_reason().as_str_name(), "STOP_REASON_")
    );
    if let Some(usage) = &e.usage {
        words.push_str(&format!(", {}", usage_words(usage)));
    }
    if let Some(cost) = e.cost_micro_usd {
        words.push_str(&format!(", {}", cost_words(cost)));
    }
    if let Some(latency) = duration(e.latency.as_ref()) {
        words.push_str(&format!(", {}", time_words(latency)));
    }
    let said = quote(e.message.as_ref());
    if !said.is_empty() {
        words.push_str(&format!(": {said}"));
    }
    words
}

fn answered_words(e: &ToolCallCompleted) -> String {
    let error = e.result.as_ref().is_some_and(|result| result.is_error);
    let mut words = tried(&e.call, e.attempt);
    if let Some(latency) = duration(e.latency.as_ref()) {
        words.push_str(&format!(", {}", time_words(latency)));
    }
    if error {
        words.push_str(", the tool says that it failed");
    }
    let said = result_words(e.result.as_ref());
    if !said.is_empty() {
        words.push_str(&format!(": {said}"));
    }
    words
}

fn usage_words(usage: &Usage) -> String {
    format!(
        "{} in ({}), {} out",
        token_words(read_tokens(usage)),
        cached_words(usage),
        token_words(usage.output_tokens)
    )
}

fn amount(amount: Option<&BudgetAmount>) -> String {
    let amount = amount.copied().unwrap_or_default();
    let mut words = format!(
        "{} tokens in, {} out",
        token_words(amount.input_tokens),
        token_words(amount.output_tokens)
    );
    if amount.tool_calls > 0 {
        words.push_str(&format!(", {}", counted(amount.tool_calls, "tool call")));
    }
    if let Some(cost) = amount.cost_micro_usd {
        words.push_str(&format!(", {}", cost_words(cost)));
    }
    words
}

fn part_words(part: &Part) -> String {
    match &part.kind {
        Some(part::Kind::Text(text)) => text.clone(),
        Some(part::Kind::ToolCall(call)) => format!("[{} {}]", call.call, call.tool),
        Some(part::Kind::ToolResult(result)) => {
            let words: Vec<String> = result.parts.iter().map(part_words).collect();
            format!("[result of {}: {}]", result.call, words.join(" "))
        }
        Some(part::Kind::Thinking(_)) => "[thinking]".to_owned(),
        Some(part::Kind::Opaque(opaque)) => format!("[{} block]", opaque.provider),
        Some(part::Kind::Blob(blob)) => format!("[{}]", blob.media_type),
        None => "[?]".to_owned(),
    }
}

fn tried(call: &str, attempt: u32) -> String {
    format!("{call} attempt {attempt}")
}

fn with(name: &str, value: &str, words: &str) -> String {
    if value.is_empty() {
        return one_line(words, 4 * QUOTE);
    }
    one_line(&format!("{words}, {name} {value}"), 4 * QUOTE)
}

fn again(retried: bool) -> &'static str {
    if retried {
        "; it is tried again"
    } else {
        "; it is not tried again"
    }
}
