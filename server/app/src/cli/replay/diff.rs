//! What the log says against what is decided now, as lines for a person.
//!
//! Boundary: pure. Invariant: bounded however large the events are: at most [`MAX_LINES`] lines of at
//! most [`MAX_CHARS`] characters, each cut with a word that it was.

use loopwright_core::{Event, replay::Divergence};

/// Lines of a difference that are shown.
const MAX_LINES: usize = 200;
/// Characters of a line that are shown.
const MAX_CHARS: usize = 160;
/// Equal lines round a difference.
const CONTEXT: usize = 3;
/// Lines on either side beyond which they are not aligned, but shown one side after the other.
const MAX_ALIGNED: usize = 2_000;

/// One line of the two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row<'a> {
    Same(&'a str),
    Logged(&'a str),
    Decided(&'a str),
}

/// The divergence in lines.
pub(super) fn render(divergence: &Divergence) -> Vec<String> {
    let logged = text(&divergence.logged);
    let (title, decided) = match &divergence.decided {
        Ok(events) if events.is_empty() => (
            "- as logged; this version decides nothing".to_owned(),
            String::new(),
        ),
        Ok(events) => (
            "- as logged   + as this version decides".to_owned(),
            text(events),
        ),
        Err(words) => (
            format!("- as logged; this version refuses it: {words}"),
            String::new(),
        ),
    };
    let rows = rows(
        &logged.lines().collect::<Vec<_>>(),
        &decided.lines().collect::<Vec<_>>(),
    );
    let mut lines = vec![format!("  {title}")];
    lines.extend(shown(&rows));
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!(
            "  .. {more} more lines; --json shows both sides whole"
        ));
    }
    lines
}

fn text(events: &[Event]) -> String {
    serde_json::to_string_pretty(events).expect("events have string keys alone")
}

/// Both texts as one, by their longest common subsequence.
fn rows<'a>(logged: &[&'a str], decided: &[&'a str]) -> Vec<Row<'a>> {
    let head = common(logged.iter(), decided.iter());
    let (logged_rest, decided_rest) = (&logged[head..], &decided[head..]);
    let tail = common(logged_rest.iter().rev(), decided_rest.iter().rev());
    let a = &logged_rest[..logged_rest.len() - tail];
    let b = &decided_rest[..decided_rest.len() - tail];
    let mut rows: Vec<Row<'a>> = logged[..head].iter().map(|line| Row::Same(line)).collect();
    if a.len() > MAX_ALIGNED || b.len() > MAX_ALIGNED {
        rows.extend(a.iter().map(|line| Row::Logged(line)));
        rows.extend(b.iter().map(|line| Row::Decided(line)));
    } else {
        align(a, b, &mut rows);
    }
    let tail = &logged[logged.len() - tail..];
    rows.extend(tail.iter().map(|line| Row::Same(line)));
    rows
}

fn common<'a>(a: impl Iterator<Item = &'a &'a str>, b: impl Iterator<Item = &'a &'a str>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

fn align<'a>(a: &[&'a str], b: &[&'a str], rows: &mut Vec<Row<'a>>) {
    // The length of the longest common subsequence of a[i..] and b[j..].
    let width = b.len() + 1;
    let mut longest = vec![0u16; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            rows.push(Row::Same(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len()
            || (i < a.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            rows.push(Row::Logged(a[i]));
            i += 1;
        } else {
            rows.push(Row::Decided(b[j]));
            j += 1;
        }
    }
}

/// The rows near a difference.
fn shown(rows: &[Row<'_>]) -> Vec<String> {
    let differs = |row: &Row<'_>| !matches!(row, Row::Same(_));
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        rows[from..rows.len().min(at + CONTEXT + 1)]
            .iter()
            .any(differs)
    };
    let mut lines = Vec::new();
    let mut left_out = false;
    for (at, row) in rows.iter().enumerate() {
        if !near(at) {
            left_out = true;
            continue;
        }
        if std::mem::take(&mut left_out) {
            lines.push("    ..".to_owned());
        }
        let (sign, line, other) = match row {
            Row::Same(line) => (' ', line, None),
            Row::Logged(line) => ('-', line, other(rows, at, 1)),
            Row::Decided(line) => ('+', line, other(rows, at, -1)),
        };
        lines.push(format!("  {sign} {}", clamp(line, other)));
    }
    lines
}

/// The line of the other side that stands right beside this one.
fn other<'a>(rows: &[Row<'a>], at: usize, step: isize) -> Option<&'a str> {
    match rows.get(at.checked_add_signed(step)?)? {
        Row::Same(_) => None,
        Row::Logged(line) | Row::Decided(line) => Some(line),
    }
}

/// A long line, cut so that the place is seen where it parts from the other one.
fn clamp(line: &str, other: Option<&str>) -> String {
    let all = line.chars().count();
    if all <= MAX_CHARS {
        return line.to_owned();
    }
    let same = other.map_or(0, |other| {
        line.chars()
            .zip(other.chars())
            .take_while(|(a, b)| a == b)
            .count()
    });
    let from = same
        .saturating_sub(MAX_CHARS / 4)
        .min(all.saturating_sub(MAX_CHARS));
    let part: String = line.chars().skip(from).take(MAX_CHARS).collect();
    let before = if from > 0 { ".." } else { "" };
    format!("{before}{part}.. ({all} characters)")
}

#[cfg(test)]
mod tests;
