//! Numbers, times and quotations in words.
//!
//! Boundary: values in, text out; nothing of events. Invariant: whatever a peer sends, a line stays one
//! line and its control characters never reach the terminal.

use loopwright_proto::v1::Usage;
use loopwright_proto::well_known::{Duration, Timestamp};

/// Characters of a quotation that fit a line.
pub(super) const QUOTE: usize = 80;

/// A count of tokens with thousands set apart: `12,345`.
#[must_use]
pub fn token_words(tokens: u64) -> String {
    let digits = tokens.to_string();
    let mut words = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// A duration as short as it stays readable: `12 ms`, `3.4 s`, `2 min 5 s`, `1 h 2 min`.
#[must_use]
pub fn time_words(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{}.{} s", seconds, duration.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long ago, in one unit: `now`, `40 s`, `3 min`, `5 h`, `12 d`.
#[must_use]
pub fn age_words(age: std::time::Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Millionths of a US dollar as dollars: `$0.0123`.
#[must_use]
pub fn cost_words(micro_usd: u64) -> String {
    let (dollars, rest) = (micro_usd / 1_000_000, micro_usd % 1_000_000);
    if rest.is_multiple_of(100) {
        format!("${dollars}.{:04}", rest / 100)
    } else {
        format!("${dollars}.{rest:06}")
    }
}

/// How much of what a model read came from its provider's cache: `91 % cached`. Rounded down, but what was
/// read from it at all is at least 1 %.
#[must_use]
pub fn cached_words(usage: &Usage) -> String {
    let (cached, all) = (usage.cache_read_tokens, read_tokens(usage));
    let share = u128::from(cached) * 100 / u128::from(all).max(1);
    format!("{} % cached", share.max(u128::from(cached > 0)))
}

/// The tokens that a model read, in all three classes.
#[must_use]
pub fn read_tokens(usage: &Usage) -> u64 {
    usage
        .input_tokens
        .saturating_add(usage.cache_write_tokens)
        .saturating_add(usage.cache_read_tokens)
}

/// A point in time in UTC: `2026-11-22 11:30:05.123`.
#[must_use]
pub fn timestamp_words(at: &Timestamp) -> String {
    let days = at.seconds.div_euclid(86_400);
    let second = at.seconds.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}",
        second / 3600,
        second % 3600 / 60,
        second % 60,
        at.nanos.clamp(0, 999_999_999) / 1_000_000
    )
}

pub(super) fn duration(of: Option<&Duration>) -> Option<std::time::Duration> {
    of.and_then(|duration| std::time::Duration::try_from(*duration).ok())
}

/// The time between two points; none where one is missing or the clock went back.
pub(super) fn between(
    from: Option<&Timestamp>,
    to: Option<&Timestamp>,
) -> Option<std::time::Duration> {
    let nanos = |at: &Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    let passed = nanos(to?) - nanos(from?);
    u64::try_from(passed)
        .ok()
        .map(std::time::Duration::from_nanos)
}

/// An enum's name on the wire in words: `END_REASON_MAX_STEPS` without its prefix is `max steps`.
pub(super) fn label(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_lowercase()
        .replace('_', " ")
}

/// Foreign text on one line, cut to `limit` characters.
pub(super) fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for (at, word) in text.split_whitespace().enumerate() {
        if at > 0 {
            line.push(' ');
        }
        line.extend(word.chars().filter(|c| !c.is_control()));
        if line.chars().count() > limit {
            break;
        }
    }
    if line.chars().count() > limit {
        line = line.chars().take(limit.saturating_sub(1)).collect();
        line.push('…');
    }
    line
}

/// Foreign text that keeps its lines, without what would steer a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// Days since 1970-01-01 as year, month, day (H. Hinnant, days_from_civil inverted).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
