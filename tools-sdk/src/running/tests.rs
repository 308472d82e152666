//! How calls are stopped, on a paused clock.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::pending;

use tonic::transport::server::Connected as _;

use super::*;
use crate::connection::Watched;

async fn outcome_of(running: &Arc<Running>) -> Outcome {
    running.listen(Leaving::Nothing).outcome().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_ignores_its_end_is_dropped_after_its_grace() {
    let running = Running::new(CancellationToken::new());
    let started = Instant::now();
    drop(running.listen(Leaving::Stops));
    assert!(running.stop.is_cancelled(), "its listener is gone");
    let outcome = running.run_to_end(pending(), None).await;
    running.publish(outcome);
    assert_eq!(started.elapsed().as_secs(), STOP_GRACE.as_secs());
    let outcome = outcome_of(&running).await;
    assert!(
        !outcome.is_success() && !outcome.is_not_executed(),
        "{outcome:?}"
    );
    assert!(
        outcome.text().contains("may have done a part"),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_stops_a_call_that_nobody_cancels() {
    let running = Running::new(CancellationToken::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    let stop = running.stop.clone();
    let work = async move {
        stop.cancelled().await;
        Ok(Answer::text("wound up"))
    };
    let outcome = running.run_to_end(work, Some(deadline)).await;
    running.publish(outcome);
    assert_eq!(Instant::now(), deadline);
    assert_eq!(outcome_of(&running).await.text(), "wound up");
}

#[tokio::test]
async fn a_listener_that_lags_misses_progress_and_not_the_outcome() {
    let running = Running::new(CancellationToken::new());
    let mut listener = running.listen(Leaving::Stops);
    for number in 0..1000 {
        let progress = Progress {
            fraction: None,
            message: number.to_string(),
        };
        running.progress.send(progress).unwrap();
    }
    let outcome = running
        .run_to_end(async { Ok(Answer::text("done")) }, None)
        .await;
    running.publish(outcome);
    let mut heard = Vec::new();
    loop {
        match listener.next().await {
            Heard::Progress(progress) => heard.push(progress.message),
            Heard::Outcome(outcome) => break assert_eq!(outcome.text(), "done"),
            Heard::Lost => panic!("lost"),
        }
    }
    assert_eq!(heard.len(), PROGRESS_KEPT);
    assert_eq!(heard.last().unwrap(), "999");
}

#[tokio::test(start_paused = true)]
async fn a_listener_whose_connection_was_lost_does_not_stop_the_call_and_others_do_at_last() {
    let running = Running::new(CancellationToken::new());
    let on = |connection: &Connection| running.listen(Leaving::StopsUnlessLost(connection.clone()));
    let (lost, losing) = connection();
    drop(on(&lost));
    // The stream is dropped first, then the connection.
    tokio::time::advance(LOSS_NOTICED / 2).await;
    drop(losing);
    tokio::time::advance(LOSS_NOTICED * 2).await;
    tokio::task::yield_now().await;
    assert!(
        !running.stop.is_cancelled(),
        "whoever lost it may come back"
    );

    let (there, _socket) = connection();
    let (one, other) = (on(&there), on(&there));
    drop(one);
    tokio::time::advance(LOSS_NOTICED * 2).await;
    tokio::task::yield_now().await;
    assert!(!running.stop.is_cancelled(), "somebody listens");
    drop(other);
    running.stop.cancelled().await;
}

fn connection() -> (Connection, Watched<()>) {
    let socket = Watched::new(());
    (socket.connect_info(), socket)
}
