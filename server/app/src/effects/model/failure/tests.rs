#![expect(clippy::unwrap_used, reason = "tests")]

use ModelFailureKind as Kind;

use super::*;

fn all_mean(cases: &[(u16, String, Kind)]) {
    for (status, body, want) in cases {
        assert_eq!(
            Complaint::read(body).kind(*status),
            *want,
            "{status} {body}"
        );
    }
}

#[test]
fn a_status_alone_has_its_meaning() {
    let cases = [
        (302, Kind::InvalidRequest),
        (400, Kind::InvalidRequest),
        (401, Kind::Auth),
        (402, Kind::Quota),
        (403, Kind::Auth),
        (404, Kind::NoSuchModel),
        (408, Kind::Server),
        (409, Kind::TryAgain),
        (413, Kind::ContextTooLong),
        (422, Kind::InvalidRequest),
        (425, Kind::TryAgain),
        (429, Kind::RateLimited),
        (500, Kind::Server),
        (502, Kind::Server),
        (503, Kind::Server),
        (529, Kind::Overloaded),
    ];
    for body in [
        "",
        "busy",
        "<html>bad gateway</html>",
        "{\"detail\":\"no\"}",
    ] {
        all_mean(&cases.map(|(status, kind)| (status, body.to_owned(), kind)));
    }
}

#[test]
fn anthropic_is_understood() {
    let error = |kind: &str, message: &str| {
        format!(
            "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"{message}\"}}}}"
        )
    };
    let invalid = |message: &str| error("invalid_request_error", message);
    all_mean(&[
        (
            400,
            invalid("Your credit balance is too low to access the API."),
            Kind::Quota,
        ),
        (
            400,
            invalid("prompt is too long: 9 tokens > 8 maximum"),
            Kind::ContextTooLong,
        ),
        (
            400,
            invalid("input length and `max_tokens` exceed context limit: 9"),
            Kind::ContextTooLong,
        ),
        (
            400,
            invalid("messages: first message must use"),
            Kind::InvalidRequest,
        ),
        (402, error("billing_error", "x"), Kind::Quota),
        (403, error("permission_error", "x"), Kind::Auth),
        (404, error("not_found_error", "model: x"), Kind::NoSuchModel),
        (
            413,
            error("request_too_large", "too large"),
            Kind::ContextTooLong,
        ),
        (429, error("rate_limit_error", "rate"), Kind::RateLimited),
        (500, error("api_error", "x"), Kind::Server),
        (
            529,
            error("overloaded_error", "Overloaded"),
            Kind::Overloaded,
        ),
    ]);
}

#[test]
fn openai_and_its_like_are_understood() {
    let error = |kind: &str, code: &str| {
        format!("{{\"error\":{{\"message\":\"x\",\"type\":\"{kind}\",\"code\":\"{code}\"}}}}")
    };
    let llama = "{\"error\":{\"code\":400,\"message\":\"the request exceeds the available context \
                 size\",\"type\":\"exceed_context_size_error\",\"n_ctx\":16384}}";
    let vllm = "{\"message\":\"This model's maximum context length is 8 tokens\",\"code\":400}";
    all_mean(&[
        (
            400,
            error("invalid_request_error", "context_length_exceeded"),
            Kind::ContextTooLong,
        ),
        (400, llama.to_owned(), Kind::ContextTooLong),
        (400, vllm.to_owned(), Kind::ContextTooLong),
        (
            400,
            error("invalid_request_error", "model_not_found"),
            Kind::NoSuchModel,
        ),
        (
            401,
            error("invalid_request_error", "invalid_api_key"),
            Kind::Auth,
        ),
        (
            429,
            error("requests", "rate_limit_exceeded"),
            Kind::RateLimited,
        ),
        (
            429,
            error("insufficient_quota", "insufficient_quota"),
            Kind::Quota,
        ),
    ]);
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
    let failure = fault.into_failure(
        &["sk-123456".to_owned(), "a".to_owned()],
        Redaction::default(),
        String::new(),
    );
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
