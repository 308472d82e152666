#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use loopwright_core::{
    Entry, Event, Rejection, What,
    agent::{Agent, Limits, ToolSet},
    input::{Command, Create, Mode, SendMessage, StartLoop},
    message::Part,
    outcome::EndReason,
};
use loopwright_log::{AppendError, Log, MemoryLog, NewRecord, ReadItem, ReadMode, StreamKey};

use super::{CommandError, CutTails, Drivers, World, world::Clock};
use crate::{
    config::Config,
    drain::Drain,
    effects::model::{Models, ModelsOptions},
    index::Index,
    redaction::Fields,
    sidecars::Sidecars,
    telemetry::Telemetry,
};

mod doubts;
mod leaks;
mod losses;
mod offers;
mod starts;

pub(super) const QUICK: &str = "turns:\n- text: one\n- text: two\n";
pub(super) const SLOW: &str = "at_end: repeat\nturns:\n- text: late\n  delay_ms: 3600000\n";

pub(super) struct Rig {
    pub(super) log: Arc<dyn Log>,
    pub(super) index: Arc<Index>,
    sidecars: Arc<Sidecars>,
    pub(super) drivers: Arc<Drivers>,
    telemetry: Telemetry,
    pub(super) drain: Drain,
}

impl Rig {
    /// Starts a loop of a session, which is made where there is none.
    pub(super) async fn begin(&self, id: &str, request_id: &str) {
        let (key, create) = (key(id), create(id));
        let started = self.drivers.start_loop(&key, create, start(request_id));
        started.await.unwrap();
    }
}

fn rig_on(log: Arc<dyn Log>, script: &str) -> Rig {
    rig_with(log, script, |_| {})
}

pub(super) fn rig(script: &str) -> Rig {
    rig_on(MemoryLog::new(), script)
}

/// A register on this log, in a world that `change` makes another one; two sessions have room in it.
pub(super) fn rig_with(log: Arc<dyn Log>, script: &str, change: impl FnOnce(&mut World)) -> Rig {
    let (drain, signal) = Drain::new();
    let config = Config::default();
    let scripts = BTreeMap::from([("m".to_owned(), script.to_owned())]);
    let options = ModelsOptions {
        scripts,
        ..ModelsOptions::default()
    };
    let mut world = World {
        fields: Fields::default(),
        log: Arc::clone(&log),
        index: Index::new(Arc::clone(&log)),
        cut: CutTails::default(),
        models: Models::new(&config, &BTreeMap::new(), options).unwrap(),
        ledgers: crate::ledger::Ledgers::new(Arc::clone(&log), Clock),
        sidecars: Sidecars::new(&config, Arc::clone(&log), Telemetry::off()),
        telemetry: Telemetry::off(),
        clock: Clock,
        drain: signal,
        max_active: 2,
        session_bytes: 20_000,
        first_wait: Duration::from_millis(1),
    };
    change(&mut world);
    Rig {
        log,
        index: Arc::clone(&world.index),
        sidecars: Arc::clone(&world.sidecars),
        telemetry: world.telemetry.clone(),
        drivers: Drivers::new(Arc::new(world)),
        drain,
    }
}

pub(super) fn key(id: &str) -> StreamKey {
    StreamKey::session(&"default".parse().unwrap(), &id.parse().unwrap())
}

pub(super) fn by(request_id: &str) -> Command {
    Command {
        request_id: request_id.to_owned(),
        principal: "ann".to_owned(),
    }
}

pub(super) fn create(id: &str) -> Create {
    Create {
        by: by("r1"),
        session: id.to_owned(),
        namespace: "default".to_owned(),
        agent: Arc::new(Agent {
            model: "m".to_owned(),
            ..Agent::default()
        }),
        limits: Arc::new(Limits::default()),
        labels: BTreeMap::new(),
        tools: Arc::new(ToolSet::default()),
    }
}

pub(super) fn start(request_id: &str) -> StartLoop {
    StartLoop {
        by: by(request_id),
        parts: Arc::new(vec![Part::Text("go".to_owned())]),
        agent: None,
        limits: None,
        traceparent: None,
    }
}

pub(super) fn cancel(request_id: &str) -> What {
    What::CancelLoop {
        by: by(request_id),
        guard: None,
        reason: String::new(),
    }
}

/// A register that drives nothing, on a log in memory.
pub(super) fn idle_drivers() -> (Arc<Drivers>, Drain) {
    let rig = rig(QUICK);
    (rig.drivers, rig.drain)
}

/// The events of a session until a loop has ended `ends` times.
pub(super) async fn until_ended(log: &Arc<dyn Log>, key: &StreamKey, ends: usize) -> Vec<Event> {
    let mut seen = Vec::new();
    let mut items = log.read(key, 0, ReadMode::Follow);
    loop {
        let ReadItem::Fact(record) = items.next().await.unwrap().unwrap() else {
            continue;
        };
        let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
        seen.extend(entry.events);
        let ended = seen
            .iter()
            .filter(|event| matches!(event, Event::LoopEnded(_)))
            .count();
        if ended == ends {
            return seen;
        }
    }
}

