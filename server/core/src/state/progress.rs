//! Whether a loop gets anywhere: how many steps in a row brought nothing new.
//!
//! Boundary: tool calls, results and words in, a count out; what follows from the count is decided
//! elsewhere. Invariant: what is remembered is bounded, and a step costs the same however long the
//! loop is. What is forgotten is taken for new when it comes again.

use std::sync::Arc;

use crate::message::{Part, ToolOutput};

/// What a loop remembers of the calls, results and words that it has seen.
const KEPT: usize = 1_024;

/// What the steps of a loop brought that was new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Steps in a row that brought nothing new, the one under way included.
    pub idle: u32,
    /// Whether the model was told so since something new came last.
    pub told: bool,
    /// Fingerprints, in the order in which they came until there are [`KEPT`].
    seen: Arc<Vec<u64>>,
    /// The place of the oldest one once there are.
    oldest: usize,
}

impl Progress {
    /// A reply has come: its step counts until something new shows in it. One that asks for no tool
    /// has its words alone.
    pub(super) fn replied(&mut self, parts: &[Part]) {
        self.idle = self.idle.saturating_add(1);
        if !parts.iter().any(|part| matches!(part, Part::ToolCall(_))) {
            self.said(parts);
        }
    }

    /// The model asks for a tool.
    pub(super) fn asked(&mut self, tool: &str, args_hash: &str) {
        let print = Print::new(1).text(tool).text(args_hash);
        self.see(print);
    }

    /// A call has its result.
    pub(super) fn result(&mut self, output: &ToolOutput) {
        let print = Print::new(2 + u64::from(output.is_error)).text(&output.text);
        self.see(print);
    }

    /// Somebody told the model something.
    pub(super) fn told_new(&mut self) {
        self.idle = 0;
        self.told = false;
    }

    fn said(&mut self, parts: &[Part]) {
        let words = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
            Part::Opaque(own) => Some(&own.json),
            Part::Blob(blob) => Some(&blob.sha256),
            Part::Thinking(_) | Part::ToolCall(_) => None,
        });
        let print = words.fold(None, |print: Option<Print>, text| {
            Some(print.unwrap_or(Print::new(4)).text(text))
        });
        if let Some(print) = print {
            self.see(print);
        }
    }

    fn see(&mut self, print: Print) {
        let print = print.end();
        if self.seen.contains(&print) {
            return;
        }
        self.told_new();
        let seen = Arc::make_mut(&mut self.seen);
        if seen.len() < KEPT {
            seen.push(print);
        } else {
            seen[self.oldest] = print;
            self.oldest = (self.oldest + 1) % KEPT;
        }
    }
}

/// A fingerprint in the making: 64 bits that two different things share by chance alone. It is
/// written down nowhere, and so is no hash that a file or a peer must agree on.
#[derive(Clone, Copy, Debug)]
struct Print(u64);

impl Print {
    /// Of a kind of thing: the same text is another thing in another kind.
    fn new(kind: u64) -> Self {
        Self(kind).word(0x9e37_79b9_7f4a_7c15)
    }

    fn text(self, text: &str) -> Self {
        let mut print = self;
        for chunk in text.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            print = print.word(u64::from_le_bytes(bytes));
        }
        // Where one text ends and the next begins is part of what they are.
        print.word(text.len() as u64)
    }

    fn word(self, word: u64) -> Self {
        let word = word
            .wrapping_mul(0x87c3_7b91_1142_53d5)
            .rotate_left(31)
            .wrapping_mul(0x4cf5_ad43_2745_937f);
        let mixed = (self.0 ^ word).rotate_left(27);
        Self(mixed.wrapping_mul(5).wrapping_add(0x52dc_e729))
    }

    fn end(self) -> u64 {
        let mut mixed = self.0;
        for by in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            mixed = (mixed ^ (mixed >> 33)).wrapping_mul(by);
        }
        mixed ^ (mixed >> 33)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str, is_error: bool) -> ToolOutput {
        ToolOutput {
            text: text.to_owned(),
            is_error,
            ..ToolOutput::default()
        }
    }

    #[test]
    fn a_new_call_or_a_new_result_begins_the_count_anew() {
        let mut progress = Progress::default();
        let mut step = |tool: &str, hash: &str, text: &str, is_error: bool| {
            progress.replied(&[]);
            progress.asked(tool, hash);
            progress.result(&output(text, is_error));
            progress.idle
        };
        assert_eq!(step("read", "a", "x", false), 0, "the first is new");
        assert_eq!(step("read", "a", "x", false), 1);
        assert_eq!(step("read", "a", "x", false), 2);
        assert_eq!(step("read", "b", "x", false), 0, "other arguments");
        assert_eq!(step("list", "a", "x", false), 0, "another tool");
        assert_eq!(step("read", "a", "y", false), 0, "another result");
        assert_eq!(step("read", "a", "y", true), 0, "the same, as an error");
        assert_eq!(step("list", "a", "y", false), 1, "both known");
        assert_eq!(step("rea", "da", "y", false), 0, "where a name ends counts");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut progress = Progress::default();
        let mut ask = |number: usize| {
            progress.replied(&[]);
            progress.asked("read", &number.to_string());
            progress.idle
        };
        for number in 0..KEPT + 2 {
            assert_eq!(ask(number), 0);
        }
        assert_eq!(ask(2), 1, "the third one is still known");
        assert_eq!(ask(0), 0, "the first one was forgotten for the newest");
        assert_eq!(progress.seen.len(), KEPT);
    }

    #[test]
    fn words_count_where_no_tool_is_asked_for() {
        let text = |text: &str| vec![Part::Text(text.to_owned())];
        let mut progress = Progress::default();
        let mut say = |parts: &[Part]| {
            progress.replied(parts);
            progress.idle
        };
        assert_eq!(say(&text("a")), 0);
        assert_eq!(say(&text("a")), 1);
        assert_eq!(say(&text("b")), 0);
        assert_eq!(say(&[]), 1, "nothing is not something new");
        assert_eq!(say(&[Part::Text(String::new())]), 2);
    }
}
