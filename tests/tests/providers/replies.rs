//! What a reply becomes.

use loopwright_core::{
    message::{CallPart, Opaque, Part, Thinking},
    outcome::StopReason,
    usage::Usage,
};
use loopwright_server::config::PriceConfig;
use loopwright_tests::mock_model::{self, Answer, MockCall, Protocol, Reply};
use serde_json::json;

use super::talk::{BOTH, Talk};

fn call(id: &str, tool: &str, arguments: &str) -> Part {
    let (provider_id, tool) = (id.to_owned(), tool.to_owned());
    Part::ToolCall(CallPart {
        provider_id,
        tool,
        arguments: arguments.to_owned(),
    })
}

#[tokio::test]
async fn text_comes_whole_with_its_usage() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        let usage = mock_model::Usage {
            input: 100,
            output: 7,
            cache_read: 900,
            ..mock_model::Usage::default()
        };
        talk.mock
            .push(Reply::text("Grüße, 世界 😀!").usage(usage).in_pieces(3));
        talk.user("hello");
        let reply = talk.call().await.unwrap();
        assert_eq!(*reply.parts, vec![Part::Text("Grüße, 世界 😀!".to_owned())]);
        assert_eq!(reply.stop, StopReason::EndTurn);
        let want = Usage {
            input: 100,
            output: 7,
            cache_read: 900,
            ..Usage::default()
        };
        assert_eq!(reply.usage, Some(want), "the classes do not overlap");
        assert!(reply.response_id.is_some());
        assert_eq!(reply.cost_micro_usd, None, "no price is known");
        let sent = &talk.mock.requests()[0];
        assert_eq!(
            reply.body_crc,
            format!("{:08x}", crc32c::crc32c(&sent.body))
        );
        assert_eq!(sent.headers["traceparent"], "00-1-2-01");
    }
}

#[tokio::test]
async fn duplicate_and_empty_call_ids_are_mapped_to_ours_and_back_in_call_order() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        // Empty and repeated ids: the second and the third call have the same.
        let calls = ["", "same", "same"]
            .iter()
            .zip(["{\"path\":\"a\"}", "", "{\"n\": 3}"]);
        let calls = calls.map(|(id, arguments)| MockCall {
            id: (*id).to_owned(),
            name: "files__read".to_owned(),
            arguments: arguments.to_owned(),
            own: None,
        });
        let mut reply = Reply::text("I read.");
        reply.calls = calls.collect();
        talk.mock.push(reply);
        talk.mock.push(Reply::text("done"));
        talk.user("read");
        let reply = talk.step().await;
        assert_eq!(reply.stop, StopReason::ToolUse);
        assert_eq!(
            *reply.parts,
            vec![
                Part::Text("I read.".to_owned()),
                call("", "files__read", "{\"path\":\"a\"}"),
                call("same", "files__read", "{}"),
                call("same", "files__read", "{\"n\": 3}"),
            ]
        );
        talk.step().await;
        let second = talk.mock.requests()[1].text();
        for id in ["c2", "c3", "c4"] {
            assert_eq!(
                second.matches(&format!("\"{id}\"")).count(),
                2,
                "{protocol:?} {id}"
            );
        }
        assert!(
            second.contains("result of c3") && !second.contains("same"),
            "{second}"
        );
    }
}

#[tokio::test]
async fn parallel_results_stand_in_one_message_of_anthropic() {
    let mut talk = Talk::new(Protocol::Anthropic).await;
    talk.mock
        .push(Reply::calls([("files__read", "{}"), ("calc__add", "{}")]));
    talk.mock.push(Reply::text("done"));
    talk.user("go");
    talk.step().await;
    talk.step().await;
    let messages = talk.mock.requests()[1].json()["messages"].clone();
    let roles: Vec<_> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].clone())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(messages[2]["content"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn thinking_goes_back_as_it_came() {
    let mut talk = Talk::new(Protocol::Anthropic).await;
    let mut thought = Reply::calls([("files__read", "{}")]);
    thought.thinking = Some(("Let me see…".to_owned(), "sig==".to_owned()));
    talk.mock.push(thought.clone());
    talk.mock.push(Reply::text("done"));
    talk.user("go");
    let reply = talk.step().await;
    let (text, signature) = ("Let me see…".to_owned(), Some("sig==".to_owned()));
    assert_eq!(reply.parts[0], Part::Thinking(Thinking { text, signature }));
    talk.step().await;
    let block = &talk.mock.requests()[1].json()["messages"][1]["content"][0];
    let want = json!({"type": "thinking", "thinking": "Let me see…", "signature": "sig=="});
    assert_eq!(*block, want);

    let mut talk = Talk::new(Protocol::OpenAi).await;
    talk.mock.push(thought);
    talk.user("go");
    let reply = talk.step().await;
    let text = "Let me see…".to_owned();
    assert_eq!(
        reply.parts[0],
        Part::Thinking(Thinking {
            text,
            signature: None
        })
    );
}

#[tokio::test]
async fn unknown_content_blocks_survive_a_round_trip() {
    let mut talk = Talk::new(Protocol::Anthropic).await;
    let block = json!({"type": "server_tool_use", "id": "srv", "name": "new", "input": {"z": 1, "a": null}});
    let mut reply = Reply::text("searching");
    reply.block = Some(block.clone());
    talk.mock.push(reply);
    talk.mock.push(Reply::text("done"));
    talk.user("go");
    let reply = talk.step().await;
    let Part::Opaque(Opaque { provider, json }) = &reply.parts[1] else {
        panic!("{:?}", reply.parts)
    };
    assert_eq!(provider, "anthropic");
    talk.user("on");
    talk.step().await;
    assert!(talk.mock.requests()[1].text().contains(json.as_str()));
    assert_eq!(
        talk.mock.requests()[1].json()["messages"][1]["content"][1],
        block
    );

    let mut talk = Talk::new(Protocol::OpenAi).await;
    let own = json!({"extra_content": {"google": {"thought_signature": "abc"}}});
    let mut reply = Reply::calls([("files__read", "{}")]);
    reply.calls[0].own = Some(own.clone());
    talk.mock.push(reply);
    talk.mock.push(Reply::text("done"));
    talk.user("go");
    talk.step().await;
    talk.step().await;
    let call = &talk.mock.requests()[1].json()["messages"][1]["tool_calls"][0];
    assert_eq!(call["extra_content"], own["extra_content"]);
}

#[tokio::test]
async fn pieces_of_an_unknown_block_are_put_together() {
    let mut talk = Talk::new(Protocol::Anthropic).await;
    let events = [
        json!({"type": "message_start", "message": {"id": "m", "usage": null}}),
        json!({"type": "new_event"}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}}),
        json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": "{\"q\":"}}),
        json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "pause_turn"},
            "usage": {"input_tokens": null, "output_tokens": 5, "cache_read_input_tokens": null}}),
        json!({"type": "message_stop"}),
    ];
    let stream: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    talk.mock.push(Answer::raw(stream));
    talk.user("go");
    let reply = talk.call().await.unwrap();
    let Part::Opaque(own) = &reply.parts[0] else {
        panic!("{:?}", reply.parts)
    };
    let block: serde_json::Value = serde_json::from_str(&own.json).unwrap();
    assert_eq!(
        block,
        json!({"type": "server_tool_use", "id": "s", "name": "n", "input": {"q": 1}})
    );
    assert_eq!(reply.stop, StopReason::Pause);
    assert_eq!(reply.usage, None, "a prompt of null is not one of 0");
}

