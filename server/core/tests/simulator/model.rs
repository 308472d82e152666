//! A model that says anything: text, tool calls, cut replies, refusals, failures of every kind.

use std::sync::Arc;

use loopwright_core::{
    message::{CallPart, Part, text_of},
    outcome::{ModelFailure, ModelFailureKind, ModelReply, StopReason, Verdict},
    prompt::ModelRequest,
    state::Turn,
    usage::Usage,
};

use super::{
    plan::{Feature, Features},
    rng::Rng,
};

/// How a model call ends, and what it really consumed.
pub(crate) struct Spoken {
    pub(crate) outcome: Result<ModelReply, ModelFailure>,
    pub(crate) real: Usage,
}

/// Answers `request`.
pub(crate) fn speak(
    rng: &mut Rng,
    request: &ModelRequest,
    features: Features,
    overcounts: bool,
) -> Spoken {
    let mut real = split(rng, prompt_tokens(request));
    if rng.chance(18) && features.has(Feature::ModelFaults) {
        let failure = failure(rng);
        real.output = rng.between(0, request.max_output_tokens);
        if !failure.kind.may_have_run() {
            real = Usage::default();
        }
        let usage = failure.usage.map(|_| real);
        let failure = ModelFailure {
            usage,
            cost_micro_usd: usage.and_then(|usage| bill(rng, &usage)),
            ..failure
        };
        return Spoken {
            outcome: Err(failure),
            real,
        };
    }
    real.output = rng.between(1, request.max_output_tokens);
    let parts = if request.recap {
        recap(rng, request)
    } else {
        parts(rng)
    };
    let verdicts: Vec<Verdict> = parts.iter().filter_map(verdict).collect();
    let stop = stop(rng, verdicts.len(), features);
    if stop == StopReason::MaxTokens {
        real.output = request.max_output_tokens;
    }
    if overcounts && rng.chance(40) {
        real.output += 300;
    }
    let reply = ModelReply {
        parts: Arc::new(parts),
        stop,
        usage: (!rng.chance(15)).then_some(real),
        response_id: rng.chance(50).then(|| "x".to_owned()),
        body_crc: "00c0ffee".to_owned(),
        latency_ms: rng.between(0, 9),
        first_token_ms: None,
        cost_micro_usd: bill(rng, &real),
        verdicts,
    };
    Spoken {
        outcome: Ok(reply),
        real,
    }
}

/// What the provider asks for it, where it says so: never more than the dearest price of any model.
fn bill(rng: &mut Rng, real: &Usage) -> Option<u64> {
    rng.chance(70).then(|| real.prompt() + 5 * real.output)
}

/// One token a byte, and half of that for the second model: counts of one say nothing of the other.
fn prompt_tokens(request: &ModelRequest) -> u64 {
    let tokens = request.conversation.bytes()
        + 4 * request.conversation.len() as u64
        + request.tools.content_bytes()
        + 8 * request.tools.len() as u64
        + request.agent.system_prompt.len() as u64
        + request
            .note
            .as_ref()
            .map_or(0, |note| 4 + note.len() as u64);
    if request.model == "second" {
        tokens / 2
    } else {
        tokens
    }
}

fn split(rng: &mut Rng, prompt: u64) -> Usage {
    let cache_read = rng.between(0, prompt);
    let cache_write = rng.between(0, prompt - cache_read);
    Usage {
        input: prompt - cache_read - cache_write,
        output: 0,
        cache_write,
        cache_read,
        cache_write_1h: cache_write / 2,
    }
}

fn parts(rng: &mut Rng) -> Vec<Part> {
    let mut parts = Vec::new();
    if rng.chance(70) {
        parts.push(Part::Text("Let me see. ".to_owned()));
    }
    if rng.chance(10) {
        parts.push(Part::Text(String::new()));
    }
    if rng.chance(60) {
        for _ in 0..rng.between(1, 4) {
            parts.push(Part::ToolCall(call(rng)));
        }
    }
    parts
}

