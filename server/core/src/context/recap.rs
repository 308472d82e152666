//! What a model is told in the place of what it no longer sees: structured, and carried forward.
//!
//! A recap holds one-liners by kind. The next one takes the items of the last one over, so that what
//! was asked for in the first round is still there in the tenth; where room is short, what is old and
//! of little weight goes first.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::{
    decide::is_nudge,
    message::{CallPart, Part, clamp, text_of},
    state::{ToolResult, Turn},
};

/// Bytes of the first request: what the session is about.
const TASK_BYTES: usize = 2_000;
/// Bytes of any other item.
const ITEM_BYTES: usize = 320;
/// Bytes of a call's arguments, and of what it gave back.
const ARGUMENT_BYTES: usize = 120;
/// A word above this, bytes, is cut rather than left out: not every script puts spaces between words.
const LONG_WORD_BYTES: usize = 40;
/// Share of a recap that calls and errors may take, in percent, while anything else wants in.
const CALLS_PERCENT: usize = 50;
/// What of its room a recap has for items beside what a model wrote: one part of so many at least.
const LEAST_SHARE: usize = 4;
/// What introduces a recap.
const HEAD: &str = "[The conversation so far was too long and has been compacted. What follows is a \
                    summary of the part that is no longer shown; the messages after it are as they \
                    were. Of what you write, lines that begin with \"Note:\" or \"Next:\" are kept \
                    longest.]";

/// The recap of what was dropped so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recap {
    /// Compactions that led to it.
    pub round: u32,
    /// What is remembered, oldest first.
    pub items: Vec<Item>,
    /// What was not remembered: items that had no room, of all rounds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forgotten: u32,
    /// What a model wrote of all that was dropped before the items were, but for the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}

/// One thing that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Of which kind.
    pub kind: ItemKind,
    /// In one line.
    pub text: String,
}

/// The kinds of what is remembered, by falling weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// The first request.
    Task,
    /// Something that was left to do.
    Open,
    /// Something that the model marked as to be kept.
    Note,
    /// A later request.
    Request,
    /// What the model said.
    Decision,
    /// A call that failed.
    Error,
    /// A call.
    Call,
}

impl Recap {
    /// The recap of `before` and of the turns that are dropped now, in at most `room` bytes: a little
    /// more where the task alone is longer.
    #[must_use]
    pub fn of<'a>(
        before: Option<&Self>,
        dropped: impl IntoIterator<Item = &'a Turn>,
        room: usize,
    ) -> Self {
        let mut items = before
            .map(|before| before.items.clone())
            .unwrap_or_default();
        let mut asked: Option<&[Part]> = None;
        for turn in dropped {
            match turn {
                Turn::User(parts) => items.extend(request(parts, items.is_empty())),
                Turn::Assistant { parts, .. } => {
                    tick_off(&mut items, parts);
                    items.extend(said(parts));
                    asked = Some(parts);
                }
                Turn::Results(results) => {
                    let calls = asked.take().into_iter().flatten().filter_map(call_of);
                    items.extend(calls.zip(results.iter()).map(|(c, r)| call(c, r)));
                }
            }
        }
        // What a model wrote is carried forward whole; what came since has its own room beside it.
        let written = before.and_then(|before| before.written.clone());
        let taken = written.as_ref().map_or(0, String::len);
        let room = room.saturating_sub(taken).max(room / LEAST_SHARE);
        let mut known = std::collections::BTreeSet::new();
        let lasts = |item: &Item| matches!(item.kind, ItemKind::Note | ItemKind::Open);
        items.retain(|item| !lasts(item) || known.insert(item.text.clone()));
        let all = items.len();
        let items = fit(items, room);
        let gone = u32::try_from(all - items.len()).unwrap_or(u32::MAX);
        let forgotten = before.map_or(0, |before| before.forgotten);
        Self {
            round: before.map_or(0, |before| before.round).saturating_add(1),
            items,
            forgotten: forgotten.saturating_add(gone),
            written,
        }
    }

    /// The recap that a model has written of `before` and of the turns that are dropped now. The task
    /// stays in its own words beside it.
    #[must_use]
    pub fn written<'a>(
        before: Option<&Self>,
        dropped: impl IntoIterator<Item = &'a Turn>,
        text: String,
    ) -> Self {
        let rule = Self::of(before, dropped, 0);
        let task = rule.items.into_iter();
        Self {
            round: rule.round,
            items: task.filter(|item| item.kind == ItemKind::Task).collect(),
            forgotten: before.map_or(0, |before| before.forgotten),
            written: Some(text),
        }
    }

    /// As the model is told it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (kind, title) in [
            (ItemKind::Task, "Task"),
            (ItemKind::Note, "Notes"),
            (ItemKind::Request, "Later requests"),
            (ItemKind::Decision, "What you said"),
            (ItemKind::Open, "Open"),
            (ItemKind::Error, "Errors"),
            (ItemKind::Call, "Tool calls"),
        ] {
            let mut of_kind = self
                .items
                .iter()
                .filter(|item| item.kind == kind)
                .peekable();
            if of_kind.peek().is_some() {
                text.push_str(&format!("\n\n{title}:"));
            }
            for item in of_kind {
                text.push_str("\n- ");
                text.push_str(&item.text);
            }
            if let Some(written) = self.written.as_ref().filter(|_| kind == ItemKind::Task) {
                text.push_str("\n\nSummary:\n");
                text.push_str(written);
            }
        }
        if self.forgotten > 0 {
            text.push_str(&format!(
                "\n\n({} older notes were left out.)",
                self.forgotten
            ));
        }
        text
    }
}

