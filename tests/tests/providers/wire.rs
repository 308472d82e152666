//! What is on the wire.

use loopwright_core::agent::Agent;
use loopwright_server::config::CacheTtl;
use loopwright_tests::mock_model::{Protocol, Reply};
use serde_json::{Value, json};

use super::talk::{BOTH, Talk};

/// A conversation of ten steps, each with tools; the requests that it made.
async fn ten_steps(protocol: Protocol) -> (Vec<String>, Vec<u64>) {
    let agent = Agent {
        system_prompt: "Be brief. ".repeat(30),
        ..Agent::default()
    };
    let mut talk = Talk::with(protocol, agent, |_| {}).await;
    talk.user("begin");
    let mut read = Vec::new();
    for step in 0..10 {
        let mut reply = Reply::calls([("files__read", "{\"path\":\"a\"}"), ("calc__add", "")]);
        if step % 3 == 0 {
            reply.thinking = Some(("hm".to_owned(), "sig".to_owned()));
            reply.text = format!("step {step}");
        }
        if step % 4 == 3 {
            talk.user("steered");
        }
        talk.mock.push(reply);
        read.push(talk.step().await.usage.unwrap().cache_read);
    }
    let requests = talk.mock.requests();
    assert!(requests.iter().all(|request| request.refused.is_none()));
    (
        requests.iter().map(|request| request.text()).collect(),
        read,
    )
}

#[tokio::test]
async fn the_prefix_stays_byte_identical_and_is_read_from_the_cache() {
    for protocol in BOTH {
        let (bodies, read) = ten_steps(protocol).await;
        let mut before = String::new();
        for body in &bodies {
            let plain = body.replace(",\"cache_control\":{\"type\":\"ephemeral\"}", "");
            assert!(!plain.contains("cache_control"));
            let end = plain.rfind("],\"max_").unwrap();
            assert!(plain.starts_with(&before), "{protocol:?}");
            before = plain[..end].to_owned();
        }
        assert_eq!(read[0], 0);
        assert!(
            read[1..].windows(2).all(|pair| pair[0] < pair[1]),
            "{protocol:?}: {read:?}"
        );
    }
}

#[tokio::test]
async fn breakpoints_are_four_and_where_they_help() {
    let (bodies, _) = ten_steps(Protocol::Anthropic).await;
    for (step, body) in bodies.iter().enumerate() {
        let marks = body.matches("\"cache_control\"").count();
        assert_eq!(marks, if step == 0 { 3 } else { 4 }, "step {step}");
        let body: Value = serde_json::from_str(body).unwrap();
        let last = |list: &Value| list.as_array().unwrap().last().unwrap().clone();
        let marked = |block: Value| !block["cache_control"].is_null();
        assert!(marked(last(&body["tools"])) && marked(last(&body["system"])));
        assert!(marked(last(&last(&body["messages"])["content"])));
    }
}

/// A steps' prompt on a model that keeps no prefix below 4,096 tokens.
#[tokio::test]
async fn below_the_models_minimum_no_breakpoint_is_wasted() {
    let mut talk = Talk::with(Protocol::Anthropic, Agent::default(), |config| {
        config.models.get_mut("mock").unwrap().id = Some("claude-haiku-4-5".to_owned());
    })
    .await;
    talk.user("begin");
    let (mut marked, mut written) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        talk.mock
            .push(Reply::calls([("files__read", "{\"path\":\"a\"}")]));
        written.push(talk.step().await.usage.unwrap().cache_write > 0);
        talk.user(&"a long message ".repeat(800));
    }
    for request in talk.mock.requests() {
        assert_eq!(request.refused, None);
        marked.push(request.text().matches("\"cache_control\"").count());
    }
    assert_eq!(
        marked,
        [0, 0, 1],
        "tools, then 3,500 tokens, then twice as many"
    );
    assert_eq!(written, [false, false, true]);
}

#[tokio::test]
async fn writes_are_counted_by_how_long_they_are_kept() {
    for (ttl, hour) in [(CacheTtl::FiveMinutes, false), (CacheTtl::OneHour, true)] {
        let mut talk = Talk::with(Protocol::Anthropic, Agent::default(), |config| {
            config.prompt_cache.ttl = ttl;
        })
        .await;
        talk.mock.push(Reply::text("a"));
        talk.user("go");
        let usage = talk.step().await.usage.unwrap();
        assert!(usage.cache_write > 0, "{usage:?}");
        let want = if hour { usage.cache_write } else { 0 };
        assert_eq!(usage.cache_write_1h, want, "{usage:?}");
    }
}

