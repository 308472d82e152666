//! What is taken out before anybody else sees it: secrets of what comes in, fields of tools'
//! arguments on their way out.
//!
//! ```text
//! client ──message──▶ service ─┐                            ┌─▶ log ──▶ state ──▶ model
//! sidecar ──result──▶ effects ─┼─ Redaction: typed secrets ─┤
//! provider ──error──▶ effects ─┘   (`redaction.secrets`)    └─▶ log ─┬─ Fields ─▶ watchers, exports,
//!                                                                    │            traces
//!                                          (`tools.redact`)          └──────────▶ recovery: the call as
//!                                                                                 it was
//! ```
//!
//! Boundary: texts in, texts out; each edge calls it once, and nothing behind an edge does. Invariants:
//! what is found is replaced whole, across the parts of a message too; a second pass changes nothing;
//! time and memory grow with the text and with nothing else; without a kind or a rule nothing is
//! looked at. What a model writes is no input: providers sign replies and want them back as they were.

mod cards;
mod fields;
mod json;
mod patch;
mod secrets;

use std::{borrow::Cow, sync::Arc};

use loopwright_core::{
    What,
    message::{Part, Parts, ToolOutput},
};

use crate::config::{Config, RedactionConfig};

pub use fields::{FieldRule, Fields};
pub(crate) use patch::patched;

use secrets::Kinds;

/// The secrets that are looked for; cheap to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    kinds: Kinds,
}

impl Redaction {
    /// As `redaction.secrets` says.
    #[must_use]
    pub fn new(config: &RedactionConfig) -> Self {
        Self {
            kinds: Kinds::of(&config.secrets),
        }
    }

    /// Every kind there is.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            kinds: Kinds::of(&crate::config::SecretKind::ALL),
        }
    }

    /// A text without its secrets.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.kinds.is_empty() {
            return Cow::Borrowed(text);
        }
        secrets::replaced(text, &secrets::find(self.kinds, text))
    }

    /// As [`Self::text`], in place.
    pub fn owned(&self, text: &mut String) {
        if let Cow::Owned(redacted) = self.text(text) {
            *text = redacted;
        }
    }

    /// JSON without the secrets in its strings and numbers: JSON again. A text that is no JSON is taken
    /// as plain text.
    #[must_use]
    pub fn json<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.kinds.is_empty() {
            return Cow::Borrowed(text);
        }
        json::redacted(self.kinds, text)
    }

    /// Texts that are read one after the other, in place: a secret that is split over several of them
    /// is found as well, and replaced in each.
    pub fn pieces(&self, pieces: &mut [String]) {
        if self.kinds.is_empty() || pieces.is_empty() {
            return;
        }
        let found = secrets::find_split(self.kinds, pieces);
        for (piece, found) in pieces.iter_mut().zip(found) {
            if let Cow::Owned(redacted) = secrets::replaced(piece, &found) {
                *piece = redacted;
            }
        }
    }

    /// A message without its secrets; the same one where it has none.
    #[must_use]
    pub fn parts(&self, parts: Parts) -> Parts {
        if self.kinds.is_empty() {
            return parts;
        }
        let mut texts: Vec<String> = parts.iter().filter_map(text_of).cloned().collect();
        self.pieces(&mut texts);
        if parts.iter().filter_map(text_of).eq(texts.iter()) {
            return parts;
        }
        let mut texts = texts.into_iter();
        let with = |part: &Part| match part {
            Part::Text(_) => Part::Text(texts.next().unwrap_or_default()),
            other => other.clone(),
        };
        Arc::new(parts.iter().map(with).collect())
    }

    /// What a tool gave back, in place.
    pub fn output(&self, output: &mut ToolOutput) {
        if self.kinds.is_empty() {
            return;
        }
        self.owned(&mut output.text);
        if let Some(json) = &mut output.structured
            && let Cow::Owned(redacted) = self.json(json)
        {
            *json = redacted;
        }
    }

    /// A command to a session without the secrets in what a person wrote.
    #[must_use]
    pub fn command(&self, mut what: What) -> What {
        if self.kinds.is_empty() {
            return what;
        }
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "outcomes have edges of their own"
        )]
        match &mut what {
            What::SendMessage(message) => {
                message.parts = self.parts(std::mem::take(&mut message.parts));
            }
            What::CancelLoop { reason, .. } | What::ResolveApproval { reason, .. } => {
                self.owned(reason);
            }
            What::ResolveUnknown { reason, output, .. } => {
                self.owned(reason);
                if let Some(output) = output {
                    self.output(Arc::make_mut(output));
                }
            }
            _ => {}
        }
        what
    }
}

impl From<&Config> for Redaction {
    fn from(config: &Config) -> Self {
        Self::new(&config.redaction)
    }
}

fn text_of(part: &Part) -> Option<&String> {
    match part {
        Part::Text(text) => Some(text),
        Part::Thinking(_) | Part::ToolCall(_) | Part::Opaque(_) | Part::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests;