#[tokio::test]
async fn usage_that_is_null_or_absent_is_no_error() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        let nulls = mock_model::Usage {
            input: 5,
            output: 2,
            nulls: true,
            ..mock_model::Usage::default()
        };
        let absent = mock_model::Usage {
            absent: true,
            ..mock_model::Usage::default()
        };
        talk.mock.push(Reply::text("a").usage(nulls));
        talk.mock.push(Reply::text("b").usage(absent));
        talk.user("go");
        let usage = talk.step().await.usage;
        assert_eq!(
            usage,
            Some(Usage {
                input: 5,
                output: 2,
                ..Usage::default()
            })
        );
        talk.user("on");
        assert_eq!(talk.step().await.usage, None, "{protocol:?}: none is not 0");
    }
}

#[tokio::test]
async fn reasons_to_stop_are_told_apart() {
    let anthropic = [
        ("max_tokens", StopReason::MaxTokens),
        ("stop_sequence", StopReason::StopSequence),
        ("refusal", StopReason::Refusal),
        ("pause_turn", StopReason::Pause),
        ("model_context_window_exceeded", StopReason::ContextFull),
        ("brand_new", StopReason::Other("brand_new".to_owned())),
    ];
    let openai = [
        ("length", StopReason::MaxTokens),
        ("content_filter", StopReason::ContentFilter),
        ("function_call", StopReason::ToolUse),
        ("brand_new", StopReason::Other("brand_new".to_owned())),
    ];
    for (protocol, words) in [
        (Protocol::Anthropic, &anthropic[..]),
        (Protocol::OpenAi, &openai),
    ] {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        for (word, want) in words {
            talk.mock.push(Reply::text("half").stop(word));
            let reply = talk.attempt(request.clone()).await.unwrap();
            assert_eq!(reply.stop, *want);
            assert_eq!(
                *reply.parts,
                vec![Part::Text("half".to_owned())],
                "the text is kept"
            );
        }
    }
}

#[tokio::test]
async fn arguments_that_are_no_json_reach_us_and_go_back_wrapped() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.mock
            .push(Reply::calls([("files__read", "{\"path\": \"a")]));
        talk.mock.push(Reply::text("done"));
        talk.user("go");
        let reply = talk.step().await;
        assert_eq!(
            reply.parts[0],
            call("toolu_0", "files__read", "{\"path\": \"a")
        );
        talk.step().await;
        let second = talk.mock.requests()[1].text();
        assert!(second.contains("INVALID_JSON"), "{second}");
    }
}

#[tokio::test]
async fn a_tool_that_cannot_exist_does_not_spoil_the_next_request() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.mock
            .push(Reply::calls([("no such.tool", "{}"), ("", "[]")]));
        talk.mock.push(Reply::text("done"));
        talk.user("go");
        let reply = talk.step().await;
        assert_eq!(
            reply.parts[0],
            call("toolu_0", "no such.tool", "{}"),
            "as it was asked for"
        );
        talk.step().await;
        assert_eq!(talk.mock.requests()[1].refused, None);
    }
}

#[tokio::test]
async fn a_price_makes_a_cost() {
    let price = PriceConfig {
        input: Some(3.0),
        output: Some(15.0),
        cache_read: Some(0.3),
        ..PriceConfig::default()
    };
    let mut talk = Talk::with(Protocol::Anthropic, Default::default(), |config| {
        config.models.get_mut("mock").unwrap().price = price;
    })
    .await;
    let usage = mock_model::Usage {
        input: 10,
        output: 4,
        cache_read: 100,
        ..mock_model::Usage::default()
    };
    talk.mock.push(Reply::text("a").usage(usage));
    talk.user("go");
    assert_eq!(
        talk.call().await.unwrap().cost_micro_usd,
        Some(30 + 60 + 30)
    );
}
