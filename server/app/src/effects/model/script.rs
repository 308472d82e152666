//! Scripts: what a scripted model says, turn by turn, written down in YAML or JSON.
//!
//! Boundary: text in, checked turns out; a problem names the file, the line and the way out. This
//! is what users test their agents with.
//!
//! ```yaml
//! at_end: fail                 # or `repeat`: begin anew; default fail
//! tokenizer: {bytes_per_token: 4, prompt: 0, message: 0}
//! turns:                       # the file may also be this list alone
//!   - text: I look at the notes.
//!     tool_calls:
//!       - tool: files__read
//!         arguments: {path: notes.txt}
//!   - text: "They say: {{last_result}}"
//!     chunk: {chars: 8, delay_ms: 20}
//! ```
//!
//! **Which turn is taken** follows from the conversation alone: the model's n-th reply of a session
//! is the n-th turn (a turn with `repeat: 3` counts as three). So a crash or a retry gets the same
//! turn again, and a second loop of a session goes on where the first one ended.
//!
//! A turn has:
//! - `text`, `thinking`: what is said and thought.
//! - `tool_calls`: a list of `tool` (the name on the wire, `<sidecar>__<tool>`), `arguments` (an
//!   object; a string is sent as it stands, so that arguments that are no JSON can be tried) and
//!   `id`.
//! - `stop`: `end_turn`, `tool_use`, `max_tokens`, `refusal`, `content_filter`, `context_full`,
//!   `stop_sequence`, `pause`; any other word is passed on as one that is not known. By default
//!   `tool_use` with tool calls, else `end_turn`.
//! - `usage`: `input`, `output`, `cache_write`, `cache_read`. By default it is counted: a token for
//!   each `tokenizer.bytes_per_token` bytes of prompt and reply, and `tokenizer.prompt` and
//!   `tokenizer.message` tokens for each prompt and each message of it; a text over the call's output
//!   cap is then cut as a provider would cut it. `no_usage: true` reports none.
//! - `delay_ms`: before the reply begins. `chunk`: text in pieces of `chars`, `delay_ms` between.
//! - `fail`: `status` (what a provider answers with it) or `kind` (`rate_limited`, `overloaded`,
//!   `server`, `try_again`, `connect`, `cut`, `stalled`, `malformed`, `too_large`,
//!   `context_too_long`, `quota`, `auth`, `no_such_model`, `invalid_request`), `message`,
//!   `retry_after_ms`, and `times`: the attempts of the call that fail (absent: all of them).
//! - `repeat`: so many replies with this turn; default 1.
//!
//! In `text` and inside `arguments` stand `{{last_result}}` for the text of the last tool result,
//! `{{result.N}}` for the N-th one (from 0) of the last step, `{{last_user}}` for the last message
//! of the user, `{{turn}}` for the number of the reply, from 1.

use std::path::Path;

use loopwright_core::outcome::{ModelFailureKind, StopReason};
use schemars::JsonSchema;
use serde::Deserialize;

mod template;

pub(super) use template::Values;

/// Largest script, bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Turns in a script.
const MAX_TURNS: usize = 10_000;
/// Most tokens round a prompt or a message.
const MAX_OVERHEAD: u64 = 1_000_000;
/// Longest delay, milliseconds.
const MAX_DELAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Why a script cannot be used: the file, the place in it, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the script {name} cannot be used: {problem}")]
pub struct ScriptError {
    /// The file, or the alias of an embedded one.
    pub name: String,
    /// What is wrong, with the line where it is known.
    pub problem: String,
}

/// A checked script.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    at_end: AtEnd,
    /// How replies are counted that say nothing of it.
    pub(super) tokenizer: Tokenizer,
    turns: Vec<ScriptTurn>,
    /// For each turn the number of the reply that follows its last one.
    ends: Vec<u64>,
}

/// A script as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// What happens after the last turn.
    #[serde(default)]
    at_end: AtEnd,
    /// How replies are counted that name no usage.
    #[serde(default)]
    tokenizer: Tokenizer,
    /// The replies, in order.
    turns: Vec<ScriptTurn>,
}

/// What a script does after its last turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AtEnd {
    /// The call fails, for good.
    #[default]
    Fail,
    /// It begins anew.
    Repeat,
}

