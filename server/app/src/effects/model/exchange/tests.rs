//! How long a stream may be silent.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use loopwright_core::ids::CallId;
use loopwright_log::{Id, MemoryLog, StreamKey};
use tokio::time::sleep;

use super::*;

const IDLE: Duration = Duration::from_secs(20);

fn sink() -> ProgressSink {
    let id = |text: &str| text.parse::<Id>().expect("an id");
    let key = StreamKey::session(&id("n"), &id("s"));
    ProgressSink::new(MemoryLog::new(), key, 1, CallId(1), 1)
}

/// These bytes, each so many seconds after the ones before.
fn body(
    pieces: &'static [(u64, &'static str)],
) -> Events<BoxStream<'static, Result<Bytes, reqwest::Error>>, reqwest::Error> {
    let said = stream::iter(pieces).then(|(seconds, text)| async move {
        sleep(Duration::from_secs(*seconds)).await;
        Ok(Bytes::from_static(text.as_bytes()))
    });
    Events::new(said.boxed())
}

#[tokio::test(start_paused = true)]
async fn each_event_starts_the_idle_timeout_anew() {
    let mut events = body(&[
        (15, "data: a\n\n"),
        (15, "data: b\n\n"),
        (15, "data: c\n\n"),
        (21, "data: d\n\n"),
    ]);
    let mut sink = sink();
    for want in ["a", "b", "c"] {
        let event = next_event(&mut events, IDLE, &mut sink).await;
        let event = event.expect("in time").expect("an event");
        assert_eq!(event.data, want);
    }
    let silent = next_event(&mut events, IDLE, &mut sink).await;
    assert_eq!(
        silent.expect_err("21 seconds are too long").kind,
        ModelFailureKind::Stalled
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_event_keep_no_stream_alive() {
    let mut events = body(&[(9, ": still here\n\n"), (9, "data: ha"), (9, "lf\n\n")]);
    let silent = next_event(&mut events, IDLE, &mut sink()).await;
    assert_eq!(
        silent.expect_err("no event in 20 seconds").kind,
        ModelFailureKind::Stalled
    );
}
