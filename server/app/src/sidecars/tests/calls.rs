//! Calls: what is sent, what comes back, and what may have run.

use std::sync::atomic::Ordering;

use loopwright_core::outcome::DoubtCause::{BadReply, Internal, Timeout, Unavailable};
use loopwright_core::outcome::ToolFailureKind::{Ambiguous, NotExecuted};

use super::fake::{Fake, Proxy, Raw, tool};
use super::*;

#[tokio::test]
async fn a_call_carries_its_key_its_attempt_and_the_hash_of_its_arguments() {
    let fake = Fake::tcp(&["echo"]);
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    assert_eq!(
        bench.call("echo", r#"{"n": 1}"#).await.unwrap().text,
        r#"{"n": 1}"#
    );
    let (call, header) = fake.state.calls.lock().unwrap()[0].clone();
    assert_eq!(
        (call.key.as_str(), call.call.as_str()),
        ("default/s1@1795345899123/c7", "c7")
    );
    assert_eq!(
        (call.session_id.as_str(), call.tool.as_str()),
        ("s1", "echo")
    );
    assert_eq!((call.attempt, call.epoch), (2, 3));
    assert_eq!(call.arguments_json, r#"{"n": 1}"#);
    let sum = "e5d5f7c1d225fd6b13623ebb1b5b9d075c705659f81868b1e37005a0923b0346";
    assert_eq!(call.arguments_sha256, sum);
    assert_eq!(header.as_deref(), Some(call.traceparent.as_str()));
    assert!(call.traceparent.starts_with("00-"));
    assert_eq!(call.timeout.unwrap().seconds, 120);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let left = call.deadline.unwrap().seconds - i64::try_from(now.as_secs()).unwrap();
    assert!((1795..=1801).contains(&left), "{left}");
}

#[tokio::test]
async fn no_arguments_at_all_are_an_empty_object() {
    let fake = Fake::tcp(&["echo"]);
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    assert_eq!(bench.call("echo", " ").await.unwrap().text, "{}");
}

#[tokio::test]
async fn each_end_of_a_call_is_told_for_what_it_is() {
    let endings = [
        ("refuse", NotExecuted, None, false, "the disk is away"),
        ("later", NotExecuted, None, true, "the disk is away"),
        ("unimplemented", NotExecuted, None, false, "no such tool"),
        ("internal", Ambiguous, Some(Internal), false, "it broke"),
        (
            "silent",
            Ambiguous,
            Some(BadReply),
            false,
            "without an answer",
        ),
        (
            "begun",
            Ambiguous,
            Some(Internal),
            false,
            "after it had begun",
        ),
    ];
    let fake = Fake::tcp(&endings.map(|(name, ..)| name));
    let more = ["result_then_error", "fails", "structured"].map(tool);
    fake.state.tools.lock().unwrap().extend(more);
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    for (name, kind, cause, retryable, words) in endings {
        let failure = bench.call(name, "{}").await.unwrap_err();
        assert_eq!(
            (failure.kind, failure.cause, failure.retryable),
            (kind, cause, retryable),
            "{name}: {failure:?}"
        );
        assert_eq!(failure.retry_after_ms, retryable.then_some(1000), "{name}");
        assert!(failure.message.contains(words), "{name}: {failure:?}");
        assert!(
            failure.message.contains("sidecar `fake`"),
            "{name}: {failure:?}"
        );
    }
    assert_eq!(
        bench.call("result_then_error", "{}").await.unwrap().text,
        "done"
    );
    let fails = bench.call("fails", "{}").await.unwrap();
    assert_eq!(
        (fails.text.as_str(), fails.is_error),
        ("no such file", true)
    );
    let structured = bench.call("structured", "{}").await.unwrap();
    let json = r#"{"sum":12345678901234567890}"#;
    assert_eq!(
        (structured.text.as_str(), structured.structured.as_deref()),
        (json, Some(json))
    );
}

#[tokio::test]
async fn silence_is_ambiguous_and_cancels_the_call_over_there() {
    let fake = Fake::tcp(&["hang", "hang_later"]);
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    let mut cancelled = fake.state.cancelled.subscribe();
    for (n, name) in [(1, "hang"), (2, "hang_later")] {
        let failure = bench
            .call_with(name, "{}", |spec| spec.timeout_ms = 30)
            .await
            .unwrap_err();
        assert_eq!(failure.cause, Some(Timeout), "{failure:?}");
        assert!(failure.message.contains("within 30ms"), "{failure:?}");
        cancelled.wait_for(|&count| count == n).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_over_there() {
    let fake = Fake::tcp(&["hang", "hang_later"]);
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    let mut started = fake.state.started.subscribe();
    let mut cancelled = fake.state.cancelled.subscribe();
    for (n, name) in [(1, "hang"), (2, "hang_later")] {
        tokio::select! {
            answer = bench.call(name, "{}") => panic!("{answer:?}"),
            begun = started.wait_for(|&count| count == n) => drop(begun.unwrap()),
        }
        cancelled.wait_for(|&count| count == n).await.unwrap();
        assert_eq!(bench.sidecars.list("default")[0].running_calls, 0);
    }
}

#[tokio::test]
async fn a_sidecar_that_dies_in_mid_call_leaves_it_ambiguous_and_the_next_one_not_executed() {
    let fake = Fake::tcp(&["hang", "echo"]);
    let bench = Bench::new(|config| config.tools.sidecar_wait = Period::from_millis(100));
    bench.with(&fake).await;
    let mut started = fake.state.started.subscribe();
    let call = bench.call("hang", "{}");
    tokio::pin!(call);
    tokio::select! {
        answer = &mut call => panic!("{answer:?}"),
        begun = started.wait_for(|&count| count == 1) => drop(begun.unwrap()),
    }
    let echo = bench.spec("echo");
    let (address, script) = fake.kill();
    let failure = call.await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.cause),
        (Ambiguous, Some(Unavailable)),
        "{failure:?}"
    );
    let failure = bench.call_to(echo, "{}").await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.retryable),
        (NotExecuted, true),
        "{failure:?}"
    );
    let calls = script.calls.lock().unwrap().len();
    assert_eq!(calls, 1, "something was sent again by itself");
    let back = Fake::at(&address, script);
    bench.until_healthy().await;
    assert_eq!(bench.tools(), ["fake__echo", "fake__hang"]);
    assert_eq!(bench.call("echo", "{}").await.unwrap().text, "{}");
    drop(back);
}

