//! Giving up, stage by stage.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures_util::FutureExt as _;
use loopwright_core::{
    ids::{CallId, Timestamp},
    input::TimerWhy,
    message::ToolOutput,
};

use super::*;

const CALL: CallId = CallId(7);

fn answer() -> What {
    What::ToolCompleted {
        call: CALL,
        attempt: 1,
        output: Arc::new(ToolOutput::default()),
    }
}

fn key() -> EffectKey {
    EffectKey::Tool {
        call: CALL,
        attempt: 1,
    }
}

fn tool(future: BoxFuture<'static, What>, flight: &Flight) -> (Effect, Running) {
    let work = Work {
        future,
        flight: flight.clone(),
        attempt: 1,
    };
    Effect::new(key(), work)
}

#[tokio::test]
async fn what_was_not_sent_is_never_looked_at_again() {
    let (effect, running) = tool(
        Box::pin(async { panic!("it went and sent") }),
        &Flight::default(),
    );
    drop(running);
    assert!(effect.await.is_none());
}

#[tokio::test]
async fn an_answer_that_is_here_when_the_effect_is_given_up_is_told_as_late() {
    let flight = Flight::default();
    let (told, heard) = tokio::sync::oneshot::channel();
    let (mut effect, running) = tool(Box::pin(heard.map(Result::unwrap)), &flight);
    flight.sent();
    assert!((&mut effect).now_or_never().is_none());
    // The answer comes while the driver writes the cancel down.
    told.send(answer()).ok().unwrap();
    drop(running);
    let done = effect.await.unwrap();
    assert!(done.late);
    assert_eq!((done.key, done.attempt), (key(), 1));
    assert!(matches!(done.what, What::ToolCompleted { .. }));
}

#[tokio::test]
async fn what_is_under_way_without_an_answer_is_dropped_at_once() {
    let flight = Flight::default();
    flight.sent();
    let (effect, running) = tool(Box::pin(std::future::pending()), &flight);
    drop(running);
    assert!(effect.await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_to_the_end() {
    let flight = Flight::default();
    flight.sent();
    let heard = flight.clone();
    let keeps = async move {
        heard.answered();
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer()
    };
    let (mut effect, running) = tool(Box::pin(keeps), &flight);
    assert!((&mut effect).now_or_never().is_none());
    drop(running);
    assert!(effect.await.unwrap().late);
}

#[tokio::test]
async fn dropping_the_handle_wakes_the_effect() {
    let at = Timestamp(1);
    let why = TimerWhy::RetryTool(CALL);
    let waits = Work::new(Box::pin(std::future::pending()));
    let (effect, running) = Effect::new(EffectKey::Timer { at, why }, waits);
    let ended = tokio::spawn(effect);
    tokio::task::yield_now().await;
    drop(running);
    assert!(ended.await.unwrap().is_none());
}
