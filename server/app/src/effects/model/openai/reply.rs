//! A reply of chat completions, put together from its chunks.
//!
//! Boundary: events in, parts out. Invariants: tool calls are told apart by their index, and by
//! their id where a server gives every one the same index or none; the reply is whole once
//! `[DONE]` came, or a reason to stop did and the stream then ended; usage is the last that was
//! sent, and counts only where it came with the reason to stop or after it: some servers count along.

use std::sync::Arc;

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
        reply::{MAX_BLOCKS, Meter, malformed, too_large},
    },
    progress::ProgressSink,
};

/// The state of a reply while its stream runs.
#[derive(Debug, Default)]
pub(in crate::effects::model) struct Replying {
    response_id: Option<String>,
    thought: String,
    text: String,
    refused: bool,
    calls: Vec<Call>,
    stop: Option<String>,
    usage: Option<Usage>,
    /// Whether that was sent once a reason to stop was.
    counted_last: bool,
    begun: bool,
    done: bool,
    meter: Meter,
}

#[derive(Debug, Default)]
struct Call {
    index: u64,
    id: String,
    name: String,
    arguments: String,
    own: Map<String, Value>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    id: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Counts>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u64>,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<Content>,
    // Two names for one thing: DeepSeek's and llama.cpp's, and OpenRouter's and vLLM's.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<ContentBlock>),
}

#[derive(Deserialize)]
struct ContentBlock {
    text: Option<String>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<u64>,
    id: Option<String>,
    #[serde(rename = "type")]
    _kind: Option<Value>,
    function: Option<Function>,
    #[serde(flatten)]
    own: Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    #[serde(deserialize_with = "count")]
    prompt_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    // DeepSeek's name for the same.
    #[serde(deserialize_with = "count")]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(deserialize_with = "count")]
    cached_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_write_tokens: Option<u64>,
}

impl Reader for Replying {
    fn event(&mut self, event: &Event, sink: &mut ProgressSink) -> Result<bool, Fault> {
        if event.data.trim() == "[DONE]" {
            self.done = true;
            return Ok(true);
        }
        let chunk: Chunk<'_> = serde_json::from_str(&event.data)
            .map_err(|e| malformed(&format!("a chunk cannot be read: {e}")))?;
        if chunk.error.is_some_and(|error| error.get() != "null") {
            return Err(self.complained(&event.data));
        }
        self.response_id = self.response_id.take().or(chunk.id);
        for choice in chunk.choices.unwrap_or_default() {
            if choice.index.unwrap_or(0) == 0 {
                self.choice(choice, sink)?;
            }
        }
        if let Some(usage) = chunk.usage.and_then(Counts::usage) {
            self.usage = Some(usage);
            self.counted_last = self.stop.is_some();
        }
        Ok(false)
    }

    fn finish(self: Box<Self>) -> Result<Said, Fault> {
        let fault = |kind, text: &str| Fault {
            usage: self.final_usage(),
            ..Fault::new(kind, text)
        };
        if !self.done && self.stop.is_none() {
            let text = "the stream ended before its end marker, [DONE]";
            return Err(fault(ModelFailureKind::Cut, text));
        }
        if self.stop.is_none() && !self.begun {
            return Err(fault(
                ModelFailureKind::Malformed,
                "the reply holds no choice",
            ));
        }
        if self.stop.as_deref() == Some("error") {
            return Err(fault(
                ModelFailureKind::Server,
                "the provider broke off the reply",
            ));
        }
        let usage = self
            .usage
            .filter(|_| self.counted_last || self.stop.is_none());
        let stop = stop_reason(self.stop, self.refused);
        let mut parts: Vec<Part> = Vec::new();
        parts.extend(thinking(self.thought, None).map(Part::Thinking));
        if !self.text.is_empty() {
            parts.push(Part::Text(self.text));
        }
        let mut calls = self.calls;
        calls.sort_by_key(|call| call.index);
        for call in calls {
            call.push(&mut parts);
        }
        Ok(Said {
            parts: Arc::new(parts),
            stop,
            usage,
            response_id: self.response_id,
        })
    }
}

impl Replying {
    fn choice(&mut self, choice: Choice, sink: &mut ProgressSink) -> Result<(), Fault> {
        self.begun = true;
        self.stop = choice
            .finish_reason
            .filter(|word| !word.is_empty())
            .or(self.stop.take());
        let Some(delta) = choice.delta else {
            return Ok(());
        };
        let thought = delta
            .reasoning_content
            .or(delta.reasoning)
            .unwrap_or_default();
        if !thought.is_empty() {
            self.meter.take(thought.len())?;
            sink.thinking(&thought);
            self.thought.push_str(&thought);
        }
        let refusal = delta.refusal.unwrap_or_default();
        self.refused |= !refusal.is_empty();
        let text = match delta.content {
            Some(Content::Text(text)) => text,
            Some(Content::Blocks(blocks)) => blocks.into_iter().filter_map(|b| b.text).collect(),
            None => String::new(),
        };
        for text in [text, refusal].iter().filter(|text| !text.is_empty()) {
            self.meter.take(text.len())?;
            sink.text(text);
            self.text.push_str(text);
        }
        delta
            .tool_calls
            .unwrap_or_default()
            .into_iter()
            .try_for_each(|call| self.call(call))
    }

