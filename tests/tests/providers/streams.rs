//! Streams that break, stall, lie or are too long.

use loopwright_core::{
    agent::Agent, message::Part, outcome::ModelFailureKind as Kind, usage::Usage,
};
use loopwright_tests::mock_model::{self, Answer, Protocol, Reply};
use serde_json::json;

use super::talk::{BOTH, Talk};

const LONG: usize = 200;

/// A reply long enough to be broken in its middle.
fn long() -> Reply {
    Reply::text(&"word ".repeat(LONG))
}

#[tokio::test]
async fn a_reply_is_the_same_however_it_is_cut_into_pieces() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        let mut whole = Reply::calls([("files__read", "{\"path\":\"ä😀\"}"), ("calc__add", "{}")]);
        whole.text = "für 😀".to_owned();
        talk.mock.push(whole.clone());
        let want = talk.attempt(request.clone()).await.unwrap();
        for piece in [1, 2, 3, 5, 64, 1_000] {
            talk.mock.push(whole.clone().in_pieces(piece));
            let got = talk.attempt(request.clone()).await.unwrap();
            assert_eq!(
                (got.parts, got.stop),
                (want.parts.clone(), want.stop.clone()),
                "{piece}"
            );
        }
    }
}

#[tokio::test]
async fn a_stream_without_its_end_is_cut() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        for reply in [long().cut_at(5_000), long().end_at(5_000), long().end_at(0)] {
            talk.mock.push(reply);
            let failure = talk.attempt(request.clone()).await.unwrap_err();
            assert_eq!(failure.kind, Kind::Cut, "{protocol:?}: {}", failure.message);
            assert_eq!(failure.usage, None, "what was generated was not counted");
        }
    }
}

#[tokio::test]
async fn a_reply_that_was_counted_before_it_broke_is_charged_as_counted() {
    let mut talk = Talk::with(Protocol::Anthropic, Agent::default(), |config| {
        let price = &mut config.models.get_mut("mock").unwrap().price;
        (price.input, price.output) = (Some(2.0), Some(10.0));
    })
    .await;
    talk.user("go");
    let stream = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9}}}\n\n\
                  data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":4}}\n\n";
    talk.mock.push(Answer::raw(stream));
    let failure = talk.call().await.unwrap_err();
    assert_eq!(failure.kind, Kind::Cut);
    assert_eq!(
        failure.usage,
        Some(Usage {
            input: 9,
            output: 4,
            ..Usage::default()
        })
    );
    assert_eq!(failure.cost_micro_usd, Some(9 * 2 + 4 * 10));
}

#[tokio::test]
async fn a_server_without_its_last_mark_is_understood() {
    let mut talk = Talk::new(Protocol::OpenAi).await;
    talk.user("go");
    let stream = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n\
                  data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    talk.mock.push(Answer::raw(stream));
    assert_eq!(
        *talk.call().await.unwrap().parts,
        vec![Part::Text("hi".to_owned())]
    );
}

#[tokio::test]
async fn silence_is_a_stall() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        for at in [0, 5_000] {
            talk.mock.push(long().stall_at(at));
            let mut call = talk.begin(request.clone());
            tokio::select! {
                _ = &mut call => panic!("it stalls"),
                () = talk.mock.until_open(1) => {}
            }
            // From here on twenty seconds of silence pass at once.
            tokio::time::pause();
            let failure = call.await.unwrap_err();
            tokio::time::resume();
            assert_eq!(
                failure.kind,
                Kind::Stalled,
                "{protocol:?}: {}",
                failure.message
            );
            assert!(failure.message.contains("20000 ms"), "{}", failure.message);
            talk.mock.until_open(0).await;
        }
    }
}

#[tokio::test]
async fn an_error_inside_the_stream_is_an_error() {
    let overloaded =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "o"}});
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        let mut reply = Reply::text("half");
        reply.error = Some(overloaded.to_string());
        talk.mock.push(reply);
        let failure = talk.attempt(request.clone()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Server, "it may have been charged");
        assert!(
            failure.message.contains("inside the stream"),
            "{}",
            failure.message
        );
        talk.mock
            .push(Answer::raw(format!("event: error\ndata: {overloaded}\n\n")));
        let failure = talk.attempt(request).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Overloaded, "nothing had begun");
    }
}

#[tokio::test]
async fn nonsense_is_malformed() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        for stream in ["data: {\n\n", "data: 7\n\n", "data: \u{1}\n\n"] {
            talk.mock.push(Answer::raw(stream));
            let failure = talk.attempt(request.clone()).await.unwrap_err();
            assert_eq!(
                failure.kind,
                Kind::Malformed,
                "{stream:?}: {}",
                failure.message
            );
        }
        talk.mock.push(Answer::raw(b"data: \xff\xfe\n\n".to_vec()));
        assert_eq!(
            talk.attempt(request).await.unwrap_err().kind,
            Kind::Malformed
        );
    }
    let mut talk = Talk::new(Protocol::Anthropic).await;
    talk.user("go");
    let orphan = "data: {\"type\":\"content_block_delta\",\"index\":3,\"delta\":{\"type\":\"text_delta\"}}\n\n";
    talk.mock.push(Answer::raw(orphan));
    assert_eq!(talk.call().await.unwrap_err().kind, Kind::Malformed);
}