#[tokio::test]
async fn the_cache_can_be_turned_off_and_kept_longer() {
    for (enabled, ttl, want) in [
        (false, CacheTtl::OneHour, None),
        (
            true,
            CacheTtl::OneHour,
            Some(json!({"type": "ephemeral", "ttl": "1h"})),
        ),
        (
            true,
            CacheTtl::FiveMinutes,
            Some(json!({"type": "ephemeral"})),
        ),
    ] {
        let mut talk = Talk::with(Protocol::Anthropic, Agent::default(), |config| {
            config.prompt_cache.enabled = enabled;
            config.prompt_cache.ttl = ttl;
        })
        .await;
        talk.mock.push(Reply::text("a"));
        talk.user("go");
        talk.step().await;
        let sent = &talk.mock.requests()[0];
        assert_eq!(sent.json()["tools"][1].get("cache_control"), want.as_ref());
        if !enabled {
            assert!(!sent.text().contains("cache_control"), "{}", sent.text());
        }
    }
}

#[tokio::test]
async fn what_the_agent_wants_is_asked_for() {
    let agent = Agent {
        temperature: Some(0.5),
        top_p: Some(1.0),
        reasoning_effort: Some("low".to_owned()),
        tool_choice: Some("calc__add".to_owned()),
        provider_options: Some(
            "{\"zeta\":null,\"stop_sequences\":[\"x\"],\"top_p\":0.25}".to_owned(),
        ),
        output_schema: Some("{\"type\": \"object\"}".to_owned()),
        ..Agent::default()
    };
    let schema = json!({"type": "object"});
    for protocol in BOTH {
        let mut talk = Talk::with(protocol, agent.clone(), |_| {}).await;
        talk.mock.push(Reply::text("a"));
        talk.user("go");
        talk.step().await;
        let body = talk.mock.requests()[0].json();
        assert_eq!(body["temperature"], 0.5);
        assert_eq!(
            body["top_p"], 0.25,
            "an option of the provider goes before ours"
        );
        assert_eq!(body["stop_sequences"], json!(["x"]));
        assert_eq!(body["stream"], true);
        assert_eq!(body["max_tokens"], 4096);
        match protocol {
            Protocol::Anthropic => {
                let format = json!({"type": "json_schema", "schema": schema});
                assert_eq!(
                    body["output_config"],
                    json!({"effort": "low", "format": format})
                );
                assert_eq!(
                    body["tool_choice"],
                    json!({"type": "tool", "name": "calc__add"})
                );
            }
            Protocol::OpenAi => {
                let format = json!({"name": "result", "schema": schema});
                let format = json!({"type": "json_schema", "json_schema": format});
                assert_eq!(body["response_format"], format);
                assert_eq!(body["reasoning_effort"], "low");
                assert_eq!(body["stream_options"], json!({"include_usage": true}));
                let function = json!({"type": "function", "function": {"name": "calc__add"}});
                assert_eq!(body["tool_choice"], function);
            }
        }
    }
}

#[tokio::test]
async fn a_tool_that_must_be_called_is_asked_for_once() {
    for protocol in BOTH {
        let agent = Agent {
            tool_choice: Some("required".to_owned()),
            ..Agent::default()
        };
        let mut talk = Talk::with(protocol, agent, |_| {}).await;
        for word in ["a", "b"] {
            talk.mock.push(Reply::text(word));
            talk.user("go");
            talk.step().await;
        }
        let choice = |at: usize| talk.mock.requests()[at].json()["tool_choice"].clone();
        let (must, may) = match protocol {
            Protocol::Anthropic => (json!({"type": "any"}), json!({"type": "auto"})),
            Protocol::OpenAi => (json!("required"), json!("auto")),
        };
        assert_eq!((choice(0), choice(1)), (must, may));
    }
}

#[tokio::test]
async fn a_reasoning_model_gets_its_own_name_of_the_cap() {
    let mut talk = Talk::with(Protocol::OpenAi, Agent::default(), |config| {
        let model = config.models.get_mut("mock").unwrap();
        model.id = Some("gpt-5.5".to_owned());
        model.max_output = Some(100);
    })
    .await;
    talk.mock.push(Reply::text("a"));
    talk.user("go");
    talk.step().await;
    let body = talk.mock.requests()[0].json();
    assert_eq!(
        body["max_completion_tokens"], 100,
        "no more than the model can"
    );
    assert_eq!(body.get("max_tokens"), None);
}

#[tokio::test]
async fn a_steered_message_and_blanks_pass_the_strict_mock() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        talk.mock.push(Reply::text(" \n"));
        talk.step().await;
        talk.user("say something");
        let mut thought = Reply::text("");
        thought.thinking = Some(("only thinking".to_owned(), "sig".to_owned()));
        talk.mock.push(thought.stop("max_tokens"));
        talk.step().await;
        talk.user("go on");
        talk.user("  ");
        talk.mock.push(Reply::calls([("files__read", "{}")]));
        talk.step().await;
        talk.user("and hurry");
        talk.mock.push(Reply::text("done"));
        talk.step().await;
        let refused: Vec<_> = talk
            .mock
            .requests()
            .into_iter()
            .filter_map(|r| r.refused)
            .collect();
        assert_eq!(refused, Vec::<String>::new());
    }
}
