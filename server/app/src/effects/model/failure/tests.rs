#![expect(clippy::unwrap_used, reason = "tests")]

use ModelFailureKind as Kind;

use super::*;

#[test]
fn statuses_and_words_mean_what_the_providers_document() {
    let openai = |kind: &str, code: &str, message: &str| {
        format!(
            "{{\"error\":{{\"message\":\"{message}\",\"type\":\"{kind}\",\"code\":\"{code}\"}}}}"
        )
    };
    let anthropic = |kind: &str, message: &str| {
        format!(
            "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"{message}\"}}}}"
        )
    };
    let llama = "{\"error\":{\"code\":400,\"message\":\"the request exceeds the available context \
                 size\",\"type\":\"exceed_context_size_error\",\"n_ctx\":16384}}";
    let low = "Your credit balance is too low to access the API.";
    let cases = [
        (
            429,
            openai("requests", "rate_limit_exceeded", "Rate limit reached"),
            Kind::RateLimited,
        ),
        (
            429,
            openai("insufficient_quota", "insufficient_quota", "quota"),
            Kind::Quota,
        ),
        (
            429,
            anthropic("rate_limit_error", "rate"),
            Kind::RateLimited,
        ),
        (400, anthropic("invalid_request_error", low), Kind::Quota),
        (402, String::new(), Kind::Quota),
        (
            400,
            anthropic("invalid_request_error", "prompt is too long: 9 > 8"),
            Kind::ContextTooLong,
        ),
        (
            400,
            openai("invalid_request_error", "context_length_exceeded", "x"),
            Kind::ContextTooLong,
        ),
        (400, llama.to_owned(), Kind::ContextTooLong),
        (
            413,
            anthropic("request_too_large", "too large"),
            Kind::ContextTooLong,
        ),
        (
            400,
            anthropic("invalid_request_error", "messages: first"),
            Kind::InvalidRequest,
        ),
        (422, "{\"detail\":\"no\"}".to_owned(), Kind::InvalidRequest),
        (
            401,
            openai("invalid_request_error", "invalid_api_key", "x"),
            Kind::Auth,
        ),
        (403, anthropic("permission_error", "x"), Kind::Auth),
        (
            404,
            anthropic("not_found_error", "model: x"),
            Kind::NoSuchModel,
        ),
        (
            400,
            openai("invalid_request_error", "model_not_found", "x"),
            Kind::NoSuchModel,
        ),
        (408, String::new(), Kind::TryAgain),
        (409, String::new(), Kind::TryAgain),
        (425, String::new(), Kind::TryAgain),
        (503, "busy".to_owned(), Kind::Overloaded),
        (
            529,
            anthropic("overloaded_error", "Overloaded"),
            Kind::Overloaded,
        ),
        (500, anthropic("api_error", "x"), Kind::Server),
        (502, "<html>bad gateway</html>".to_owned(), Kind::Server),
        (302, String::new(), Kind::InvalidRequest),
    ];
    for (status, body, want) in cases {
        assert_eq!(Complaint::read(&body).kind(status), want, "{status} {body}");
    }
}

#[test]
fn an_error_inside_a_stream_may_have_been_charged() {
    let read = |kind: &str| Complaint {
        kind: kind.to_owned(),
        ..Complaint::default()
    };
    assert_eq!(
        read("overloaded_error").kind_in_stream(false),
        Kind::Overloaded
    );
    assert_eq!(read("overloaded_error").kind_in_stream(true), Kind::Server);
    assert_eq!(read("rate_limit_error").kind_in_stream(true), Kind::Server);
    assert_eq!(read("api_error").kind_in_stream(true), Kind::Server);
    assert_eq!(
        read("invalid_request_error").kind_in_stream(false),
        Kind::InvalidRequest
    );
    assert_eq!(read("something new").kind_in_stream(true), Kind::Server);
}

#[test]
fn retry_after_comes_in_three_forms() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let after = |name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        retry_after_ms(&headers, now)
    };
    assert_eq!(after("retry-after", "7"), Some(7_000));
    assert_eq!(after("retry-after", "0.25"), Some(250));
    assert_eq!(after("retry-after-ms", "1500"), Some(1_500));
    assert_eq!(
        after("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
        Some(30_000)
    );
    assert_eq!(
        after("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"),
        Some(0)
    );
    for nonsense in ["-1", "soon", "inf", "1e99", ""] {
        assert_eq!(after("retry-after", nonsense), None, "{nonsense}");
    }
}

#[test]
fn no_secret_and_no_control_character_leaves() {
    let fault = Fault::new(Kind::Auth, "bad key sk-123456\r\n\u{1b}[31m");
    let failure = fault.into_failure(&["sk-123456".to_owned(), "a".to_owned()], String::new());
    assert_eq!(failure.message, "bad key ***   [31m");
}

#[test]
fn complaints_are_read_wherever_they_stand() {
    let message = |body: &str| Complaint::read(body).message;
    assert_eq!(message("{\"error\":\"no\"}"), "no");
    assert_eq!(message("{\"message\":\"top\"}"), "top");
    assert_eq!(
        message("{\"error\":{\"message\":\"in\",\"code\":17}}"),
        "in"
    );
    assert_eq!(message(" plain "), "plain");
    assert_eq!(message("[1]"), "[1]");
    assert_eq!(
        Complaint::read("{\"error\":{\"message\":\"in\",\"code\":503}}").code,
        "503"
    );
}
