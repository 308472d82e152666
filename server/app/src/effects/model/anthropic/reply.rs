//! A reply of the Messages API, put together from its stream.
//!
//! Boundary: events in, parts out. Invariants: blocks keep their order; one that is not known is
//! kept as it came; the reply is whole only once `message_stop` was seen, and usage counts only
//! once its final figures were, of a reply that broke off only with the reason why it stopped.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use eventsource_stream::Event;
use loopwright_core::{
    message::{CallPart, Opaque, Part},
    outcome::{ModelFailureKind, StopReason},
    usage::Usage,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::NAME;
use crate::effects::{
    model::{
        failure::{Complaint, Fault, count},
        protocol::{Reader, Said, thinking},
        reply::{MAX_BLOCKS, Meter, malformed},
    },
    progress::ProgressSink,
};

/// The state of a reply while its stream runs.
#[derive(Debug, Default)]
pub(in crate::effects::model) struct Replying {
    response_id: Option<String>,
    blocks: BTreeMap<u64, Block>,
    stop: Option<String>,
    counts: Counts,
    counted: bool,
    begun: bool,
    done: bool,
    meter: Meter,
}

#[derive(Debug)]
enum Block {
    Text(String),
    Thinking {
        text: String,
        signature: String,
    },
    ToolUse {
        id: String,
        name: String,
        start: Option<String>,
        json: String,
    },
    Other {
        start: String,
        merged: Option<Map<String, Value>>,
        json: String,
    },
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    index: Option<u64>,
    message: Option<Start>,
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Start {
    id: Option<String>,
    usage: Option<Counts>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    #[serde(deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<u64>,
    cache_creation: Option<Creation>,
}

/// Cache writes by how long they are kept; the whole of them is `cache_creation_input_tokens`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Creation {
    #[serde(deserialize_with = "count")]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    ephemeral_1h_input_tokens: Option<u64>,
}

/// Members of a block's start and of its deltas; which of them are there depends on the type.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Piece<'a> {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    name: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    partial_json: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Stop {
    stop_reason: Option<String>,
}

impl Reader for Replying {
    fn event(&mut self, event: &Event, sink: &mut ProgressSink) -> Result<bool, Fault> {
        let wire: Wire<'_> = read(&event.data)?;
        match &*wire.kind {
            "message_start" => {
                self.begun = true;
                if let Some(start) = wire.message {
                    self.response_id = start.id;
                    self.counts.update(start.usage.unwrap_or_default());
                }
            }
            "content_block_start" => self.start(&wire, sink)?,
            "content_block_delta" => self.delta(&wire, sink)?,
            "message_delta" => {
                if let Some(delta) = wire.delta {
                    let stop: Stop = read(delta.get())?;
                    self.stop = stop.stop_reason.or(self.stop.take());
                }
                let counts = wire.usage.unwrap_or_default();
                self.counted |= counts.output_tokens.is_some();
                self.counts.update(counts);
            }
            "message_stop" => self.done = true,
            "error" => return Err(self.refused(&event.data)),
            // `ping`, `content_block_stop`, and what later versions of the API add.
            _ => {}
        }
        Ok(self.done)
    }

    fn finish(self: Box<Self>) -> Result<Said, Fault> {
        if !self.done {
            let text = "the stream ended before its end marker, message_stop";
            return Err(Fault {
                usage: self.final_usage(),
                ..Fault::new(ModelFailureKind::Cut, text)
            });
        }
        let usage = self.usage();
        let parts: Vec<Part> = self.blocks.into_values().filter_map(Block::part).collect();
        Ok(Said {
            parts: Arc::new(parts),
            stop: stop_reason(self.stop),
            usage,
            response_id: self.response_id,
        })
    }
}

impl Replying {
    fn start(&mut self, wire: &Wire<'_>, sink: &mut ProgressSink) -> Result<(), Fault> {
        let (Some(index), Some(raw)) = (wire.index, wire.content_block) else {
            return Err(malformed("content_block_start names no index or no block"));
        };
        self.meter.take(raw.get().len())?;
        let piece: Piece<'_> = read(raw.get())?;
        let block = match piece.kind.as_str() {
            "text" => Block::Text(shown(piece.text, |text| sink.text(text))),
            "thinking" => Block::Thinking {
                text: shown(piece.thinking, |text| sink.thinking(text)),
                signature: piece.signature.unwrap_or_default(),
            },
            "tool_use" => Block::ToolUse {
                id: piece.id.unwrap_or_default(),
                name: piece.name.unwrap_or_default(),
                start: piece.input.map(|input| input.get().to_owned()),
                json: String::new(),
            },
            _ => Block::Other {
                start: raw.get().to_owned(),
                merged: None,
                json: String::new(),
            },
        };
        if self.blocks.len() >= MAX_BLOCKS {
            return Err(Fault::new(
                ModelFailureKind::TooLarge,
                format!("the reply has more than {MAX_BLOCKS} blocks"),
            ));
        }
        if self.blocks.insert(index, block).is_some() {
            return Err(malformed(&format!("block {index} starts twice")));
        }
        Ok(())
    }