/// Takes what weighs most, the newest of each kind first, until the room is full; what is taken stays
/// in its order.
fn fit(items: Vec<Item>, room: usize) -> Vec<Item> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&at| (class(items[at].kind), Reverse(at)));
    let (mut left, mut for_calls) = (room, room * CALLS_PERCENT / 100);
    let mut keep = vec![false; items.len()];
    for at in order {
        let item = &items[at];
        let cost = item.text.len() + 3;
        let is_call = item.kind >= ItemKind::Error;
        let fits = cost <= left && (!is_call || cost <= for_calls);
        if fits || item.kind == ItemKind::Task {
            keep[at] = true;
            left = left.saturating_sub(cost);
            for_calls = for_calls.saturating_sub(if is_call { cost } else { 0 });
        }
    }
    let kept = items.into_iter().zip(keep);
    kept.filter_map(|(item, keep)| keep.then_some(item))
        .collect()
}

/// Requests and what was said weigh the same: the newer one goes first.
fn class(kind: ItemKind) -> u8 {
    match kind {
        ItemKind::Task => 0,
        ItemKind::Open | ItemKind::Note => 1,
        ItemKind::Request | ItemKind::Decision => 2,
        ItemKind::Error => 3,
        ItemKind::Call => 4,
    }
}

fn request(parts: &[Part], is_first: bool) -> Option<Item> {
    let text = text_of(parts);
    if is_nudge(&text) {
        return None;
    }
    let (kind, limit) = if is_first {
        (ItemKind::Task, TASK_BYTES)
    } else {
        (ItemKind::Request, ITEM_BYTES)
    };
    let text = one_line(&text, limit);
    (!text.is_empty()).then_some(Item { kind, text })
}

/// What a reply said, what it marked as to be kept, and what it says is left to do.
fn said(parts: &[Part]) -> Vec<Item> {
    let text = text_of(parts);
    let mut items: Vec<Item> = text
        .lines()
        .filter_map(|line| marked(line.trim()))
        .collect();
    let text = one_line(&text, ITEM_BYTES);
    if !text.is_empty() {
        let kind = ItemKind::Decision;
        items.insert(0, Item { kind, text });
    }
    items
}

/// What a reply says is done is open no more.
fn tick_off(items: &mut Vec<Item>, parts: &[Part]) {
    for line in text_of(parts).lines() {
        if let Some(done) = line.trim().strip_prefix("- [x]") {
            let done = one_line(done.trim(), ITEM_BYTES);
            items.retain(|item| item.kind != ItemKind::Open || item.text != done);
        }
    }
}

/// A line whose beginning says that it outlives what was said around it.
fn marked(line: &str) -> Option<Item> {
    let starts = |marks: &[&str]| marks.iter().any(|mark| line.starts_with(mark));
    let kind = if starts(&["- [ ]", "Next:"]) {
        ItemKind::Open
    } else if starts(&["Note:", "Decision:", "Remember:", "Important:"]) {
        ItemKind::Note
    } else {
        return None;
    };
    let text = one_line(line.trim_start_matches("- [ ]").trim(), ITEM_BYTES);
    Some(Item { kind, text })
}

/// The handle comes first, by which the whole result may be read back.
fn call(call: &CallPart, result: &ToolResult) -> Item {
    let arguments = one_line(&call.arguments, ARGUMENT_BYTES);
    let gave = one_line(&result.output.text, ARGUMENT_BYTES);
    let kind = if result.output.is_error {
        ItemKind::Error
    } else {
        ItemKind::Call
    };
    Item {
        kind,
        text: format!("{} {}({arguments}) -> {gave}", result.call, call.tool),
    }
}

pub(super) fn call_of(part: &Part) -> Option<&CallPart> {
    match part {
        Part::ToolCall(call) => Some(call),
        Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_) => None,
    }
}

/// Text in one line, cut where it is long.
fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit + 8));
    for word in text.split_whitespace() {
        if line.len() + word.len() + 1 > limit {
            let left = limit.saturating_sub(line.len() + 1);
            if line.is_empty() || word.len() > LONG_WORD_BYTES {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(clamp(word, left));
            }
            line.push('…');
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}
