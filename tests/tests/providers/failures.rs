//! What a failure becomes.

use loopwright_core::outcome::ModelFailureKind as Kind;
use loopwright_tests::mock_model::{Answer, Protocol, Reply};

use super::talk::{BOTH, KEY, Talk};

#[tokio::test]
async fn every_refusal_has_its_kind_and_names_where_it_came_from() {
    let long = r#"{"error":{"type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    let anthropic_long =
        r#"{"error":{"type":"invalid_request_error","message":"prompt is too long: 2 > 1"}}"#;
    let quota = r#"{"error":{"code":"insufficient_quota","message":"no credit"}}"#;
    let overloaded = r#"{"error":{"type":"service_unavailable_error","message":"try later"}}"#;
    let cases = [
        (400, long, Kind::ContextTooLong),
        (400, anthropic_long, Kind::ContextTooLong),
        (400, "{}", Kind::InvalidRequest),
        (401, "{}", Kind::Auth),
        (403, "{}", Kind::Auth),
        (404, "{}", Kind::NoSuchModel),
        (408, "", Kind::Server),
        (409, "", Kind::TryAgain),
        (425, "", Kind::TryAgain),
        (429, "slow down", Kind::RateLimited),
        (429, quota, Kind::Quota),
        (500, "", Kind::Server),
        (502, "<html>", Kind::Server),
        (503, "", Kind::Server),
        (503, overloaded, Kind::Overloaded),
        (529, "", Kind::Overloaded),
        (307, "", Kind::InvalidRequest),
    ];
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        for (status, body, want) in cases {
            talk.mock.push(Answer::status(status, body));
            let failure = talk.attempt(request.clone()).await.unwrap_err();
            assert_eq!(failure.kind, want, "{protocol:?} {status} {body}");
            assert!(
                failure.message.starts_with("model `mock` at 127.0.0.1:"),
                "{}",
                failure.message
            );
            assert!(
                failure.message.contains(&status.to_string()),
                "{}",
                failure.message
            );
            assert_eq!(failure.http_status, status);
            assert_eq!(failure.body_crc.len(), 8);
            assert_eq!(failure.usage, None);
        }
    }
}

#[tokio::test]
async fn retry_after_is_passed_on_in_each_of_its_forms() {
    let mut talk = Talk::new(Protocol::OpenAi).await;
    talk.user("go");
    let request = talk.request();
    let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(90);
    let date = httpdate::fmt_http_date(soon);
    let after = async |talk: &mut Talk, name, value: &str| {
        talk.mock.push(Answer::status(429, "").header(name, value));
        talk.attempt(request.clone())
            .await
            .unwrap_err()
            .retry_after_ms
    };
    assert_eq!(after(&mut talk, "retry-after", "7").await, Some(7_000));
    assert_eq!(after(&mut talk, "retry-after-ms", "250").await, Some(250));
    let wait = after(&mut talk, "retry-after", &date).await.unwrap();
    assert!((60_000..=90_000).contains(&wait), "{wait}");
    assert_eq!(after(&mut talk, "x-other", "7").await, None);
}

#[tokio::test]
async fn a_key_that_the_provider_repeats_is_not_passed_on() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.mock.require_key("another");
        talk.user("go");
        let failure = talk.call().await.unwrap_err();
        assert_eq!(failure.kind, Kind::Auth);
        assert!(!failure.message.contains(KEY), "{}", failure.message);
        assert!(
            failure.message.contains("***"),
            "the mock did repeat it: {}",
            failure.message
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_cannot_be_connected_to() {
    let mut talk = Talk::with(Protocol::OpenAi, Default::default(), |config| {
        let model = config.models.get_mut("mock").unwrap();
        model.base_url = Some("http://127.0.0.1:1/v1?key=hidden".to_owned());
    })
    .await;
    talk.user("go");
    let failure = talk.call().await.unwrap_err();
    assert_eq!((failure.kind, failure.http_status), (Kind::Connect, 0));
    assert!(!failure.message.contains("hidden"), "{}", failure.message);
}

#[tokio::test]
async fn a_missing_key_says_which_variable() {
    let mut talk = Talk::with(Protocol::OpenAi, Default::default(), |config| {
        let model = config.models.get_mut("mock").unwrap();
        model.api_key_env = Some("NOT_SET".to_owned());
    })
    .await;
    talk.user("go");
    let failure = talk.call().await.unwrap_err();
    assert_eq!(failure.kind, Kind::Auth);
    assert!(failure.message.contains("NOT_SET"), "{}", failure.message);
    assert!(talk.mock.requests().is_empty());
}

#[tokio::test]
async fn a_reply_that_is_no_stream_is_not_taken_for_one() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        talk.mock.push(Answer::status(200, r#"{"choices":[]}"#));
        let failure = talk.attempt(request.clone()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Malformed);
        talk.mock.push(Answer::status(
            200,
            r#"{"error":{"message":"busy","code":503}}"#,
        ));
        let failure = talk.attempt(request).await.unwrap_err();
        assert_eq!((failure.kind, failure.http_status), (Kind::Overloaded, 200));
        assert!(failure.message.contains("busy"), "{}", failure.message);
    }
}

#[tokio::test]
async fn options_of_the_agent_cannot_take_the_loop_over() {
    for (options, words) in [
        (r#"{"max_tokens": 1000000}"#, "sets `max_tokens`"),
        (r#"{"messages": []}"#, "sets `messages`"),
        ("[]", "no JSON object"),
    ] {
        let agent = loopwright_core::agent::Agent {
            provider_options: Some(options.to_owned()),
            ..Default::default()
        };
        let mut talk = Talk::with(Protocol::Anthropic, agent, |_| {}).await;
        talk.mock.push(Reply::text("a"));
        talk.user("go");
        let failure = talk.call().await.unwrap_err();
        assert_eq!(failure.kind, Kind::InvalidRequest);
        assert!(failure.message.contains(words), "{}", failure.message);
        assert!(talk.mock.requests().is_empty(), "nothing was sent");
    }
}

#[tokio::test]
async fn timeouts_rate_limits_server_errors_resets_and_stalls_are_retried() {
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        for status in [408, 409, 425, 429, 500, 502, 503, 504, 529] {
            talk.mock.push(Answer::status(status, "{}"));
            let failure = talk.attempt(request.clone()).await.unwrap_err();
            assert!(failure.kind.is_retryable(), "{protocol:?} {status}");
        }
        // The connection is reset in mid-reply.
        let long = Reply::text(&"word ".repeat(200));
        talk.mock.push(long.cut_at(600));
        let failure = talk.attempt(request.clone()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Cut, "{protocol:?}");
        for kind in [Kind::Cut, Kind::Stalled, Kind::Connect] {
            assert!(kind.is_retryable(), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_quota_that_is_exhausted_and_other_4xx_are_not_retried() {
    let quota = r#"{"error":{"code":"insufficient_quota","message":"no credit"}}"#;
    let cases = [
        (429, quota),
        (402, "{}"),
        (400, "{}"),
        (401, "{}"),
        (403, "{}"),
        (404, "{}"),
        (413, "{}"),
        (422, "{}"),
    ];
    for protocol in BOTH {
        let mut talk = Talk::new(protocol).await;
        talk.user("go");
        let request = talk.request();
        for (status, body) in cases {
            talk.mock.push(Answer::status(status, body));
            let failure = talk.attempt(request.clone()).await.unwrap_err();
            assert!(!failure.kind.is_retryable(), "{protocol:?} {status} {body}");
        }
    }
}