/// What was asked for, as the recap is to carry it forward: every message but the first, which the
/// recap has as the task; or nothing, or too much.
fn recap(rng: &mut Rng, request: &ModelRequest) -> Vec<Part> {
    let said = request.conversation.turns();
    let asked: String = said.iter().flat_map(|turn| words(turn)).collect();
    let lines = asked
        .lines()
        .map(|line| line.strip_prefix("- ").unwrap_or(line));
    let messages = lines.filter(|line| line.starts_with('m')).skip(1);
    let kept: String = messages.map(|message| format!("- {message}\n")).collect();
    let text = match rng.between(0, 9) {
        0 => String::new(),
        1 => "long ".repeat(9_000),
        _ => format!("What was asked:\n{kept}"),
    };
    let mut parts = vec![Part::Text(text)];
    if rng.chance(10) {
        parts.push(Part::ToolCall(call(rng)));
    }
    parts
}

fn words(turn: &Turn) -> Option<String> {
    match turn {
        Turn::User(parts) => Some(text_of(parts)),
        Turn::Assistant { .. } | Turn::Results(_) => None,
    }
}

fn call(rng: &mut Rng) -> CallPart {
    const NAMES: [&str; 11] = [
        "t__read", "t__idem", "t__dedup", "t__dedup", "t__once", "t__once", "t__once", "t__blind",
        "t__blind", "t__gone", "t__read",
    ];
    let length = if rng.chance(5) { 2_000 } else { 3 };
    CallPart {
        provider_id: rng.pick(&["", "same", "toolu_1"]).to_owned(),
        tool: rng.pick(&NAMES).to_owned(),
        arguments: if rng.chance(8) {
            "{\"bad\":".to_owned()
        } else {
            format!("{{\"a\":\"{}\"}}", "x".repeat(length))
        },
    }
}

fn verdict(part: &Part) -> Option<Verdict> {
    let Part::ToolCall(call) = part else {
        return None;
    };
    Some(Verdict {
        args_hash: format!("{:016x}", call.arguments.len()),
        invalid: call
            .arguments
            .contains("bad")
            .then(|| "`bad` is not JSON".to_owned()),
    })
}

fn stop(rng: &mut Rng, calls: usize, features: Features) -> StopReason {
    if rng.chance(14) && features.has(Feature::CutReplies) {
        return StopReason::MaxTokens;
    }
    match rng.between(0, 99) {
        0..=2 => StopReason::Refusal,
        3 => StopReason::ContentFilter,
        4..=5 => StopReason::ContextFull,
        6..=9 => StopReason::Pause,
        10 => StopReason::Other("odd".to_owned()),
        11..=20 => StopReason::StopSequence,
        21..=30 => StopReason::EndTurn,
        _ if calls > 0 => StopReason::ToolUse,
        _ => StopReason::EndTurn,
    }
}

fn failure(rng: &mut Rng) -> ModelFailure {
    use ModelFailureKind as Kind;
    const KINDS: [ModelFailureKind; 13] = [
        Kind::RateLimited,
        Kind::RateLimited,
        Kind::Overloaded,
        Kind::Server,
        Kind::TryAgain,
        Kind::Connect,
        Kind::Cut,
        Kind::Stalled,
        Kind::Malformed,
        Kind::Cut,
        Kind::TooLarge,
        Kind::ContextTooLong,
        Kind::Auth,
    ];
    let kind = rng.pick(&KINDS);
    ModelFailure {
        kind,
        message: "it broke".to_owned(),
        retry_after_ms: rng.maybe(5, 60).filter(|_| kind == Kind::RateLimited),
        http_status: 0,
        usage: (kind.may_have_run() && rng.chance(40)).then(Usage::default),
        cost_micro_usd: None,
        body_crc: "00c0ffee".to_owned(),
    }
}
