//! What to drop and what to shorten, so that a conversation meets its goal.

use std::sync::Arc;

use super::{Recap, Shortened};
use crate::{agent::READ_OUTPUT, ids::CallId, state::Turn};

/// Bytes that a recap may take: an eighth of the target, within these.
const RECAP_BYTES: std::ops::RangeInclusive<u64> = 1_024..=16 * 1_024;
/// Characters that old results are shortened to, in turn, while the ceiling is not met.
const SHORTER: [u32; 3] = [2_000, 500, 100];

/// What a compaction is to reach, in bytes of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// To get down to.
    pub target: u64,
    /// That must not be passed.
    pub ceiling: u64,
    /// Latest turns that are kept whole, unless the ceiling cannot be met otherwise.
    pub min_recent: usize,
    /// Whether the model can read results back, so that those told shorter may say so.
    pub reads_output: bool,
}

/// A compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Turns that are dropped, from the first on, an older recap among them; 0 where only results are
    /// shortened.
    pub dropped: usize,
    /// What is told in their place, where turns are dropped.
    pub recap: Option<Recap>,
    /// Results among the kept turns that are told shorter.
    pub shortened: Vec<Shortened>,
    /// Bytes of content that are left.
    pub bytes: u64,
}

/// The compaction of these turns, of which the first is the recap `before` where there is one. `None`
/// where nothing can be made smaller.
#[must_use]
pub fn plan(turns: &[Arc<Turn>], before: Option<&Recap>, goal: Goal) -> Option<Plan> {
    let dropped = to_drop(turns, before, goal);
    carry_out(turns, before, goal, dropped, None)
}

/// Bytes that the recap of such a compaction may take.
#[must_use]
pub fn room(goal: Goal) -> u32 {
    let room = (goal.target / 8).clamp(*RECAP_BYTES.start(), *RECAP_BYTES.end());
    u32::try_from(room).unwrap_or(u32::MAX)
}

/// How many turns a plan drops, an older recap among them; 0 where it drops none.
#[must_use]
pub fn to_drop(turns: &[Arc<Turn>], before: Option<&Recap>, goal: Goal) -> usize {
    let total: u64 = turns.iter().map(|turn| turn.bytes()).sum();
    let recapped = usize::from(before.is_some());
    let starts = group_starts(turns, recapped);
    let dropped = boundary(
        turns,
        &starts,
        total.saturating_add(room(goal).into()),
        goal,
    );
    if dropped > recapped { dropped } else { 0 }
}

/// The compaction that drops so many turns, with the recap that a model has `written`, else by the rule.
/// `None` where nothing is made smaller.
#[must_use]
pub fn carry_out(
    turns: &[Arc<Turn>],
    before: Option<&Recap>,
    goal: Goal,
    dropped: usize,
    written: Option<String>,
) -> Option<Plan> {
    let recapped = usize::from(before.is_some());
    let recap = (dropped > recapped).then(|| {
        let gone = turns[recapped..dropped].iter().map(AsRef::as_ref);
        match written {
            Some(text) => Recap::written(before, gone, text),
            None => Recap::of(before, gone, room(goal) as usize),
        }
    });
    let kept = &turns[dropped..];
    let told = recap.as_ref().map_or(0, |recap| recap.text().len() as u64);
    let mut bytes = kept
        .iter()
        .map(|turn| turn.bytes())
        .sum::<u64>()
        .saturating_add(told);
    let mut shortened = Vec::new();
    for chars in SHORTER {
        if bytes <= goal.ceiling {
            break;
        }
        (shortened, bytes) = shorten_old(kept, told, chars, goal);
    }
    let dropped = if recap.is_some() { dropped } else { 0 };
    let does_something = dropped > 0 || !shortened.is_empty();
    does_something.then_some(Plan {
        dropped,
        recap,
        shortened,
        bytes,
    })
}

/// How a notice in a result that is told shorter says where all of it is.
#[must_use]
pub fn whole_by(call: CallId) -> String {
    format!("; all of it: {READ_OUTPUT}, handle {call}")
}

/// `text` in at most `chars` characters: its head, a notice, its tail. The notice names `handle`
/// where the model can read the whole of it by that.
#[must_use]
pub fn shorten(text: &str, chars: u32, handle: Option<CallId>) -> String {
    let chars = chars as usize;
    let count = text.chars().count();
    if count <= chars {
        return text.to_owned();
    }
    let whole = handle.map(whole_by).unwrap_or_default();
    let notice = format!("\n[... {count} characters, shortened{whole} ...]\n");
    let left = chars.saturating_sub(notice.chars().count());
    let head: String = text.chars().take(left * 2 / 3).collect();
    let tail: String = text.chars().skip(count - left / 3).collect();
    format!("{head}{notice}{tail}")
}

/// Where groups begin that may be parted from what is before them: everywhere but at results.
fn group_starts(turns: &[Arc<Turn>], from: usize) -> Vec<usize> {
    let starts = turns.iter().enumerate().skip(from);
    let is_start = |turn: &Turn| !matches!(turn, Turn::Results(_));
    starts
        .filter(|(_, turn)| is_start(turn))
        .map(|(at, _)| at)
        .collect()
}

/// How many turns go: the fewest that meet the target within what may go; where even all of those
/// leave the ceiling unmet, as many more as it takes. The last group stays.
fn boundary(turns: &[Arc<Turn>], starts: &[usize], total: u64, goal: Goal) -> usize {
    let mut gone = vec![0; turns.len() + 1];
    for (at, turn) in turns.iter().enumerate() {
        gone[at + 1] = gone[at] + turn.bytes();
    }
    let left = |start: usize| total.saturating_sub(gone[start]);
    let may_go = starts
        .iter()
        .filter(|&&start| turns.len() - start >= goal.min_recent);
    let mut furthest = starts.first().copied().unwrap_or(0);
    for &start in may_go {
        furthest = start;
        if left(start) <= goal.target {
            return start;
        }
    }
    if left(furthest) <= goal.ceiling {
        return furthest;
    }
    let mut further = starts.iter().copied().filter(|&start| start > furthest);
    let met = further.find(|&start| left(start) <= goal.ceiling);
    met.or(starts.last().copied()).unwrap_or(furthest)
}

/// Shortens results, the oldest first, until the ceiling is met.
fn shorten_old(kept: &[Arc<Turn>], told: u64, chars: u32, goal: Goal) -> (Vec<Shortened>, u64) {
    let mut bytes = kept
        .iter()
        .map(|turn| turn.bytes())
        .sum::<u64>()
        .saturating_add(told);
    let mut shortened = Vec::new();
    for turn in kept {
        let Turn::Results(results) = &**turn else {
            continue;
        };
        for result in results.iter() {
            let text = &result.output.text;
            if bytes <= goal.ceiling || text.len() <= chars as usize {
                continue;
            }
            let handle = goal.reads_output.then_some(result.call);
            // Its characters may be few though its bytes are many.
            let saved = text
                .len()
                .saturating_sub(shorten(text, chars, handle).len());
            if saved == 0 {
                continue;
            }
            bytes = bytes.saturating_sub(saved as u64);
            shortened.push(Shortened {
                call: result.call,
                chars,
            });
        }
    }
    (shortened, bytes)
}
