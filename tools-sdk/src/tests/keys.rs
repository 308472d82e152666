//! A deduplicated tool runs once for a key, whoever asks and however often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use loopwright_proto::v1::call_tool_response::Kind;
use tokio::sync::Semaphore;

use super::*;
use crate::{Tool, ToolContext};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Add {
    amount: u32,
}

/// What the tool touches: it runs once for each permit of the gate.
struct Account {
    runs: AtomicU32,
    gate: Semaphore,
}

impl Account {
    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

/// A sidecar that adds an amount once the gate lets it.
fn account() -> (Arc<Account>, Sidecar) {
    let account = Arc::new(Account {
        runs: AtomicU32::new(0),
        gate: Semaphore::new(0),
    });
    let touched = Arc::clone(&account);
    let add = move |ctx: ToolContext, args: Add| {
        let account = Arc::clone(&touched);
        async move {
            ctx.progress(None, "begun");
            tokio::select! {
                permit = account.gate.acquire() => permit?.forget(),
                () = ctx.cancelled() => return Ok("it was cancelled".to_owned()),
            }
            let run = account.runs.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(format!("run {run} added {}", args.amount))
        }
    };
    let tool = Tool::new("add", "Adds.", add).deduplicated(Duration::from_secs(3600));
    (account, Sidecar::new("account").tool(tool))
}

/// The first attempt of the one call, by the first driver.
fn add(amount: u32) -> CallToolRequest {
    request("add", &format!(r#"{{"amount":{amount}}}"#))
}

/// What a call comes to.
async fn told(client: &mut Client, request: CallToolRequest) -> String {
    last(call(client, request).await).await.1
}

#[tokio::test]
async fn a_second_connection_joins_the_running_call_and_a_third_gets_its_result() {
    let (account, sidecar) = account();
    let (serving, mut first) = served(sidecar).await;
    let mut second = dial(serving.endpoint()).await;
    let mut one = call(&mut first, add(5)).await;
    assert!(matches!(next(&mut one).await, Some(Kind::Progress(_))));
    let two = call(&mut second, add(5)).await;
    account.gate.add_permits(10);
    assert_eq!(last(one).await.1, "run 1 added 5");
    assert_eq!(last(two).await.1, "run 1 added 5");
    let mut third = dial(serving.endpoint()).await;
    let later = CallToolRequest {
        attempt: 2,
        epoch: 4,
        ..add(5)
    };
    assert_eq!(told(&mut third, later).await, "run 1 added 5");
    assert_eq!(account.runs(), 1);
}

#[tokio::test]
async fn the_call_goes_on_when_its_caller_dies() {
    let (account, sidecar) = account();
    let (serving, mut doomed) = served(sidecar).await;
    let mut stream = call(&mut doomed, add(5)).await;
    assert!(matches!(next(&mut stream).await, Some(Kind::Progress(_))));
    drop((stream, doomed));
    let mut heir = dial(serving.endpoint()).await;
    let again = CallToolRequest {
        attempt: 2,
        epoch: 2,
        ..add(5)
    };
    let joined = call(&mut heir, again).await;
    account.gate.add_permits(10);
    assert_eq!(last(joined).await.1, "run 1 added 5");
    assert_eq!(account.runs(), 1);
}

#[tokio::test]
async fn a_known_key_with_other_arguments_or_a_lower_epoch_is_refused() {
    let (account, sidecar) = account();
    account.gate.add_permits(10);
    let (_serving, mut client) = served(sidecar).await;
    let first = CallToolRequest { epoch: 3, ..add(5) };
    assert_eq!(told(&mut client, first).await, "run 1 added 5");

    let other = CallToolRequest { epoch: 3, ..add(6) };
    let zombie = CallToolRequest { epoch: 2, ..add(5) };
    let keyless = CallToolRequest {
        key: String::new(),
        ..add(5)
    };
    for (refused, expected) in [
        (other, "other arguments"),
        (zombie, "epoch 3 has taken over"),
        (keyless, "no key"),
    ] {
        let (kind, text) = last(call(&mut client, refused).await).await;
        assert!(matches!(kind, Kind::NotExecuted(_)), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let own_key = CallToolRequest {
        key: "default/s1/c2".into(),
        ..add(6)
    };
    assert_eq!(told(&mut client, own_key).await, "run 2 added 6");
    assert_eq!(account.runs(), 2);
}

#[tokio::test]
async fn the_harness_deduplicates_too() {
    let (account, sidecar) = account();
    account.gate.add_permits(10);
    let args = serde_json::json!({"amount": 1});
    for _ in 0..2 {
        let outcome = sidecar
            .call_keyed("add", args.clone(), "n/s/c1")
            .await
            .unwrap();
        assert_eq!(outcome.text(), "run 1 added 1");
    }
    assert_eq!(
        sidecar.call("add", args).await.unwrap().text(),
        "run 2 added 1"
    );
    assert_eq!(account.runs(), 2);
}

#[tokio::test]
async fn a_restarted_sidecar_answers_an_old_key_with_the_old_result() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys.jsonl");
    let (first, sidecar) = account();
    first.gate.add_permits(1);
    let (serving, mut client) = served(sidecar.remember_in(&keys)).await;
    assert_eq!(told(&mut client, add(5)).await, "run 1 added 5");
    within(serving.shutdown()).await.unwrap();

    let (second, sidecar) = account();
    second.gate.add_permits(1);
    let (_serving, mut client) = served(sidecar.remember_in(&keys)).await;
    let again = CallToolRequest {
        attempt: 2,
        epoch: 2,
        ..add(5)
    };
    assert_eq!(told(&mut client, again).await, "run 1 added 5");
    let other = CallToolRequest { epoch: 2, ..add(6) };
    assert!(matches!(
        last(call(&mut client, other).await).await.0,
        Kind::NotExecuted(_)
    ));
    assert_eq!(second.runs(), 0);
}
