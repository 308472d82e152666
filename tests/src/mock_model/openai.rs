//! A reply as chat completions stream it ("Streaming API responses").

use serde_json::{Map, Value, json};

use super::{
    answer::{Reply, Usage},
    anthropic::pieces,
    cache::Cached,
};

/// The event stream of `reply`.
pub(super) fn stream(reply: &Reply, cached: Cached) -> String {
    let usage = reply.usage.unwrap_or(Usage {
        input: cached.input,
        output: output(reply),
        cache_read: cached.read,
        ..Usage::default()
    });
    let mut out = String::new();
    delta(&mut out, json!({"role": "assistant", "content": null}));
    if let Some((thought, _)) = &reply.thinking {
        pieces(thought).for_each(|text| delta(&mut out, json!({"reasoning_content": text})));
    }
    pieces(&reply.text).for_each(|text| delta(&mut out, json!({"content": text})));
    for (at, call) in reply.calls.iter().enumerate() {
        let mut first = json!({"index": at, "id": call.id, "type": "function",
            "function": {"name": call.name, "arguments": ""}});
        for (name, value) in call
            .own
            .as_ref()
            .and_then(Value::as_object)
            .unwrap_or(&Map::new())
        {
            first[name] = value.clone();
        }
        delta(&mut out, json!({"tool_calls": [first]}));
    }
    // The arguments of parallel calls come interleaved, told apart by their index alone.
    let mut arguments: Vec<Vec<String>> = reply
        .calls
        .iter()
        .map(|call| pieces(&call.arguments).collect())
        .collect();
    while arguments.iter().any(|pieces| !pieces.is_empty()) {
        for (at, pieces) in arguments
            .iter_mut()
            .enumerate()
            .filter(|(_, p)| !p.is_empty())
        {
            let piece = pieces.remove(0);
            let call = json!({"index": at, "function": {"arguments": piece}});
            delta(&mut out, json!({"tool_calls": [call]}));
        }
    }
    if let Some(error) = &reply.error {
        out.push_str(&format!("data: {error}\n\n"));
        return out;
    }
    let stop = if reply.calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    let stop = reply.stop.as_deref().unwrap_or(stop);
    chunk(
        &mut out,
        json!([{"index": 0, "delta": {}, "finish_reason": stop}]),
        Value::Null,
    );
    if !usage.absent {
        chunk(&mut out, json!([]), counters(&usage));
    }
    out.push_str("data: [DONE]\n\n");
    out
}

/// Tokens of a reply: four bytes each.
pub(super) fn output(reply: &Reply) -> u64 {
    let calls: usize = reply.calls.iter().map(|call| call.arguments.len()).sum();
    ((reply.text.len() + calls) / 4 + 1) as u64
}

fn counters(usage: &Usage) -> Value {
    let prompt = usage.input + usage.cache_read + usage.cache_write;
    let cached = if usage.cache_read == 0 && usage.nulls {
        Value::Null
    } else {
        json!({"cached_tokens": usage.cache_read, "audio_tokens": null})
    };
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": cached,
    })
}

fn delta(out: &mut String, delta: Value) {
    let choices = json!([{"index": 0, "delta": delta, "finish_reason": null}]);
    chunk(out, choices, Value::Null);
}

fn chunk(out: &mut String, choices: Value, usage: Value) {
    let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "mock",
        "choices": choices, "usage": usage});
    out.push_str(&format!("data: {chunk}\n\n"));
}