#[tokio::test]
async fn a_reply_over_the_limit_is_given_up() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        // 8 MB of arguments; a text that only escaping makes too long; too many calls; one event.
        let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(8 << 20));
        let raw = format!("data: \"{}\"\n\n", "z".repeat(5 << 20));
        let answers: [Answer; 4] = [
            Reply::calls([("files__read", huge.as_str())]).into(),
            Reply::text(&"\u{1}".repeat(200 << 10)).into(),
            Reply::calls([("files__read", "{}"); 200]).into(),
            Answer::raw(raw),
        ];
        for answer in answers {
            talk.mock.push(answer);
            let failure = talk.attempt(request.clone()).await.unwrap_err();
            assert_eq!(
                failure.kind,
                Kind::TooLarge,
                "{protocol:?}: {}",
                failure.message
            );
        }
    }
}

#[tokio::test]
async fn dropping_a_call_frees_the_providers_slot() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        talk.mock.push(long().stall_at(1_000));
        let request = talk.request();
        let mut call = talk.begin(request);
        tokio::select! {
            _ = &mut call => panic!("it stalls"),
            () = talk.mock.until_open(1) => {}
        }
        drop(call);
        talk.mock.until_open(0).await;
    }
}

#[tokio::test]
async fn one_connection_serves_call_after_call() {
    let mut talk = Talk::new(Protocol::Anthropic).await;
    talk.mock
        .always(Reply::calls([("files__read", "{}")]).usage(mock_model::Usage::default()));
    talk.user("go");
    for _ in 0..5 {
        talk.step().await;
        talk.mock.until_open(0).await;
    }
    assert_eq!(talk.mock.connections(), 1);
}

#[tokio::test]
async fn tool_call_deltas_are_put_together_by_their_index() {
    let delta = |calls: serde_json::Value| {
        let chunk = json!({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]});
        format!("data: {chunk}\n\n")
    };
    let begins = |at: u32, id: &str, name: &str| {
        json!([{"index": at, "id": id, "type": "function",
                "function": {"name": name, "arguments": ""}}])
    };
    let goes_on = |at: u32, piece: &str| json!({"index": at, "function": {"arguments": piece}});
    let stream = [
        // The second call begins first, and both come on in turns, also in one chunk.
        delta(begins(1, "b", "calc__add")),
        delta(begins(0, "a", "files__read")),
        delta(json!([goes_on(1, "{\"n\":"), goes_on(0, "{\"path\":")])),
        delta(json!([goes_on(0, "\"x\"}")])),
        delta(json!([goes_on(1, " 2}")])),
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"
            .into(),
        "data: [DONE]\n\n".into(),
    ];
    let mut talk = Talk::new(Protocol::OpenAi).await;
    talk.user("go");
    talk.mock.push(Answer::raw(stream.concat()));
    let reply = talk.call().await.unwrap();
    let calls = reply.parts.iter().map(|part| match part {
        Part::ToolCall(call) => (call.tool.clone(), call.arguments.clone()),
        other => panic!("{other:?}"),
    });
    let calls: Vec<(String, String)> = calls.collect();
    let want = [
        ("files__read", "{\"path\":\"x\"}"),
        ("calc__add", "{\"n\": 2}"),
    ];
    assert_eq!(calls, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test]
async fn usage_comes_from_the_last_chunk() {
    let chunk = |choices: serde_json::Value, usage: serde_json::Value| {
        format!("data: {}\n\n", json!({"choices": choices, "usage": usage}))
    };
    let counts = |prompt: u64, completion: u64| {
        json!({"prompt_tokens": prompt, "completion_tokens": completion,
               "prompt_tokens_details": {"cached_tokens": 3}})
    };
    let said = json!([{"index": 0, "delta": {"content": "hi"}}]);
    let stop = json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]);
    let stream = [
        chunk(said, json!(null)),
        chunk(stop, counts(9, 1)),
        chunk(json!([]), counts(10, 2)),
        "data: [DONE]\n\n".to_owned(),
    ];
    let mut talk = Talk::new(Protocol::OpenAi).await;
    talk.user("go");
    talk.mock.push(Answer::raw(stream.concat()));
    let usage = Usage {
        input: 7,
        output: 2,
        cache_read: 3,
        ..Usage::default()
    };
    assert_eq!(talk.call().await.unwrap().usage, Some(usage));
}
