//! A model whose replies are written down in a script.
//!
//! Boundary: no network. Invariant: the reply follows from the request alone, never from what this
//! process has seen, so that a crash, a retry and a replay get the same one.

use std::{sync::Arc, time::Duration};

use loopwright_core::{
    message::{CallPart, Part, clamp, content_bytes, text_of},
    outcome::{ModelFailure, ModelFailureKind, ModelReply, StopReason},
    prompt::ModelRequest,
    state::Turn,
    usage::Usage,
};
use tokio::time::{Instant, sleep};

use super::{
    failure::{Complaint, Fault},
    protocol::thinking,
    reply::check_size,
    script::{Fail, Script, ScriptTurn, Tokenizer, Values},
    target::Target,
};
use crate::effects::progress::ProgressSink;

/// Makes the scripted reply to `request`.
pub(super) async fn run(
    target: Arc<Target>,
    script: Arc<Script>,
    request: ModelRequest,
    mut sink: ProgressSink,
) -> Result<ModelReply, ModelFailure> {
    let started = Instant::now();
    let failed = |mut fault: Fault| {
        fault.message = format!(
            "model `{}` (scripted): {}",
            target.model.alias, fault.message
        );
        fault.into_failure(&[], target.redaction, String::new())
    };
    let said = request.conversation.turns();
    let number = request.conversation.replies();
    let Some(turn) = script.turn(number) else {
        let text = format!(
            "the script has {} replies, and this is number {}; add turns to it, or `at_end: repeat`",
            script.replies(),
            number + 1
        );
        return Err(failed(Fault::new(ModelFailureKind::InvalidRequest, text)));
    };
    sleep(Duration::from_millis(turn.delay_ms)).await;
    if let Some(fail) = &turn.fail
        && fail.times.is_none_or(|times| request.attempt <= times)
    {
        return Err(failed(fault(fail)));
    }
    let values = values(&said, number + 1);
    let reply = Reply::new(turn, &values, (&request, script.tokenizer), &target);
    check_size(&reply.parts).map_err(failed)?;
    stream(turn, &reply.parts, &mut sink).await;
    Ok(ModelReply {
        parts: Arc::new(reply.parts),
        stop: reply.stop,
        usage: reply.usage,
        response_id: None,
        body_crc: String::new(),
        latency_ms: millis(started.elapsed()),
        first_token_ms: sink.first_at().map(|at| millis(at - started)),
        cost_micro_usd: reply.usage.as_ref().and_then(|usage| target.cost(usage)),
        verdicts: Vec::new(),
    })
}

struct Reply {
    parts: Vec<Part>,
    stop: StopReason,
    usage: Option<Usage>,
}

impl Reply {
    fn new(
        turn: &ScriptTurn,
        values: &Values,
        (request, tokenizer): (&ModelRequest, Tokenizer),
        target: &Target,
    ) -> Self {
        let mut parts = Vec::new();
        let thought = turn
            .thinking
            .as_deref()
            .map(|text| values.fill(text))
            .unwrap_or_default();
        parts.extend(thinking(thought, None).map(Part::Thinking));
        let text = turn
            .text
            .as_deref()
            .map(|text| values.fill(text))
            .unwrap_or_default();
        // The script says something: where a name stood for nothing, one character keeps the place.
        let blank = text.is_empty() && turn.tool_calls.is_empty();
        let text = if blank { "-".to_owned() } else { text };
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        for (at, call) in turn.tool_calls.iter().enumerate() {
            let id = call
                .id
                .clone()
                .unwrap_or_else(|| format!("call_{}_{at}", values.turn));
            parts.push(Part::ToolCall(CallPart {
                provider_id: id,
                tool: call.tool.clone(),
                arguments: call.arguments(values),
            }));
        }
        let stop = turn.stop_reason();
        if turn.no_usage {
            return Self {
                parts,
                stop,
                usage: None,
            };
        }
        if let Some(given) = turn.usage {
            let usage = Usage {
                input: given.input,
                output: given.output,
                cache_write: given.cache_write,
                cache_read: given.cache_read,
                cache_write_1h: 0,
            };
            return Self {
                parts,
                stop,
                usage: Some(usage),
            };
        }
        Self {
            parts,
            stop,
            usage: None,
        }
        .counted(request, tokenizer, target.cap(request.max_output_tokens))
    }

    /// Counts the tokens, and cuts what is over the cap.
    fn counted(mut self, request: &ModelRequest, tokenizer: Tokenizer, cap: u64) -> Self {
        let prompt = request
            .conversation
            .bytes()
            .saturating_add(request.tools.content_bytes())
            .saturating_add(request.agent.system_prompt.len() as u64);
        let bytes: u64 = self.parts.iter().map(content_bytes).sum();
        let mut output = bytes.div_ceil(tokenizer.bytes_per_token);
        if output > cap {
            let most = usize::try_from(cap.saturating_mul(tokenizer.bytes_per_token))
                .unwrap_or(usize::MAX);
            let text = text_of(&self.parts);
            let kept = clamp(&text, most);
            self.parts = if kept.is_empty() {
                vec![]
            } else {
                vec![Part::Text(kept.to_owned())]
            };
            self.stop = StopReason::MaxTokens;
            output = cap;
        }
        let messages = request.conversation.len() as u64;
        let input = prompt.div_ceil(tokenizer.bytes_per_token)
            + tokenizer.prompt
            + tokenizer.message.saturating_mul(messages);
        self.usage = Some(Usage {
            input,
            output,
            ..Usage::default()
        });
        self
    }
}

/// What the names in the script's texts stand for.
fn values(said: &[Arc<Turn>], turn: u64) -> Values {
    let results = said.iter().rev().find_map(|turn| match &**turn {
        Turn::Results(all) => Some(all.iter().map(|r| r.output.text.clone()).collect()),
        Turn::User(_) | Turn::Assistant { .. } => None,
    });
    let user = said.iter().rev().find_map(|turn| match &**turn {
        Turn::User(parts) => Some(text_of(parts)),
        Turn::Results(_) | Turn::Assistant { .. } => None,
    });
    Values {
        results: results.unwrap_or_default(),
        user: user.unwrap_or_default(),
        turn,
    }
}

fn fault(fail: &Fail) -> Fault {
    let message = fail.message.clone().unwrap_or_default();
    let kind = match (fail.kind, fail.status) {
        (Some(kind), _) => kind,
        (None, status) => Complaint {
            message: message.clone(),
            ..Complaint::default()
        }
        .kind(status.unwrap_or(500)),
    };
    let message = match (message.is_empty(), fail.status) {
        (false, _) => message,
        (true, Some(status)) => format!("the script answers {status} here"),
        (true, None) => "the script fails here".to_owned(),
    };
    Fault {
        retry_after_ms: fail.retry_after_ms,
        http_status: fail.status.unwrap_or(0),
        ..Fault::new(kind, message)
    }
}

async fn stream(turn: &ScriptTurn, parts: &[Part], sink: &mut ProgressSink) {
    if let Some(Part::Thinking(thought)) = parts.first() {
        sink.thinking(&thought.text);
    }
    let text = text_of(parts);
    let Some(chunk) = turn.chunk else {
        return sink.text(&text);
    };
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest
            .char_indices()
            .nth(chunk.chars)
            .map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        sink.text(piece);
        rest = after;
        if !rest.is_empty() && chunk.delay_ms > 0 {
            sink.flush();
            sleep(Duration::from_millis(chunk.delay_ms)).await;
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
