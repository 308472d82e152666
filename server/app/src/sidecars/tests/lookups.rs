//! Calls whose outcome was lost: what is asked, what is believed, and when asking ends.

use std::sync::atomic::Ordering;

use loopwright_core::Instances;
use loopwright_core::outcome::ToolFailureKind;
use loopwright_log::ReadItem;

use super::fake::{Fake, Proxy, Raw};
use super::*;

/// The words of an answer that says nothing.
fn unknown(answer: LookupAnswer) -> String {
    match answer {
        LookupAnswer::NotKnown(why) => why,
        known => panic!("{known:?}"),
    }
}

fn completed(answer: LookupAnswer) -> String {
    match answer {
        LookupAnswer::Completed(output) => output.text.clone(),
        other => panic!("{other:?}"),
    }
}

async fn bench_with(tools: &[&str]) -> (Bench, Fake) {
    let fake = Fake::tcp(tools);
    for tool in &mut *fake.state.tools.lock().unwrap() {
        tool.supports_lookup = true;
        tool.supports_attach = tool.name != "alone";
    }
    let bench = Bench::new(|config| config.tools.lookup_timeout = Period::from_millis(300));
    bench.with(&fake).await;
    (bench, fake)
}

#[tokio::test]
async fn a_lookup_names_the_call_as_it_was_dispatched() {
    let (bench, fake) = bench_with(&["done"]).await;
    assert_eq!(
        completed(bench.look_up("done", r#"{"n": 1}"#).await),
        "looked up"
    );
    let asked = fake.state.lookups.lock().unwrap()[0].clone();
    assert_eq!(
        (asked.key.as_str(), asked.call.as_str()),
        ("default/s1@1795345899123/c7", "c7")
    );
    assert_eq!(
        (asked.session_id.as_str(), asked.tool.as_str()),
        ("s1", "done")
    );
    assert_eq!((asked.attempt, asked.epoch), (2, 3));
    let first = asked.first_dispatched_at.unwrap();
    assert_eq!((first.seconds, first.nanos), (86_400, 500_000_000));
    let sum = "e5d5f7c1d225fd6b13623ebb1b5b9d075c705659f81868b1e37005a0923b0346";
    assert_eq!(asked.arguments_sha256, sum);
    assert!(fake.state.calls.lock().unwrap().is_empty(), "it was run");
}

#[tokio::test]
async fn a_call_goes_to_the_instance_that_it_is_meant_for_or_nowhere() {
    let fake = Fake::tcp(&["echo", "done"]);
    *fake.state.instance.lock().unwrap() = Some("i1".to_owned());
    let bench = Bench::new(|_| {});
    bench.with(&fake).await;
    let present = bench.sidecars.instances("default");
    assert_eq!(present.of(CallId(7), 1, "fake__echo"), "i1");
    assert_eq!(present.of(CallId(7), 1, "other__echo"), "");
    assert_eq!(bench.sidecars.instances("elsewhere"), Instances::default());

    bench.call_meant_for("i1", "echo").await.unwrap();
    let failure = bench.call_meant_for("i0", "echo").await.unwrap_err();
    assert_eq!(failure.kind, ToolFailureKind::NotExecuted, "{failure:?}");
    assert!(
        failure.retryable && failure.message.contains("started anew"),
        "{failure:?}"
    );
    bench.call("echo", "{}").await.unwrap();
    let sent: Vec<_> = {
        let calls = fake.state.calls.lock().unwrap();
        calls
            .iter()
            .map(|(call, _)| call.instance.clone())
            .collect()
    };
    assert_eq!(sent, [Some("i1".to_owned()), None]);
    bench.look_up_meant_for("i0", "done").await;
    let asked = fake.state.lookups.lock().unwrap()[0].clone();
    assert_eq!(asked.instance.as_deref(), Some("i0"));

    // As one that has no name.
    let wordy = Fake::tcp(&["echo"]);
    *wordy.state.instance.lock().unwrap() = Some("x".repeat(129));
    bench.register("wordy", &wordy.endpoint()).await.unwrap();
    let present = bench.sidecars.instances("default");
    assert_eq!(present.of(CallId(7), 1, "wordy__echo"), "");
}

#[tokio::test]
async fn each_answer_is_told_for_what_it_is() {
    let vague = [
        ("unsure", "it was long ago"),
        ("odd", "not known here"),
        ("refuses", "what is a lookup"),
        ("breaks", "the book is lost"),
        ("mute", "tools.lookup_timeout"),
        ("ends_unsure", "which call?"),
    ];
    let mut tools = vague.map(|(tool, _)| tool).to_vec();
    tools.extend(["never", "ends_never"]);
    let (bench, _fake) = bench_with(&tools).await;
    for (tool, words) in vague {
        let why = unknown(bench.look_up(tool, "{}").await);
        assert!(why.contains(words), "{tool}: {why}");
        assert!(why.contains("sidecar `fake`"), "{tool}: {why}");
    }
    for tool in ["never", "ends_never"] {
        let answer = bench.look_up(tool, "{}").await;
        assert_eq!(answer, LookupAnswer::NeverStarted, "{tool}");
    }
}

#[tokio::test]
async fn a_call_that_runs_is_rejoined_and_its_progress_is_shown() {
    let (bench, fake) = bench_with(&["joins"]).await;
    let mut items = bench.follow().await;
    assert_eq!(completed(bench.look_up("joins", "{}").await), "rejoined");
    let request = fake.state.rejoined.lock().unwrap()[0].clone();
    assert_eq!(
        (request.key.as_str(), request.attempt, request.epoch),
        ("default/s1@1795345899123/c7", 2, 3)
    );
    assert_eq!(request.timeout.unwrap().seconds, 120);
    assert!(request.traceparent.starts_with("00-"));
    let shown = loop {
        if let ReadItem::Progress(progress) = items.next().await.unwrap().unwrap() {
            break progress;
        }
    };
    let said = String::from_utf8_lossy(&shown.payload).into_owned();
    assert!(said.contains("still on it"), "{said}");
}

#[tokio::test]
async fn a_call_that_cannot_be_rejoined_is_looked_up_again() {
    let (bench, fake) = bench_with(&["frail", "alone"]).await;
    let (frail, alone) = tokio::join!(bench.look_up("frail", "{}"), bench.look_up("alone", "{}"));
    assert_eq!(
        (completed(frail), completed(alone)),
        ("looked up".to_owned(), "looked up".to_owned())
    );
    let rejoined = fake.state.rejoined.lock().unwrap();
    let rejoined: Vec<_> = rejoined.iter().map(|call| call.tool.as_str()).collect();
    assert_eq!(rejoined, ["frail"], "one does not serve AttachCall");
}

#[tokio::test]
async fn a_call_that_runs_for_ever_is_given_up_and_cancelled() {
    let (bench, fake) = bench_with(&["endless"]).await;
    let mut cancelled = fake.state.cancelled.subscribe();
    let silent = bench
        .look_up_with("endless", Duration::ZERO, |spec| spec.timeout_ms = 50)
        .await;
    let why = unknown(silent);
    assert!(why.contains("no progress within 50ms"), "{why}");
    cancelled.wait_for(|&count| count == 1).await.unwrap();
    // Most of the time it may have in all was over before it was asked about.
    let began = std::time::Instant::now();
    let passed = Duration::from_secs(3600);
    let why = unknown(bench.look_up_with("endless", passed, |_| {}).await);
    assert!(why.contains("1800s in all"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(20));
    cancelled.wait_for(|&count| count == 2).await.unwrap();
}

#[tokio::test]
async fn giving_up_a_lookup_cancels_the_rejoined_call() {
    let (bench, fake) = bench_with(&["endless"]).await;
    let (mut started, mut cancelled) = (
        fake.state.started.subscribe(),
        fake.state.cancelled.subscribe(),
    );
    tokio::select! {
        answer = bench.look_up("endless", "{}") => panic!("{answer:?}"),
        begun = started.wait_for(|&count| count == 1) => drop(begun.unwrap()),
    }
    cancelled.wait_for(|&count| count == 1).await.unwrap();
}

#[tokio::test]
async fn a_lookup_waits_for_a_sidecar_that_comes_back() {
    let (bench, fake) = bench_with(&["done"]).await;
    let (address, script) = fake.kill();
    let (answer, _back) = tokio::join!(bench.look_up("done", "{}"), async {
        Fake::at(&address, script)
    });
    assert_eq!(completed(answer), "looked up");
}

#[tokio::test]
async fn a_sidecar_that_stays_away_is_waited_for_no_longer_than_calls_wait() {
    let (bench, fake) = bench_with(&["done"]).await;
    let spec = bench.spec("done");
    drop(fake.kill());
    let impatient = Bench::new(|config| config.tools.sidecar_wait = Period::from_millis(50));
    let answer = impatient.look_up_by(spec, "{}", Duration::ZERO).await;
    let why = unknown(answer);
    assert!(why.contains("tools.sidecar_wait"), "{why}");
}

#[tokio::test]
async fn an_endless_result_is_cut_off_at_the_first_bytes() {
    let (_, fake) = bench_with(&["giant", "ends_giant"]).await;
    let proxy = Proxy::to(fake.address()).await;
    let bench = Bench::new(|_| {});
    bench.register("fake", &proxy.endpoint).await.unwrap();
    // Each try to rejoin breaks off; the time it may have in all is over before the second.
    let passed = Duration::from_secs(3600);
    for (tool, words) in [("giant", "too large"), ("ends_giant", "tools.absolute_cap")] {
        let why = unknown(bench.look_up_with(tool, passed, |_| {}).await);
        assert!(why.contains(words), "{tool}: {why}");
    }
    let taken = proxy.bytes_back.load(Ordering::Relaxed);
    assert!(taken < 24 << 20, "{taken} bytes of 200 MiB were taken");
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_takes_nobody_down() {
    fn answer(name: &'static str, value: &'static str) -> http::Response<axum::body::Body> {
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "13")
            .header(name, value);
        response.body("\0\0\0\0\u{7f} no message".into()).unwrap()
    }
    let cases: [Raw; 2] = [
        || answer("grpc-status-details-bin", "no base64!"),
        || answer("grpc-encoding", "zstd"),
    ];
    for raw in cases {
        let fake = Fake::raw(raw);
        let bench = Bench::new(|_| {});
        bench.with(&fake).await;
        unknown(bench.look_up("any", "{}").await);
    }
}
