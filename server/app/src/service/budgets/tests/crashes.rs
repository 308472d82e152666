//! A loop on a shared budget whose process dies at any of its writes, the session's and the ledger's:
//! before the reservation, between it and the session's entry, between that and the settlement.

use std::sync::Arc;

use loopwright_core::{Entry, State};
use loopwright_log::{Log, MemoryLog, ReadItem, ReadMode};
use loopwright_proto::v1::{
    loop_service_server::LoopService as _, start_loop_request::Input as Asked,
};

use super::*;
use crate::{
    config::Config,
    ledger::tests::streams::{Death, Heard, Mortal},
    service::{ServiceState, loops::Loops},
};

/// Two calls, the first of which asks for a tool that is not there.
const SCRIPT: &str = "turns:
- { text: one, usage: { input: 300, output: 20 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: two, usage: { input: 310, output: 30 } }
";

async fn budget(log: &Arc<dyn Log>) {
    let (state, _drain) = fixture::state_over(Arc::clone(log), SCRIPT, Config::default());
    create(&Budgets(state), "team", terms("", 100_000))
        .await
        .unwrap();
}

/// Starts the loop, or finds it started.
async fn begin(state: &ServiceState) -> Result<(), Status> {
    let request = v1::StartLoopRequest {
        request_id: "go".to_owned(),
        session_id: "s".to_owned(),
        agent: Some(v1::Agent {
            model: "m".to_owned(),
            budgets: vec!["team".to_owned()],
            ..v1::Agent::default()
        }),
        input: Some(Asked::Text("go".to_owned())),
        ..v1::StartLoopRequest::default()
    };
    let started = Loops(state.clone()).start_loop(asked(request)).await;
    started.map(drop)
}

/// The session as its log says it is.
async fn session(log: &Arc<dyn Log>) -> State {
    let mut state = State::default();
    let mut records = log.read(&fixture::key("s"), 0, ReadMode::ToTail);
    while let Some(Ok(item)) = records.next().await {
        if let ReadItem::Fact(record) = item {
            let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
            state.apply_entry(record.seq, &entry);
        }
    }
    state
}

fn is_over(state: &State) -> bool {
    state.active.is_none() && !state.ended.is_empty() && state.settling.is_empty()
}

/// Until the session is over, or the process has died.
async fn until(log: &Arc<dyn Log>, died: impl Fn() -> bool) {
    while !died() && !is_over(&session(log).await) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The whole life of a loop whose process dies at one write; whether it did, and how many of its writes
/// were under way at once.
async fn dies_at(writes: u64, death: Death, heard: Heard) -> (bool, u64) {
    let memory = MemoryLog::new();
    let log: Arc<dyn Log> = Arc::clone(&memory) as Arc<dyn Log>;
    budget(&log).await;
    let mortal = Mortal::heard(&memory, writes, death, heard);
    let over: Arc<dyn Log> = Arc::clone(&mortal) as Arc<dyn Log>;
    let (first, drain) = fixture::state_over(over, SCRIPT, Config::default());
    let began = begin(&first).await;
    assert!(began.is_ok() || mortal.is_dead(), "{began:?}");
    until(&log, || mortal.is_dead()).await;
    let died = mortal.is_dead();
    drain.begin();

    let (second, _drain) = fixture::state_over(Arc::clone(&log), SCRIPT, Config::default());
    second.drivers.recover().await.unwrap();
    begin(&second).await.unwrap();
    until(&log, || false).await;
    let name = format!("{death:?} at write {writes}");
    let orphans = second.ledgers.settle_orphans(Clock.now().plus(1)).await;
    assert_eq!(orphans, Ok(0), "{name}: its session settled all of it");
    let team = get(&Budgets(second), "team").await;
    assert_eq!(team.open_reservations, 0, "{name}");
    let settled = team.settled.unwrap();
    let told = session(&log).await.totals;
    assert_eq!(
        (settled.input_tokens, settled.output_tokens),
        (told.usage.prompt(), told.usage.output),
        "{name}: the budget is charged with what the session says"
    );
    assert!(settled.input_tokens >= 610, "{name}: both calls count");
    (died, mortal.most_unheard())
}

#[tokio::test]
async fn whatever_write_a_crash_takes_nothing_leaks_and_all_is_charged() {
    for death in [Death::Before, Death::After] {
        let mut writes = 1;
        while dies_at(writes, death, Heard::AtOnce).await.0 {
            writes += 1;
        }
        assert!(writes > 10, "only {writes} writes were tried");
    }
}

#[tokio::test]
async fn nor_where_a_step_waits_for_all_of_its_writes_at_once() {
    for death in [Death::Before, Death::After] {
        let (mut writes, mut most) = (1, 0);
        loop {
            let (died, at_once) = dies_at(writes, death, Heard::Later).await;
            most = most.max(at_once);
            if !died {
                break;
            }
            writes += 1;
        }
        assert!(writes > 10, "only {writes} writes were tried");
        assert!(most >= 3, "at most {most} writes were under way at once");
    }
}