    fn delta(&mut self, wire: &Wire<'_>, sink: &mut ProgressSink) -> Result<(), Fault> {
        let (Some(index), Some(raw)) = (wire.index, wire.delta) else {
            return Err(malformed("content_block_delta names no index or no delta"));
        };
        let Some(block) = self.blocks.get_mut(&index) else {
            return Err(malformed(&format!(
                "block {index} goes on and never started"
            )));
        };
        let piece: Piece<'_> = read(raw.get())?;
        let known = !matches!(block, Block::Other { .. });
        self.meter.take(if known {
            piece.bytes()
        } else {
            raw.get().len()
        })?;
        match block {
            Block::Text(text) => text.push_str(&shown(piece.text, |text| sink.text(text))),
            Block::Thinking { text, signature } => {
                text.push_str(&shown(piece.thinking, |text| sink.thinking(text)));
                signature.push_str(&piece.signature.unwrap_or_default());
            }
            Block::ToolUse { json, .. } => json.push_str(&piece.partial_json.unwrap_or_default()),
            Block::Other {
                start,
                merged,
                json,
            } => {
                if merged.is_none() {
                    *merged = Some(read(start)?);
                }
                if let Some(members) = merged {
                    merge(members, json, read(raw.get())?);
                }
            }
        }
        Ok(())
    }

    fn refused(&self, text: &str) -> Fault {
        let complaint = Complaint::read(text);
        let usage = self.final_usage();
        let message = format!("an error inside the stream: {}", complaint.message);
        Fault {
            usage,
            ..Fault::new(complaint.kind_in_stream(self.begun), message)
        }
    }

    /// What was counted, where the reply's own tokens were.
    fn usage(&self) -> Option<Usage> {
        self.counts.usage().filter(|_| self.counted)
    }

    /// The same of a reply that broke off, where that was all of it.
    fn final_usage(&self) -> Option<Usage> {
        self.usage().filter(|_| self.stop.is_some())
    }
}

impl Piece<'_> {
    fn bytes(&self) -> usize {
        [
            &self.text,
            &self.thinking,
            &self.signature,
            &self.partial_json,
        ]
        .into_iter()
        .flatten()
        .map(String::len)
        .sum()
    }
}

impl Counts {
    /// Takes the later figures; null and absent ones change nothing.
    fn update(&mut self, later: Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.cache_creation_input_tokens = later
            .cache_creation_input_tokens
            .or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = later
            .cache_read_input_tokens
            .or(self.cache_read_input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_creation = later.cache_creation.or(self.cache_creation);
    }

    /// The figures; nothing where the prompt is not counted: one of 0 tokens in all is none.
    fn usage(self) -> Option<Usage> {
        let creation = self.cache_creation.unwrap_or_default();
        let (hour, minutes) = (
            creation.ephemeral_1h_input_tokens.unwrap_or(0),
            creation.ephemeral_5m_input_tokens.unwrap_or(0),
        );
        let split = hour.saturating_add(minutes);
        let cache_write = self.cache_creation_input_tokens.unwrap_or(split);
        let usage = Usage {
            input: self.input_tokens?,
            output: self.output_tokens.unwrap_or(0),
            cache_write,
            cache_read: self.cache_read_input_tokens.unwrap_or(0),
            cache_write_1h: hour.min(cache_write),
        };
        (usage.prompt() > 0).then_some(usage)
    }
}

impl Block {
    fn part(self) -> Option<Part> {
        match self {
            Self::Text(text) => (!text.is_empty()).then_some(Part::Text(text)),
            Self::Thinking { text, signature } => {
                thinking(text, Some(signature)).map(Part::Thinking)
            }
            Self::ToolUse {
                id,
                name,
                start,
                json,
            } => {
                let arguments = if json.trim().is_empty() {
                    start
                } else {
                    Some(json)
                };
                let arguments = arguments.unwrap_or_else(|| "{}".to_owned());
                Some(Part::ToolCall(CallPart {
                    provider_id: id,
                    tool: name,
                    arguments,
                }))
            }
            Self::Other {
                start,
                merged,
                json,
            } => {
                let json = match merged {
                    None => start,
                    Some(mut members) => {
                        if let Ok(input) = serde_json::from_str(&json) {
                            members.insert("input".to_owned(), input);
                        }
                        Value::Object(members).to_string()
                    }
                };
                Some(Part::Opaque(Opaque {
                    provider: NAME.to_owned(),
                    json,
                }))
            }
        }
    }
}

/// Adds a delta to a block that is not known: text goes on, a citation joins the others, pieces of
/// input are kept until the block ends, and whatever else is said takes its member's place.
fn merge(members: &mut Map<String, Value>, json: &mut String, delta: Map<String, Value>) {
    for (name, value) in delta {
        match (name.as_str(), value) {
            ("type", _) => {}
            ("partial_json", Value::String(piece)) => json.push_str(&piece),
            ("citation", value) => {
                let all = members
                    .entry("citations")
                    .or_insert_with(|| Value::Array(Vec::new()));
                match all {
                    Value::Array(all) => all.push(value),
                    other => *other = Value::Array(vec![value]),
                }
            }
            (_, Value::String(piece)) => match members.get_mut(&name) {
                Some(Value::String(text)) => text.push_str(&piece),
                _ => {
                    members.insert(name, Value::String(piece));
                }
            },
            (_, value) => {
                members.insert(name, value);
            }
        }
    }
}

fn stop_reason(word: Option<String>) -> StopReason {
    match word.as_deref() {
        Some("end_turn") => StopReason::EndTurn,
        Some("tool_use") => StopReason::ToolUse,
        Some("max_tokens") => StopReason::MaxTokens,
        Some("stop_sequence") => StopReason::StopSequence,
        Some("refusal") => StopReason::Refusal,
        Some("pause_turn") => StopReason::Pause,
        Some("model_context_window_exceeded") => StopReason::ContextFull,
        other => StopReason::Other(other.unwrap_or("none").to_owned()),
    }
}

fn shown(piece: Option<String>, show: impl FnOnce(&str)) -> String {
    let piece = piece.unwrap_or_default();
    if !piece.is_empty() {
        show(&piece);
    }
    piece
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|e| malformed(&format!("an event cannot be read: {e}")))
}