/// How tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tokenizer {
    /// Bytes that count as a token, 1 to 64; default 4.
    #[schemars(range(min = 1, max = 64))]
    pub(super) bytes_per_token: u64,
    /// Tokens round each prompt, at most 1,000,000; default 0.
    #[schemars(range(max = 1_000_000))]
    pub(super) prompt: u64,
    /// Tokens round each message of a prompt, at most 1,000,000; default 0.
    #[schemars(range(max = 1_000_000))]
    pub(super) message: u64,
}

/// One reply.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScriptTurn {
    /// What is said.
    pub(super) text: Option<String>,
    /// What is thought before.
    pub(super) thinking: Option<String>,
    /// The tools that are asked for.
    pub(super) tool_calls: Vec<ScriptCall>,
    /// Why the reply stops.
    pub(super) stop: Option<String>,
    /// What is counted.
    pub(super) usage: Option<ScriptUsage>,
    /// Whether no usage is reported.
    pub(super) no_usage: bool,
    /// Wait before the reply, milliseconds.
    pub(super) delay_ms: u64,
    /// How the text is streamed; absent: in one piece.
    pub(super) chunk: Option<Chunk>,
    /// How the call fails instead.
    pub(super) fail: Option<Fail>,
    /// Replies with this turn.
    #[schemars(range(min = 1))]
    repeat: Option<u32>,
}

/// One tool call of a reply.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptCall {
    /// The tool's name on the wire.
    pub(super) tool: String,
    /// Its arguments: an object, or the text to send.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    arguments: serde_yaml::Value,
    /// The provider's id of the call.
    #[serde(default)]
    pub(super) id: Option<String>,
}

/// Tokens of a reply, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScriptUsage {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_write: u64,
    pub(super) cache_read: u64,
}

/// How a text is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Chunk {
    /// Characters in a piece, at least 1.
    #[schemars(range(min = 1))]
    pub(super) chars: usize,
    /// Wait between two pieces, milliseconds.
    #[serde(default)]
    pub(super) delay_ms: u64,
}

/// How a call fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fail {
    /// In the way that a provider means by this HTTP status.
    pub(super) status: Option<u16>,
    /// In this way.
    #[schemars(with = "Option<String>")]
    pub(super) kind: Option<ModelFailureKind>,
    /// In these words.
    pub(super) message: Option<String>,
    /// The wait that is asked for, milliseconds.
    pub(super) retry_after_ms: Option<u64>,
    /// Attempts of the call that fail; absent: all.
    pub(super) times: Option<u32>,
}

