//! Budgets as a person reads them: a bar for each limit.

use std::time::Duration;

use loopwright_proto::v1::{Budget, BudgetAmount, BudgetLimits, BudgetPeriodKind, OnExhausted};
use loopwright_proto::well_known;

use super::words::{cost_words, time_words, timestamp_words, token_words};

/// Cells of a bar.
const CELLS: u64 = 24;

/// The lines of one budget: its name and terms, then a bar for each limit; without limits, what was used.
#[must_use]
pub fn budget_lines(budget: &Budget) -> Vec<String> {
    let terms = budget.terms.clone().unwrap_or_default();
    let limits = terms.limits.unwrap_or_default();
    let mut about = Vec::new();
    if !terms.parent.is_empty() {
        about.push(format!("part of {}", terms.parent));
    }
    let kind = terms
        .period
        .map_or(BudgetPeriodKind::None, |period| period.kind());
    about.push(match kind {
        BudgetPeriodKind::Day => "each day".to_owned(),
        BudgetPeriodKind::Month => "each month".to_owned(),
        BudgetPeriodKind::Rolling => "rolling".to_owned(),
        BudgetPeriodKind::Unspecified | BudgetPeriodKind::None => "for good".to_owned(),
    });
    if limits.on_exhausted() == OnExhausted::Pause {
        about.push("loops wait for it".to_owned());
    }
    if let Some(end) = &budget.period_end {
        about.push(format!("until {} UTC", timestamp_words(end)));
    }
    if budget.open_reservations > 0 {
        about.push(format!("{} open reservations", budget.open_reservations));
    }
    let mut lines = vec![format!("{}  ({})", budget.name, about.join(", "))];
    let settled = budget.settled.unwrap_or_default();
    let reserved = budget.reserved.unwrap_or_default();
    let rows = rows(&limits, &settled, &reserved);
    if rows.is_empty() {
        lines.push(format!("  no limits; {} used", amount_words(&settled)));
    }
    lines.extend(rows);
    lines
}

/// An amount in words: `12,345 tokens, $0.0120, 3 calls`.
#[must_use]
pub fn amount_words(amount: &BudgetAmount) -> String {
    let tokens = amount.input_tokens.saturating_add(amount.output_tokens);
    let mut words = vec![format!("{} tokens", token_words(tokens))];
    if let Some(cost) = amount.cost_micro_usd.filter(|cost| *cost > 0) {
        words.push(cost_words(cost));
    }
    words.push(format!("{} calls", token_words(amount.model_calls)));
    words.join(", ")
}

fn rows(limits: &BudgetLimits, settled: &BudgetAmount, reserved: &BudgetAmount) -> Vec<String> {
    let total = |amount: &BudgetAmount| amount.input_tokens.saturating_add(amount.output_tokens);
    let cost = |amount: &BudgetAmount| amount.cost_micro_usd.unwrap_or(0);
    let tokens: fn(u64) -> String = token_words;
    [
        (
            "input tokens",
            limits.max_input_tokens,
            settled.input_tokens,
            reserved.input_tokens,
            tokens,
        ),
        (
            "output tokens",
            limits.max_output_tokens,
            settled.output_tokens,
            reserved.output_tokens,
            tokens,
        ),
        (
            "tokens",
            limits.max_total_tokens,
            total(settled),
            total(reserved),
            tokens,
        ),
        (
            "cost",
            limits.max_cost_micro_usd,
            cost(settled),
            cost(reserved),
            cost_words,
        ),
        (
            "model calls",
            limits.max_model_calls,
            settled.model_calls,
            reserved.model_calls,
            tokens,
        ),
        (
            "tool calls",
            limits.max_tool_calls,
            settled.tool_calls,
            reserved.tool_calls,
            tokens,
        ),
        (
            "time",
            limits.max_wall_time.as_ref().map(millis),
            settled.wall_time_ms,
            reserved.wall_time_ms,
            |millis| time_words(Duration::from_millis(millis)),
        ),
    ]
    .into_iter()
    .filter_map(|(name, limit, settled, reserved, words)| {
        let limit = limit?;
        let bar = bar(limit, settled, reserved);
        let mut row = format!("  {name:13} {bar} {} of {}", words(settled), words(limit));
        if reserved > 0 {
            row.push_str(&format!(", {} set aside", words(reserved)));
        }
        Some(row)
    })
    .collect()
}

