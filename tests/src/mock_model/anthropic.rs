//! A reply as the Messages API streams it ("Streaming messages").

use serde_json::{Value, json};

use super::{
    answer::{Reply, Usage},
    cache::Cached,
};

/// The event stream of `reply`.
pub(super) fn stream(reply: &Reply, cached: Cached) -> String {
    let usage = reply.usage.unwrap_or(Usage {
        input: cached.input,
        output: super::openai::output(reply),
        cache_write: cached.write,
        cache_read: cached.read,
        cache_write_1h: if cached.hour { cached.write } else { 0 },
        ..Usage::default()
    });
    let mut out = String::new();
    event(&mut out, &start(&usage));
    event(&mut out, &json!({"type": "ping"}));
    let mut index = 0;
    if let Some((thought, signature)) = &reply.thinking {
        let block = json!({"type": "thinking", "thinking": "", "signature": ""});
        let said = json!({"type": "thinking_delta", "thinking": thought});
        let signed = json!({"type": "signature_delta", "signature": signature});
        whole(&mut out, &mut index, &block, [said, signed]);
    }
    if !reply.text.is_empty() {
        let block = json!({"type": "text", "text": ""});
        let deltas = pieces(&reply.text).map(|text| json!({"type": "text_delta", "text": text}));
        whole(&mut out, &mut index, &block, deltas);
    }
    if let Some(block) = &reply.block {
        whole(&mut out, &mut index, block, []);
    }
    for (at, call) in reply.calls.iter().enumerate() {
        // llama.cpp's server leaves `input` out of the start.
        let block = if at % 2 == 0 {
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
        } else {
            json!({"type": "tool_use", "id": call.id, "name": call.name})
        };
        let deltas = pieces(&call.arguments)
            .map(|text| json!({"type": "input_json_delta", "partial_json": text}));
        whole(&mut out, &mut index, &block, deltas);
    }
    if let Some(error) = &reply.error {
        out.push_str(&format!("event: error\ndata: {error}\n\n"));
        return out;
    }
    let stop = if reply.calls.is_empty() {
        "end_turn"
    } else {
        "tool_use"
    };
    let stop = reply.stop.as_deref().unwrap_or(stop);
    let mut delta = json!({"type": "message_delta", "delta": {"stop_reason": stop}});
    if !usage.absent {
        delta["usage"] = json!({"output_tokens": usage.output});
    }
    event(&mut out, &delta);
    event(&mut out, &json!({"type": "message_stop"}));
    out
}

fn start(usage: &Usage) -> Value {
    let count = |n: u64| {
        if n == 0 && usage.nulls {
            Value::Null
        } else {
            json!(n)
        }
    };
    json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "mock",
        "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": usage.input,
            "cache_creation_input_tokens": count(usage.cache_write),
            "cache_read_input_tokens": count(usage.cache_read),
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage.cache_write - usage.cache_write_1h,
                "ephemeral_1h_input_tokens": usage.cache_write_1h,
            },
            "output_tokens": 1,
            "service_tier": "standard",
        },
    }})
}

fn whole(
    out: &mut String,
    index: &mut u64,
    block: &Value,
    deltas: impl IntoIterator<Item = Value>,
) {
    let (at, name) = (*index, "content_block_delta");
    event(
        out,
        &json!({"type": "content_block_start", "index": at, "content_block": block}),
    );
    for delta in deltas {
        event(out, &json!({"type": name, "index": at, "delta": delta}));
    }
    event(out, &json!({"type": "content_block_stop", "index": at}));
    *index += 1;
}

fn event(out: &mut String, event: &Value) {
    let name = event["type"].as_str().unwrap_or_default();
    out.push_str(&format!("event: {name}\ndata: {event}\n\n"));
}

/// Text in pieces of five characters, a long one in longer ones.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = String> {
    let chars: Vec<char> = text.chars().collect();
    let size = 5.max(chars.len() / 1_000);
    let pieces: Vec<String> = chars
        .chunks(size)
        .map(|piece| piece.iter().collect())
        .collect();
    pieces.into_iter()
}
