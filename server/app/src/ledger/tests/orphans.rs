//! Reservations that nobody will settle, told from those that somebody will.

use loopwright_core::{
    Cause, Entry, Input, State, What,
    agent::{Agent, Limits, ToolSet},
    decide,
    input::{Command, Create, StartLoop},
    ledger::Used,
};
use loopwright_log::StreamKey;

use super::*;

const BORN: Timestamp = Timestamp(1_000);

/// Writes a session whose loop asks for the reservation of its first call.
async fn reserving(log: &dyn Log, session: &str) {
    let agent = Agent {
        budgets: vec!["b".to_owned()],
        ..Agent::default()
    };
    let by = Command::default;
    let create = Create {
        by: by(),
        session: session.to_owned(),
        namespace: "default".to_owned(),
        agent: Arc::new(agent),
        limits: Arc::new(Limits::default()),
        tools: ToolSet::new(Vec::new()),
        labels: std::collections::BTreeMap::default(),
    };
    let attach = What::Attach {
        epoch: 1,
        cut_bytes: None,
        server: String::new(),
    };
    let start = StartLoop {
        by: by(),
        parts: Arc::new(vec![loopwright_core::message::Part::Text("go".to_owned())]),
        agent: None,
        limits: None,
        traceparent: None,
    };
    let key = StreamKey::session(&default_namespace(), &Id::parse(session).unwrap());
    let mut state = State::default();
    for what in [What::Create(create), attach, What::StartLoop(start)] {
        let input = Input::new(BORN, what);
        let cause: Cause = input.cause();
        let entry = Entry::new(cause, decide(&state, input).unwrap());
        let body = serde_json::to_vec(&entry).unwrap();
        let record = NewRecord::new(At::from_unix_ms(BORN.0), 1, body.into());
        let seq = log.append(&key, state.seq, record).await.unwrap();
        state.apply_entry(seq, &entry);
    }
}

fn of(session: &str, born: Timestamp, attempt: u32) -> HoldId {
    HoldId::of_call(session, born, CallId(1), attempt)
}

async fn reserve(ledgers: &Ledgers, hold: HoldId) {
    let Request::ReserveCall { budgets, ask, .. } = call(1) else {
        panic!("a call reserves");
    };
    let request = Request::ReserveCall { hold, budgets, ask };
    ledgers.ask(&default_namespace(), request).await.unwrap();
}

async fn open(ledgers: &Ledgers) -> Vec<HoldId> {
    let look = |ledger: &Ledger, _| ledger.holds.keys().cloned().collect();
    ledgers.look(&default_namespace(), look).await.unwrap()
}

#[tokio::test]
async fn what_no_session_knows_of_counts_as_used_and_the_rest_stays() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let ledgers = Ledgers::new(Arc::clone(&log), Clock);
    let namespace = default_namespace();
    ledgers.ask(&namespace, create("b", 10_000)).await.unwrap();
    reserving(&*log, "alive").await;
    let newer = StreamKey::session(&namespace, &Id::parse("newer").unwrap());
    let body = br#"{"cause":{"levitate":{}},"events":[]}"#.to_vec();
    let record = NewRecord::new(At::from_unix_ms(1), 0, body.into());
    log.append(&newer, 0, record).await.unwrap();
    let kept = [of("alive", BORN, 1), of("newer", BORN, 1)];
    let orphans = [
        of("alive", BORN, 2),
        of("alive", Timestamp(7), 1),
        of("deleted", BORN, 1),
    ];
    for hold in kept.iter().chain(&orphans) {
        reserve(&ledgers, hold.clone()).await;
    }
    let client = Request::Reserve {
        hold: HoldId::of_client("x"),
        budgets: vec![Name::from("b")],
        amount: Amount {
            input: 5,
            ..Amount::default()
        },
        expires_at: Clock.now().plus(60_000),
    };
    ledgers.ask(&namespace, client).await.unwrap();
    let before = used(&ledgers).await;
    // After a restart, too: what is set aside is in the log.
    let ledgers = Ledgers::new(log, Clock);
    assert_eq!(
        ledgers.settle_orphans(Timestamp(0)).await,
        Ok(0),
        "of an earlier time"
    );
    let settled = ledgers.settle_orphans(Clock.now().plus(1)).await;
    assert_eq!(settled, Ok(orphans.len()));
    let left = open(&ledgers).await;
    assert_eq!(left.len(), kept.len() + 1, "{left:?}");
    assert!(kept.iter().all(|hold| left.contains(hold)), "{left:?}");
    assert_eq!(used(&ledgers).await, before, "used whole");
    assert_eq!(ledgers.settle_orphans(Clock.now().plus(1)).await, Ok(0));
}

#[tokio::test]
async fn a_settlement_that_was_lost_is_made_up_for() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let ledgers = Ledgers::new(Arc::clone(&log), Clock);
    let namespace = default_namespace();
    ledgers.ask(&namespace, create("b", 10_000)).await.unwrap();
    reserving(&*log, "s").await;
    let hold = of("s", BORN, 1);
    reserve(&ledgers, hold.clone()).await;
    assert_eq!(ledgers.settle_orphans(Clock.now().plus(1)).await, Ok(0));
    log.remove(&StreamKey::session(&namespace, &Id::parse("s").unwrap()))
        .await
        .unwrap();
    assert_eq!(ledgers.settle_orphans(Clock.now().plus(1)).await, Ok(1));
    let used = Used::Reported(Amount::default());
    let late = ledgers
        .ask(&namespace, Request::Settle { hold, used })
        .await;
    assert_eq!(late, Ok(Answer::Done), "it has ended");
}
