//! Which counts of a provider are believed: a prompt's that is one, and final ones.

use eventsource_stream::Event;
use loopwright_core::usage::Usage;
use serde_json::{Value, json};

use super::session::sink;
use crate::effects::model::{failure::Fault, protocol::Protocol};

/// What a stream of these events counts: of a whole reply, or of one that broke off.
fn counted(protocol: Protocol, events: &[Value]) -> Result<Option<Usage>, Option<Usage>> {
    let (mut reader, mut sink) = (protocol.reader(), sink());
    let usage = |fault: Fault| fault.usage;
    for data in events {
        let data = data
            .as_str()
            .map_or_else(|| data.to_string(), str::to_owned);
        let event = Event {
            data,
            ..Event::default()
        };
        if reader.event(&event, &mut sink).map_err(usage)? {
            break;
        }
    }
    reader.finish().map(|said| said.usage).map_err(usage)
}

fn of(input: u64, output: u64) -> Option<Usage> {
    Some(Usage {
        input,
        output,
        ..Usage::default()
    })
}

fn chunk(stop: Option<&str>, usage: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": stop}], "usage": usage})
}

fn of_openai(prompt: Value, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion})
}

fn start(usage: Value) -> Value {
    json!({"type": "message_start", "message": {"usage": usage}})
}

fn delta(stop: Option<&str>, usage: Value) -> Value {
    json!({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage})
}

#[tokio::test]
async fn a_prompt_that_is_null_absent_or_0_is_not_counted() {
    let done = json!("[DONE]");
    let nothing = json!({"completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 5}});
    for usage in [nothing, of_openai(Value::Null, 7), of_openai(json!(0), 7)] {
        let events = [chunk(Some("stop"), usage), done.clone()];
        assert_eq!(counted(Protocol::OpenAi, &events), Ok(None), "{events:?}");
    }
    let events = [chunk(Some("stop"), of_openai(json!(9), 7)), done];
    assert_eq!(counted(Protocol::OpenAi, &events), Ok(of(9, 7)));

    let stop = json!({"type": "message_stop"});
    let end = || delta(Some("end_turn"), json!({"output_tokens": 7}));
    for usage in [
        Value::Null,
        json!({"input_tokens": null, "cache_read_input_tokens": 5}),
        json!({"input_tokens": 0, "cache_read_input_tokens": null}),
    ] {
        let events = [start(usage), end(), stop.clone()];
        assert_eq!(
            counted(Protocol::Anthropic, &events),
            Ok(None),
            "{events:?}"
        );
    }
    // Other counters that are null are 0; the later figure counts.
    let null = json!({"input_tokens": 9, "cache_read_input_tokens": null});
    let events = [start(null), end(), stop.clone()];
    assert_eq!(counted(Protocol::Anthropic, &events), Ok(of(9, 7)));
    let late = delta(
        Some("end_turn"),
        json!({"input_tokens": 9, "output_tokens": 7}),
    );
    let events = [start(json!({"input_tokens": 0})), late, stop];
    assert_eq!(counted(Protocol::Anthropic, &events), Ok(of(9, 7)));
}

#[tokio::test]
async fn what_is_counted_along_is_not_what_a_broken_reply_came_to() {
    let along = || chunk(None, of_openai(json!(9), 1));
    let last = || chunk(None, of_openai(json!(9), 7));
    let error = json!({"error": {"message": "gone"}});
    let openai = |events: &[Value]| counted(Protocol::OpenAi, events);
    assert_eq!(openai(&[along()]), Err(None), "it was cut");
    assert_eq!(openai(&[along(), error.clone()]), Err(None));
    // A reason to stop came, and no count with or after it.
    let stopped = || chunk(Some("stop"), Value::Null);
    assert_eq!(openai(&[along(), stopped(), error.clone()]), Err(None));
    assert_eq!(openai(&[along(), stopped()]), Ok(None));
    assert_eq!(
        openai(&[along(), stopped(), last(), error.clone()]),
        Err(of(9, 7))
    );
    let broke = chunk(Some("error"), of_openai(json!(9), 7));
    assert_eq!(openai(&[broke]), Err(of(9, 7)));
    assert_eq!(openai(&[along(), stopped(), last()]), Ok(of(9, 7)));

    let begun = || start(json!({"input_tokens": 9, "output_tokens": 1}));
    let error = json!({"type": "error", "error": {"type": "api_error", "message": "gone"}});
    let along = || delta(None, json!({"output_tokens": 3}));
    let last = || delta(Some("end_turn"), json!({"output_tokens": 7}));
    let anthropic = |events: &[Value]| counted(Protocol::Anthropic, events);
    assert_eq!(anthropic(&[begun()]), Err(None), "it was cut");
    assert_eq!(anthropic(&[begun(), error.clone()]), Err(None));
    assert_eq!(anthropic(&[begun(), along(), error.clone()]), Err(None));
    assert_eq!(anthropic(&[begun(), along()]), Err(None));
    assert_eq!(anthropic(&[begun(), last(), error]), Err(of(9, 7)));
    assert_eq!(anthropic(&[begun(), last()]), Err(of(9, 7)));
}