#[tokio::test]
async fn a_call_waits_for_a_sidecar_that_comes_back() {
    let fake = Fake::tcp(&["echo"]);
    let bench = Bench::new(|config| config.tools.sidecar_wait = Period::from_secs(60));
    bench.with(&fake).await;
    let (address, script) = fake.kill();
    let (answer, _back) = tokio::join!(bench.call("echo", "{}"), async {
        Fake::at(&address, script)
    });
    // It may have been sent before the death was noticed, and never as a success of nobody.
    match answer {
        Ok(output) => assert_eq!(output.text, "{}"),
        Err(failure) => assert_eq!(
            bench.call("echo", "{}").await.unwrap().text,
            "{}",
            "{failure:?}"
        ),
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_at_the_first_bytes() {
    let fake = Fake::tcp(&["huge"]);
    let bench = Bench::new(|_| {});
    let proxy = Proxy::to(fake.address()).await;
    bench.register("fake", &proxy.endpoint).await.unwrap();
    let failure = bench.call("huge", "{}").await.unwrap_err();
    assert_eq!(failure.cause, Some(BadReply), "{failure:?}");
    assert!(failure.message.contains("too large"), "{failure:?}");
    let taken = proxy.bytes_back.load(Ordering::Relaxed);
    assert!(taken < 12 << 20, "{taken} bytes of 100 MiB were taken");
}

#[tokio::test]
async fn a_long_output_is_clamped_and_kept_whole_beside_the_log() {
    let fake = Fake::tcp(&["long"]);
    let bench = Bench::new(|config| config.context.max_tool_output_chars = 1000);
    bench.with(&fake).await;
    let output = bench.call("long", "{}").await.unwrap();
    assert!(output.text.chars().count() <= 1000);
    assert!(output.text.contains("characters left out"));
    assert_eq!(output.full_bytes, Some(80_000));
    let full = output.full.unwrap();
    let blob = loopwright_log::BlobRef {
        sha256: full.sha256,
        bytes: full.bytes,
    };
    let key = StreamKey::parse("session/default/s1").unwrap();
    let kept = bench.log.get_blob(&key, &blob).await.unwrap();
    assert_eq!(kept, "ä".repeat(40_000));
}

#[tokio::test]
async fn a_structured_result_is_kept_beside_the_log_or_the_text_says_why_not() {
    let fake = Fake::tcp(&["bulky", "garbled"]);
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    let bulky = bench.call("bulky", "{}").await.unwrap();
    assert_eq!(
        (bulky.text.as_str(), bulky.structured),
        ("see the table", None)
    );
    let kept = bulky.structured_full.unwrap();
    assert_eq!(kept.media_type, "application/json");
    let blob = loopwright_log::BlobRef {
        sha256: kept.sha256,
        bytes: kept.bytes,
    };
    let key = StreamKey::parse("session/default/s1").unwrap();
    let whole = bench.log.get_blob(&key, &blob).await.unwrap();
    assert_eq!(whole, super::fake::bulky());

    let garbled = bench.call("garbled", "{}").await.unwrap();
    let lines: Vec<_> = garbled.text.lines().collect();
    assert_eq!(lines[0], "summed up");
    assert!(
        lines[1].contains("not valid JSON at line 1, column 10"),
        "{lines:?}"
    );
    assert_eq!((garbled.structured, garbled.structured_full), (None, None));
}

#[tokio::test]
async fn a_tools_own_limit_holds_over_all_sessions() {
    let fake = Fake::tcp(&["gated"]);
    fake.state.tools.lock().unwrap()[0].max_concurrency = 2;
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    let calls = (0..6).map(|_| bench.call("gated", "{}"));
    let mut running = fake.state.running.subscribe();
    let open = async {
        running.wait_for(|&count| count == 2).await.unwrap();
        assert_eq!(bench.sidecars.list("default")[0].running_calls, 2);
        fake.state.gate.add_permits(6);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), open);
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().text == "through")
    );
    assert_eq!(fake.state.most_running.load(Ordering::SeqCst), 2);

    let busy = async {
        running.wait_for(|&count| count == 2).await.unwrap();
        let failure = bench
            .call_with("gated", "{}", |spec| spec.timeout_ms = 20)
            .await
            .unwrap_err();
        assert_eq!(
            (failure.kind, failure.retryable),
            (NotExecuted, true),
            "{failure:?}"
        );
        fake.state.gate.add_permits(2);
    };
    let (one, two, ()) = tokio::join!(bench.call("gated", "{}"), bench.call("gated", "{}"), busy);
    assert!(one.is_ok() && two.is_ok());
}

