//! How a loop ended, and what it used.
//!
//! Boundary: LoopEnded and its details only. Invariant: every reason has words of its own.

use loopwright_proto::v1::{
    BudgetDimension, BudgetExceededDetail, DeadlineKind, EndReason, LoopEnded, Totals,
    loop_ended::Detail,
};

use super::event::{amount_used, budget_name, dimension_words};
use super::words::{
    QUOTE, cached_words, cost_words, duration, label, one_line, read_tokens, time_words,
    token_words,
};

/// Why the loop ended, in words: `completed`, `took as many steps as it may (75)`.
#[must_use]
pub fn end_words(end: &LoopEnded) -> String {
    match &end.detail {
        Some(detail) => detail_words(detail),
        None => match end.reason() {
            EndReason::Unspecified => format!("ended for a reason unknown here ({})", end.reason),
            reason => label(reason.as_str_name(), "END_REASON_"),
        },
    }
}

/// One line for the end of a run: why it ended, tokens, steps, time and, where it is known, cost.
#[must_use]
pub fn summary_line(end: &LoopEnded) -> String {
    let mut words = vec![end_words(end)];
    if let Some(totals) = &end.totals {
        words.extend(totals_words(totals));
    }
    words.join(" · ")
}

/// What was used: tokens, steps, time, cost.
pub(super) fn totals_words(totals: &Totals) -> Vec<String> {
    let usage = totals.usage.unwrap_or_default();
    let about = if usage.estimated { "about " } else { "" };
    let mut words = vec![format!(
        "{about}{} tokens in ({}), {} out",
        token_words(read_tokens(&usage)),
        cached_words(&usage),
        token_words(usage.output_tokens)
    )];
    words.push(counted(u64::from(totals.steps), "step"));
    if totals.tool_calls > 0 {
        words.push(counted(totals.tool_calls, "tool call"));
    }
    if let Some(time) = duration(totals.wall_time.as_ref()) {
        words.push(time_words(time));
    }
    if let Some(cost) = totals.cost_micro_usd {
        words.push(cost_words(cost));
    }
    words
}

pub(super) fn budget_words(detail: &BudgetExceededDetail) -> String {
    let budget = detail
        .budget
        .as_ref()
        .map_or_else(|| "a budget".to_owned(), budget_name);
    let needed = match detail.requested {
        0 => String::new(),
        // Any time at all.
        _ if detail.dimension() == BudgetDimension::WallTimeMs => String::new(),
        requested => format!(
            ", the next call needs at least {}",
            dimension_words(detail.dimension(), requested)
        ),
    };
    format!(
        "{budget} is exhausted: {} of {} used{needed}",
        amount_used(detail.dimension(), detail.used),
        dimension_words(detail.dimension(), detail.limit)
    )
}

fn detail_words(detail: &Detail) -> String {
    match detail {
        Detail::MaxSteps(d) => format!("took as many steps as it may ({})", d.limit),
        Detail::MaxOutput(d) => format!(
            "the reply was cut at {} tokens, and continuing it {} did not help",
            token_words(d.max_output_tokens),
            counted(u64::from(d.retries), "time")
        ),
        Detail::BudgetExceeded(d) => budget_words(d),
        Detail::Deadline(d) => match d.kind() {
            DeadlineKind::Idle => "waited for a person for too long".to_owned(),
            DeadlineKind::Loop | DeadlineKind::Unspecified => "its time was over".to_owned(),
        },
        Detail::NoProgress(d) => {
            let steps = counted(u64::from(d.steps), "step");
            format!("no progress: nothing new in {steps}")
        }
        Detail::Refused(d) => {
            let word = label(d.stop_reason().as_str_name(), "STOP_REASON_");
            format!("the model did not answer ({word})")
        }
        Detail::ContextExhausted(d) => format!(
            "the conversation does not fit: {} tokens after compaction, {} fit",
            token_words(d.tokens),
            token_words(d.limit)
        ),
        Detail::Cancelled(d) => cancelled_words(&d.by, &d.reason),
        Detail::ModelFailed(d) => {
            let kind = label(d.kind().as_str_name(), "MODEL_FAILURE_KIND_");
            format!(
                "the model failed ({kind}): {}",
                one_line(&d.message, 4 * QUOTE)
            )
        }
        Detail::UnknownOutcome(d) => format!(
            "it cannot be known whether tool call {} ran: see what it did before you go on",
            d.call
        ),
        Detail::Error(d) => format!("error: {}", one_line(&d.message, 4 * QUOTE)),
    }
}

fn cancelled_words(by: &str, reason: &str) -> String {
    let mut words = "cancelled".to_owned();
    if !by.is_empty() {
        words.push_str(&format!(" by {}", one_line(by, QUOTE)));
    }
    if !reason.is_empty() {
        words.push_str(&format!(": {}", one_line(reason, QUOTE)));
    }
    words
}

pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", token_words(count))
}