/// A span in milliseconds; a negative one is none.
fn millis(span: &well_known::Duration) -> u64 {
    let seconds = u64::try_from(span.seconds).unwrap_or(0);
    let millis = u64::try_from(span.nanos / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(millis)
}

/// Full for what is used, half for what is set aside, dots for what is left. Whatever is used shows, and a
/// bar is only full when nothing is left.
fn bar(limit: u64, settled: u64, reserved: u64) -> String {
    let gone = settled.saturating_add(reserved);
    let cells = |amount: u64| match limit {
        0 => CELLS,
        limit if amount >= limit => CELLS,
        limit => {
            let share = u128::from(amount) * u128::from(CELLS);
            let cells = share.div_ceil(u128::from(limit));
            u64::try_from(cells).unwrap_or(CELLS).min(CELLS - 1)
        }
    };
    let (all, used) = (cells(gone), cells(settled).min(cells(gone)));
    let part =
        |cell: char, count: u64| std::iter::repeat_n(cell, usize::try_from(count).unwrap_or(0));
    let drawn = part('█', used)
        .chain(part('▒', all - used))
        .chain(part('·', CELLS - all));
    drawn.collect()
}

#[cfg(test)]
mod tests {
    use loopwright_proto::v1::BudgetTerms;

    use super::*;

    #[test]
    fn a_bar_shows_what_is_used_and_is_full_only_at_the_limit() {
        assert_eq!(bar(100, 0, 0), "·".repeat(24));
        assert_eq!(bar(100, 100, 0), "█".repeat(24));
        assert_eq!(
            bar(0, 0, 0),
            "█".repeat(24),
            "nothing is allowed, so nothing is left"
        );
        assert!(bar(1_000_000, 1, 0).starts_with('█'));
        assert!(bar(1_000_000, 999_999, 0).ends_with('·'));
        assert_eq!(
            bar(24, 6, 6),
            format!("{}{}{}", "█".repeat(6), "▒".repeat(6), "·".repeat(12))
        );
        assert_eq!(bar(u64::MAX, u64::MAX, u64::MAX).chars().count(), 24);
    }

    #[test]
    fn each_limit_has_its_line() {
        let budget = Budget {
            name: "team".to_owned(),
            terms: Some(BudgetTerms {
                parent: "org".to_owned(),
                limits: Some(BudgetLimits {
                    max_total_tokens: Some(48_000),
                    max_cost_micro_usd: Some(2_000_000),
                    max_tool_calls: Some(0),
                    max_wall_time: Some(well_known::Duration {
                        seconds: 120,
                        nanos: 0,
                    }),
                    ..BudgetLimits::default()
                }),
                period: None,
            }),
            settled: Some(BudgetAmount {
                input_tokens: 10_000,
                output_tokens: 2_000,
                cost_micro_usd: Some(500_000),
                wall_time_ms: 30_000,
                ..BudgetAmount::default()
            }),
            reserved: Some(BudgetAmount {
                input_tokens: 12_000,
                wall_time_ms: 30_000,
                ..BudgetAmount::default()
            }),
            open_reservations: 1,
            ..Budget::default()
        };
        let half = format!("{}{}{}", "█".repeat(6), "▒".repeat(6), "·".repeat(12));
        let quarter = format!("{}{}", "█".repeat(6), "·".repeat(18));
        assert_eq!(
            budget_lines(&budget),
            [
                "team  (part of org, for good, 1 open reservations)".to_owned(),
                format!("  tokens        {half} 12,000 of 48,000, 12,000 set aside"),
                format!("  cost          {quarter} $0.5000 of $2.0000"),
                format!("  tool calls    {} 0 of 0", "█".repeat(24)),
                format!("  time          {half} 30.0 s of 2 min 0 s, 30.0 s set aside"),
            ]
        );
    }
}
