//! The two protocols that models are spoken to in, behind one set of verbs.
//!
//! Boundary: core's words in, bytes out; a provider's events in, core's words out. Knows no HTTP.

use eventsource_stream::Event;
use loopwright_core::{
    message::{BlobPart, Parts, Thinking},
    outcome::StopReason,
    prompt::ModelRequest,
    state::Turn,
    usage::Usage,
};
use serde_json::value::RawValue;

use super::{
    anthropic,
    failure::Fault,
    json::{self, Members},
    openai,
    transcript::Head,
};
use crate::effects::progress::ProgressSink;

/// How a provider is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The Messages API.
    Anthropic,
    /// Chat completions.
    OpenAi,
}

/// A whole reply, as a reader put it together.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) parts: Parts,
    pub(super) stop: StopReason,
    pub(super) usage: Option<Usage>,
    pub(super) response_id: Option<String>,
}

/// Puts a reply together from the events of its stream.
pub(super) trait Reader: Send {
    /// Takes the next event; true once the reply has come to its end.
    fn event(&mut self, event: &Event, sink: &mut ProgressSink) -> Result<bool, Fault>;

    /// The reply, once it has come to its end or the stream has.
    fn finish(self: Box<Self>) -> Result<Said, Fault>;
}

/// Members of a request that `provider_options` may not set, since the loop depends on them.
const OURS: [&str; 9] = [
    "cache_control",
    "model",
    "messages",
    "system",
    "tools",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "n",
];

impl Protocol {
    /// Everything before the messages.
    pub(super) fn head(self, id: &str, request: &ModelRequest) -> Result<Head, String> {
        match self {
            Self::Anthropic => anthropic::head(id, request),
            Self::OpenAi => openai::head(id, request),
        }
    }

    /// One turn: for each of its messages a comma and the message; nothing for a blank turn.
    pub(super) fn turn(self, out: &mut Vec<u8>, turn: &Turn) {
        match self {
            Self::Anthropic => anthropic::turn(out, turn),
            Self::OpenAi => openai::turn(out, turn),
        }
    }

    /// Where a `cache_control` member goes into a rendered turn of the user's side.
    pub(super) fn mark(self, turn: &[u8]) -> Option<usize> {
        match self {
            // The last block's brace, the array's bracket, the message's brace.
            Self::Anthropic => turn.len().checked_sub(3),
            Self::OpenAi => None,
        }
    }

    /// Everything behind the messages, with the options of the agent merged in. `completion_tokens`
    /// says what the output cap is called.
    pub(super) fn tail(
        self,
        completion_tokens: bool,
        max_output_tokens: u64,
        request: &ModelRequest,
    ) -> Result<Vec<u8>, String> {
        let mut members = match self {
            Self::Anthropic => anthropic::options(max_output_tokens, request)?,
            Self::OpenAi => openai::options(completion_tokens, max_output_tokens, request)?,
        };
        if let Some(options) = &request.agent.provider_options {
            merge(&mut members, options)?;
        }
        let mut out = b"]".to_vec();
        for (name, value) in &members {
            json::raw_member(&mut out, name, value.get());
        }
        out.push(b'}');
        Ok(out)
    }

    /// A reader for one reply.
    pub(super) fn reader(self) -> Box<dyn Reader> {
        match self {
            Self::Anthropic => Box::<anthropic::Replying>::default(),
            Self::OpenAi => Box::<openai::Replying>::default(),
        }
    }
}

/// Whether `options` can be merged into a request.
pub(super) fn check_options(options: &str) -> Result<(), String> {
    merge(&mut Members::new(), options)
}

fn merge(members: &mut Members, options: &str) -> Result<(), String> {
    let Some(options) = json::members(options) else {
        return Err("provider_options is no JSON object".to_owned());
    };
    for (name, value) in options {
        if OURS.contains(&name.as_str()) {
            return Err(format!(
                "provider_options sets `{name}`, which the loop sets itself; leave it out"
            ));
        }
        if value.get() == "null" {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    Ok(())
}

/// Adds a member from a value that surely is JSON.
pub(super) fn set(members: &mut Members, name: &str, json: String) {
    let value = RawValue::from_string(json).expect("the caller wrote JSON");
    members.insert(name.to_owned(), value);
}

/// Adds the members that both protocols have under one name.
pub(super) fn set_sampling(members: &mut Members, request: &ModelRequest) {
    let agent = &request.agent;
    for (name, value) in [("temperature", agent.temperature), ("top_p", agent.top_p)] {
        if let Some(value) = value.and_then(serde_json::Number::from_f64) {
            set(members, name, value.to_string());
        }
    }
    set(members, "stream", "true".to_owned());
}

/// The schema that the agent wants its result in, as JSON text.
pub(super) fn output_schema(request: &ModelRequest) -> Result<Option<&str>, String> {
    let Some(schema) = request.agent.output_schema.as_deref() else {
        return Ok(None);
    };
    if json::members(schema).is_none() {
        return Err("output_schema is no JSON object; it must be a JSON Schema".to_owned());
    }
    Ok(Some(schema.trim()))
}

/// A thinking part, where something was thought.
pub(super) fn thinking(text: String, signature: Option<String>) -> Option<Thinking> {
    let signature = signature.filter(|signature| !signature.is_empty());
    (!text.is_empty() || signature.is_some()).then_some(Thinking { text, signature })
}

/// What a model is told of content that is not in the log: a prompt never reads a blob.
pub(super) fn blob_note(blob: &BlobPart) -> String {
    let BlobPart {
        sha256,
        bytes,
        media_type,
    } = blob;
    format!("[attachment, {media_type}, {bytes} bytes, sha256 {sha256}: not shown]")
}