impl Script {
    /// Reads a script from a file.
    ///
    /// # Errors
    /// The file cannot be read, is too long, or is no script: the text says where.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(e) => Err(ScriptError {
                name,
                problem: format!("it cannot be read: {e}"),
            }),
        }
    }

    /// Reads a script from text; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        let failed = |problem: String| ScriptError {
            name: name.to_owned(),
            problem,
        };
        if text.len() > MAX_BYTES {
            return Err(failed(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let content = text.lines().map(str::trim_start);
        let first = content
            .clone()
            .find(|l| !l.is_empty() && !l.starts_with('#') && *l != "---");
        let listed = first.is_some_and(|line| line.starts_with('-') || line.starts_with('['));
        let written = if listed {
            let turns = serde_yaml::from_str(text).map_err(|e| failed(e.to_string()))?;
            Written {
                at_end: AtEnd::Fail,
                tokenizer: Tokenizer::default(),
                turns,
            }
        } else {
            serde_yaml::from_str(text).map_err(|e| failed(e.to_string()))?
        };
        Self::check(written).map_err(failed)
    }

    /// The JSON Schema of a script, for editors.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Written).to_value()
    }

    /// The turn of the reply with this number, from 0.
    pub(super) fn turn(&self, number: u64) -> Option<&ScriptTurn> {
        let replies = self.replies();
        let number = match self.at_end {
            AtEnd::Repeat => number % replies,
            AtEnd::Fail => number,
        };
        self.turns
            .get(self.ends.partition_point(|&end| end <= number))
    }

    /// How many replies it holds.
    pub(super) fn replies(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn check(written: Written) -> Result<Self, String> {
        let Written {
            at_end,
            tokenizer,
            turns,
        } = written;
        tokenizer.check()?;
        if turns.is_empty() || turns.len() > MAX_TURNS {
            return Err(format!(
                "it has {} turns; it takes 1 to {MAX_TURNS}",
                turns.len()
            ));
        }
        let mut ends = Vec::with_capacity(turns.len());
        let mut end = 0;
        for (at, turn) in turns.iter().enumerate() {
            turn.check()
                .map_err(|problem| format!("turns[{at}]: {problem}"))?;
            end += u64::from(turn.repeat.unwrap_or(1));
            ends.push(end);
        }
        Ok(Self {
            at_end,
            tokenizer,
            turns,
            ends,
        })
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self {
            bytes_per_token: 4,
            prompt: 0,
            message: 0,
        }
    }
}

impl Tokenizer {
    fn check(self) -> Result<(), String> {
        if !(1..=64).contains(&self.bytes_per_token) {
            let given = self.bytes_per_token;
            return Err(format!(
                "tokenizer.bytes_per_token is {given}; it takes 1 to 64"
            ));
        }
        if self.prompt.max(self.message) > MAX_OVERHEAD {
            return Err(format!(
                "tokenizer.prompt and tokenizer.message take at most {MAX_OVERHEAD}"
            ));
        }
        Ok(())
    }
}

impl ScriptTurn {
    /// Why the reply stops.
    pub(super) fn stop_reason(&self) -> StopReason {
        let default = if self.tool_calls.is_empty() {
            "end_turn"
        } else {
            "tool_use"
        };
        match self.stop.as_deref().unwrap_or(default) {
            "end_turn" => StopReason::EndTurn,
            "tool_use" => StopReason::ToolUse,
            "max_tokens" => StopReason::MaxTokens,
            "stop_sequence" => StopReason::StopSequence,
            "refusal" => StopReason::Refusal,
            "content_filter" => StopReason::ContentFilter,
            "context_full" => StopReason::ContextFull,
            "pause" => StopReason::Pause,
            other => StopReason::Other(other.to_owned()),
        }
    }

    fn check(&self) -> Result<(), String> {
        let says = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let fails_for_good = self.fail.as_ref().is_some_and(|fail| fail.times.is_none());
        if !says(&self.text) && self.tool_calls.is_empty() && !fails_for_good {
            // Without a reply the conversation stays as it is, and the turn would come for ever.
            return Err("it says nothing: give it text, tool_calls, or fail".to_owned());
        }
        if self.repeat == Some(0) {
            return Err("repeat is 0; leave the turn out instead".to_owned());
        }
        let chunk_delay = self.chunk.map_or(0, |chunk| chunk.delay_ms);
        if self.delay_ms.max(chunk_delay) > MAX_DELAY_MS {
            return Err(format!(
                "a delay is longer than {MAX_DELAY_MS} ms, which is a day"
            ));
        }
        if self.chunk.is_some_and(|chunk| chunk.chars == 0) {
            return Err("chunk.chars is 0; a piece has at least 1 character".to_owned());
        }
        if self.usage.is_some() && self.no_usage {
            return Err("usage does nothing beside no_usage; leave one of them out".to_owned());
        }
        if let Some(fail) = &self.fail {
            fail.check()?;
        }
        for text in [&self.text, &self.thinking].into_iter().flatten() {
            template::check(text)?;
        }
        self.tool_calls.iter().try_for_each(ScriptCall::check)
    }
}

impl ScriptCall {
    /// The arguments, with what `values` know put in: JSON text, unless the script says otherwise.
    pub(super) fn arguments(&self, values: &Values) -> String {
        match &self.arguments {
            serde_yaml::Value::Null => "{}".to_owned(),
            serde_yaml::Value::String(text) => values.fill(text),
            other => serde_json::to_string(&template::fill_all(other, values))
                .expect("checked when the script was read"),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.tool.is_empty() {
            return Err("a tool call names no tool".to_owned());
        }
        template::check_all(&self.arguments)?;
        match serde_json::to_string(&self.arguments) {
            Ok(_) => Ok(()),
            Err(e) => Err(format!("the arguments of {} are no JSON: {e}", self.tool)),
        }
    }
}

impl Fail {
    fn check(&self) -> Result<(), String> {
        match (self.status, self.kind) {
            (Some(status), None) if !(300..600).contains(&status) => {
                Err(format!("fail.status is {status}; a failure has 300 to 599"))
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
            (Some(_), Some(_)) => Err("fail has both status and kind; give one".to_owned()),
            (None, None) => Err("fail names neither status nor kind".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