#[tokio::test]
async fn what_is_too_large_to_send_is_not_sent() {
    let fake = Fake::tcp(&["echo"]);
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(600 << 10));
    let failure = bench.call("echo", &huge).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.retryable),
        (NotExecuted, false),
        "{failure:?}"
    );
    assert!(fake.state.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_ambiguous_and_takes_nobody_down() {
    fn answer(headers: &[(&'static str, &'static str)]) -> http::Response<axum::body::Body> {
        let mut response = http::Response::builder().header("content-type", "application/grpc");
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body("\0\0\0\0\u{7f} no message".into()).unwrap()
    }
    let bad_details = || {
        answer(&[
            ("grpc-status", "13"),
            ("grpc-status-details-bin", "no base64!"),
        ])
    };
    let packed = || answer(&[("grpc-encoding", "zstd")]);
    let garbage = || answer(&[]);
    let cases: [(Raw, _, _); 4] = [
        (bad_details, Ambiguous, Some(BadReply)),
        (packed, Ambiguous, Some(BadReply)),
        (garbage, Ambiguous, Some(BadReply)),
        (|| answer(&[("grpc-status", "12")]), NotExecuted, None),
    ];
    for (n, (raw, kind, cause)) in cases.into_iter().enumerate() {
        let fake = Fake::raw(raw);
        let bench = Bench::new(|_| {});
        bench.with(&fake).await;
        let failure = bench.call("any", "{}").await.unwrap_err();
        assert_eq!(
            (failure.kind, failure.cause),
            (kind, cause),
            "case {n}: {failure:?}"
        );
    }
}