pub(super) fn reasons(events: &[Event]) -> Vec<EndReason> {
    let reason = |event: &Event| match event {
        Event::LoopEnded(ended) => Some(ended.reason.clone()),
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}

pub(super) fn epochs(events: &[Event]) -> Vec<u64> {
    let epoch = |event: &Event| match event {
        Event::DriverAttached(attached) => Some(attached.epoch),
        _ => None,
    };
    events.iter().filter_map(epoch).collect()
}

#[tokio::test]
async fn a_loop_is_created_attached_and_run_to_its_end() {
    let rig = rig(QUICK);
    let answer = rig
        .drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    assert_eq!((answer.seq, answer.loop_id.to_string().as_str()), (3, "l1"));
    let events = until_ended(&rig.log, &key("a"), 1).await;
    let kinds: Vec<&str> = events.iter().map(Event::kind).collect();
    assert_eq!(
        kinds,
        [
            "SessionCreated",
            "DriverAttached",
            "MessageAdded",
            "LoopStarted",
            "ModelCallStarted",
            "ModelCallCompleted",
            "LoopEnded"
        ]
    );
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_and_runs_once() {
    let rig = rig(QUICK);
    let first = rig
        .drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    until_ended(&rig.log, &key("a"), 1).await;
    let again = rig
        .drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    assert_eq!(first, again);
    rig.drivers
        .start_loop(&key("a"), create("a"), start("r2"))
        .await
        .unwrap();
    let events = until_ended(&rig.log, &key("a"), 2).await;
    assert_eq!(
        reasons(&events),
        [EndReason::Completed, EndReason::Completed]
    );
}

#[tokio::test]
async fn refused_commands_leave_no_trace() {
    let rig = rig(QUICK);
    let missing = rig.drivers.command(&key("a"), cancel("r1")).await;
    assert!(
        matches!(missing, Err(CommandError::NotFound)),
        "{missing:?}"
    );
    assert_eq!(rig.log.tail(&key("a")).await.unwrap(), None);
    rig.drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    until_ended(&rig.log, &key("a"), 1).await;
    let tail = rig.log.tail(&key("a")).await.unwrap();
    let idle = rig.drivers.command(&key("a"), cancel("r2")).await;
    assert!(
        matches!(idle, Err(CommandError::Rejected(Rejection::NoLoopRunning))),
        "{idle:?}"
    );
    assert_eq!(rig.log.tail(&key("a")).await.unwrap(), tail);
}

#[tokio::test]
async fn cancel_ends_a_loop_whose_model_is_silent() {
    let rig = rig(SLOW);
    rig.drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    rig.drivers.command(&key("a"), cancel("r2")).await.unwrap();
    let events = until_ended(&rig.log, &key("a"), 1).await;
    let cancelled = EndReason::Cancelled {
        by: "ann".to_owned(),
        reason: String::new(),
    };
    assert_eq!(reasons(&events), [cancelled]);
}

#[tokio::test]
async fn a_driver_that_lost_the_fence_is_replaced_and_the_loop_goes_on() {
    let rig = rig(SLOW);
    rig.drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    // Somebody else writes to the session: the next append of its driver finds another tail.
    let tail = rig.log.tail(&key("a")).await.unwrap().unwrap();
    let body = "{\"cause\":\"attach\",\"events\":[{\"DriverAttached\":{\"epoch\":2}}]}";
    let record = NewRecord::new(loopwright_log::Timestamp::from_unix_ms(1), 2, body.into());
    rig.log.append(&key("a"), tail, record).await.unwrap();
    let lost = rig.drivers.command(&key("a"), cancel("r2")).await;
    assert!(matches!(lost, Err(CommandError::Log(_))), "{lost:?}");
    // The same request again reaches the driver that follows.
    rig.drivers.command(&key("a"), cancel("r2")).await.unwrap();
    let events = until_ended(&rig.log, &key("a"), 1).await;
    assert_eq!(epochs(&events), [1, 2, 3]);
}

#[tokio::test]
async fn what_was_running_is_taken_up_at_the_next_start() {
    let first = rig(SLOW);
    first
        .drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    first
        .drivers
        .start_loop(&key("b"), create("b"), start("r1"))
        .await
        .unwrap();
    first
        .drivers
        .command(&key("b"), cancel("r2"))
        .await
        .unwrap();
    first.drain.begin();
    first.drivers.drained().await;
    let next = rig_on(Arc::clone(&first.log), QUICK);
    assert_eq!(
        next.drivers.recover().await.unwrap(),
        1,
        "b has ended and is left alone"
    );
    let events = until_ended(&next.log, &key("a"), 1).await;
    assert_eq!(reasons(&events), [EndReason::Completed]);
    assert_eq!(epochs(&events), [1, 2]);
}

#[tokio::test]
async fn a_draining_server_takes_no_command_and_a_full_one_says_so() {
    let rig = rig(SLOW);
    for id in ["a", "b"] {
        rig.drivers
            .start_loop(&key(id), create(id), start("r1"))
            .await
            .unwrap();
    }
    let full = rig
        .drivers
        .start_loop(&key("c"), create("c"), start("r1"))
        .await;
    assert!(
        matches!(full, Err(CommandError::TooManySessions { limit: 2 })),
        "{full:?}"
    );
    rig.drain.begin();
    let draining = rig.drivers.command(&key("a"), cancel("r2")).await;
    assert!(
        matches!(draining, Err(CommandError::Draining)),
        "{draining:?}"
    );
}

#[tokio::test]
async fn a_message_to_a_running_loop_waits_for_the_next_one() {
    let rig = rig("turns:\n- text: one\n  delay_ms: 50\n- text: two\n");
    rig.drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    let message = What::SendMessage(SendMessage {
        by: by("r2"),
        parts: Arc::new(vec![Part::Text("and then".to_owned())]),
        mode: Mode::Queue,
        guard: None,
        agent: None,
        limits: None,
        traceparent: None,
    });
    rig.drivers.command(&key("a"), message).await.unwrap();
    let events = until_ended(&rig.log, &key("a"), 2).await;
    assert_eq!(
        reasons(&events),
        [EndReason::Completed, EndReason::Completed]
    );
}

#[tokio::test]
async fn a_session_that_is_full_ends_its_loop_and_takes_no_more_messages() {
    let words = "many words ".repeat(200);
    let script = format!(
        "at_end: repeat\nturns:\n- text: {words}\n  tool_calls:\n  - tool: none__such\n    arguments: {{}}\n"
    );
    let rig = rig(&script);
    rig.drivers
        .start_loop(&key("a"), create("a"), start("r1"))
        .await
        .unwrap();
    let events = until_ended(&rig.log, &key("a"), 1).await;
    let [EndReason::Cancelled { by, reason }] = &*reasons(&events) else {
        panic!("{:?}", reasons(&events))
    };
    assert_eq!(by, "loopwright");
    assert!(reason.contains("limits.session_bytes = 20000"), "{reason}");
    let full = rig
        .drivers
        .start_loop(&key("a"), create("a"), start("r2"))
        .await;
    let too_large = AppendError::TooLarge {
        size: 0,
        limit: 20_000,
    };
    let Err(CommandError::Log(AppendError::TooLarge { limit, .. })) = full else {
        panic!("{full:?} is not {too_large:?}")
    };
    assert_eq!(limit, 20_000);
}

/// Time is paused: whoever sleeps wakes at once, and looks at the real clock again.
#[tokio::test(start_paused = true)]
async fn a_session_that_only_waits_is_let_go_and_woken_when_its_time_has_come() {
    let rig =
        rig("turns:\n- fail: { kind: rate_limited, retry_after_ms: 200, times: 1 }\n  text: one\n");
    let mut limits = Limits::default();
    limits.retry.base_delay_ms = 1;
    let create = Create {
        limits: Arc::new(limits),
        ..create("a")
    };
    let began = Clock.now();
    rig.drivers
        .start_loop(&key("a"), create, start("r1"))
        .await
        .unwrap();
    let key = key("a");
    let ended = until_ended(&rig.log, &key, 1);
    let events = tokio::time::timeout(Duration::from_secs(100_000_000), ended);
    let events = events.await.unwrap();
    assert_eq!(reasons(&events), [EndReason::Completed]);
    assert_eq!(epochs(&events), [1, 2], "let go once, and woken once");
    // In whole milliseconds, as the server counts.
    let waited = Clock.now().0 - began.0;
    assert!(waited >= 200, "{waited} ms");
}

#[tokio::test]
async fn meters_say_how_each_attempt_came_to_its_end() {
    let rig = rig(
        "turns:\n- fail: { kind: rate_limited, times: 1 }\n  text: late\n  \
         chunk: { chars: 1, delay_ms: 3600000 }\n",
    );
    let mut limits = Limits::default();
    limits.retry.base_delay_ms = 1;
    let create = Create {
        limits: Arc::new(limits),
        ..create("a")
    };
    let key = key("a");
    let started = rig.drivers.start_loop(&key, create, start("r1")).await;
    started.unwrap();
    let mut items = rig.log.read(&key, 0, ReadMode::Follow);
    let mut calls = 0;
    while calls < 2 {
        if let ReadItem::Fact(record) = items.next().await.unwrap().unwrap() {
            let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
            let starts = |event: &&Event| matches!(event, Event::ModelCallStarted(_));
            calls += entry.events.iter().filter(starts).count();
        }
    }
    rig.drivers.command(&key, cancel("r2")).await.unwrap();
    rig.drain.begin();
    rig.drivers.drained().await;
    let page = rig.telemetry.metrics().render();
    for outcome in ["rate_limited", "aborted"] {
        let line = format!(
            "loopwright_model_calls_total{{outcome=\"{outcome}\",provider=\"scripted\"}} 1"
        );
        assert!(page.lines().any(|l| l == line), "no {line} in {page}");
    }
}