    fn call(&mut self, delta: CallDelta) -> Result<(), Fault> {
        let id = delta.id.unwrap_or_default();
        let function = delta.function.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let arguments = match function.arguments {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            // Some servers send the object itself.
            Some(other) => other.to_string(),
        };
        let own: Map<String, Value> = delta
            .own
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        let own_bytes: usize = own
            .iter()
            .map(|(n, value)| n.len() + value.to_string().len())
            .sum();
        self.meter
            .take(id.len() + name.len() + arguments.len() + own_bytes)?;
        let at = match delta.index {
            Some(index) => self.calls.iter().rposition(|call| call.index == index),
            None => self.calls.len().checked_sub(1),
        };
        // A name beside another id begins another call, whatever the index says.
        let at = at.filter(|&at| {
            let call = &self.calls[at];
            name.is_empty() || id.is_empty() || call.id.is_empty() || call.id == id
        });
        let call = match at {
            Some(at) => &mut self.calls[at],
            None => self.begin(delta.index)?,
        };
        if call.id.is_empty() {
            call.id = id;
        }
        if call.name.is_empty() {
            call.name = name;
        }
        call.arguments.push_str(&arguments);
        call.own.extend(own);
        Ok(())
    }

    fn begin(&mut self, index: Option<u64>) -> Result<&mut Call, Fault> {
        if self.calls.len() >= MAX_BLOCKS {
            return Err(too_large(usize::MAX));
        }
        let index = index.unwrap_or(self.calls.len() as u64);
        self.calls.push(Call {
            index,
            ..Call::default()
        });
        Ok(self.calls.last_mut().expect("a call was just added"))
    }

    fn complained(&self, text: &str) -> Fault {
        let complaint = Complaint::read(text);
        let message = format!("an error inside the stream: {}", complaint.message);
        let kind = complaint.kind_in_stream(self.begun);
        Fault {
            usage: self.final_usage(),
            ..Fault::new(kind, message)
        }
    }

    /// What was counted of a reply that broke off, where that was all of it.
    fn final_usage(&self) -> Option<Usage> {
        self.usage.filter(|_| self.counted_last)
    }
}

impl Call {
    fn push(self, parts: &mut Vec<Part>) {
        let blank = self.arguments.trim().is_empty();
        parts.push(Part::ToolCall(CallPart {
            provider_id: self.id,
            tool: self.name,
            arguments: if blank {
                "{}".to_owned()
            } else {
                self.arguments
            },
        }));
        if !self.own.is_empty() {
            let json = Value::Object(self.own).to_string();
            parts.push(Part::Opaque(Opaque {
                provider: NAME.to_owned(),
                json,
            }));
        }
    }
}

impl Counts {
    /// The figures in classes that do not overlap: the API counts cached tokens as prompt tokens
    /// too. Nothing where the prompt's or the reply's own tokens are not counted: a prompt of 0 is
    /// none.
    fn usage(self) -> Option<Usage> {
        let output = self.completion_tokens?;
        let details = self.prompt_tokens_details.unwrap_or_default();
        let prompt = self.prompt_tokens.filter(|prompt| *prompt > 0)?;
        let cache_read = details
            .cached_tokens
            .or(self.prompt_cache_hit_tokens)
            .unwrap_or(0);
        let cache_read = cache_read.min(prompt);
        let cache_write = details
            .cache_write_tokens
            .unwrap_or(0)
            .min(prompt - cache_read);
        Some(Usage {
            input: prompt - cache_read - cache_write,
            output,
            cache_write,
            cache_read,
            cache_write_1h: 0,
        })
    }
}

fn stop_reason(word: Option<String>, refused: bool) -> StopReason {
    match word.as_deref() {
        _ if refused => StopReason::Refusal,
        Some("stop" | "eos") => StopReason::EndTurn,
        Some("tool_calls" | "function_call") => StopReason::ToolUse,
        Some("length" | "max_tokens") => StopReason::MaxTokens,
        Some("model_length") => StopReason::ContextFull,
        Some("content_filter") => StopReason::ContentFilter,
        other => StopReason::Other(other.unwrap_or("none").to_owned()),
    }
}
