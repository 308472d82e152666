//! What the tests of the service stand on: a log in memory, and sessions written into it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    agent::{Agent, Limits, ToolSet, ToolSpec},
    entry::{Cause, Entry},
    event::{self, Event, Origin},
    ids::{CallId, LoopId, Timestamp},
    input::Command,
    message::{CallPart, Part},
    outcome::{EndReason, StopReason},
    usage::{Totals, Usage},
};
use loopwright_log::{
    Id, Keep, Log, MemoryLog, NewRecord, Progress, ProgressTopic, Seq, StreamKey,
};

use super::{
    ServiceState,
    overview::Overview,
    watch::{Seats, Watching},
};
use crate::{
    config::Config,
    drain::{Drain, DrainSignal},
    driver::{Clock, CutTails, Drivers, FIRST_WAIT, World},
    effects::model::{Models, ModelsOptions},
    index::Index,
    ledger::Ledgers,
    redaction::Fields,
    sidecars::Sidecars,
    telemetry::Telemetry,
};

/// When the sessions of these tests began.
pub(crate) const T0: u64 = 1_763_800_000_000;

pub(crate) struct Bench {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) index: Arc<Index>,
    pub(crate) drain: Drain,
    pub(crate) signal: DrainSignal,
    pub(crate) seats: Arc<Seats>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let log = MemoryLog::new();
        let (drain, signal) = Drain::new();
        let index = Index::new(log.clone());
        Self {
            log,
            index,
            drain,
            signal,
            seats: Seats::new(100, Telemetry::off()),
        }
    }

    pub(crate) fn watching(&self) -> Watching {
        Watching {
            log: self.log.clone(),
            index: Arc::clone(&self.index),
            seats: Arc::clone(&self.seats),
            fields: Fields::default(),
            drain: self.signal.clone(),
        }
    }

    /// See [`append`].
    pub(crate) async fn append(&self, key: &StreamKey, entries: Vec<Entry>) -> Seq {
        append(&*self.log, key, entries).await
    }

    pub(crate) fn say(&self, key: &StreamKey, anchor: Seq, offset: u64, text: &str) {
        let topic = ProgressTopic {
            anchor,
            call: 1,
            attempt: 1,
            channel: 0,
        };
        let payload = bytes::Bytes::copy_from_slice(text.as_bytes());
        self.log
            .publish(key, Progress::new(topic, offset, payload, Keep::Append));
    }
}

/// Appends entries behind what the session has, a second apart; the last seq.
pub(crate) async fn append(log: &dyn Log, key: &StreamKey, entries: Vec<Entry>) -> Seq {
    let mut tail = log.tail(key).await.unwrap().unwrap_or(0);
    for entry in entries {
        let at = loopwright_log::Timestamp::from_unix_ms(T0 + tail * 1_000);
        let body = serde_json::to_vec(&entry).unwrap();
        let record = NewRecord::new(at, 1, body.into());
        tail = log.append(key, tail, record).await.unwrap();
    }
    tail
}

/// A server's state around a log in memory and the scripted model `m`; the drain that ends it.
pub(crate) fn state(script: &str) -> (ServiceState, Drain) {
    state_over(MemoryLog::new(), script, Config::default())
}

/// As [`state`], around another log and with another configuration.
pub(crate) fn state_over(log: Arc<dyn Log>, script: &str, config: Config) -> (ServiceState, Drain) {
    let (drain, signal) = Drain::new();
    let config = Arc::new(config);
    let options = ModelsOptions {
        scripts: [("m".to_owned(), script.to_owned())].into(),
        ..ModelsOptions::default()
    };
    let models = Models::new(&config, &BTreeMap::new(), options).unwrap();
    let sidecars = Sidecars::new(&config, Arc::clone(&log), Telemetry::off());
    let ledgers = Ledgers::new(Arc::clone(&log), Clock);
    let index = Index::new(Arc::clone(&log));
    let drivers = Drivers::new(Arc::new(World {
        fields: Fields::new(&config.tools.redact),
        log: Arc::clone(&log),
        index: Arc::clone(&index),
        cut: CutTails::default(),
        models: Arc::clone(&models),
        sidecars: Arc::clone(&sidecars),
        ledgers: Arc::clone(&ledgers),
        telemetry: Telemetry::off(),
        clock: Clock,
        drain: signal.clone(),
        max_active: 10,
        session_bytes: u64::MAX,
        first_wait: FIRST_WAIT,
    }));
    let seats = Seats::new(config.limits.watchers, Telemetry::off());
    let overview = Overview::new(Arc::clone(&log), Arc::clone(&index), signal.clone());
    let state = ServiceState {
        fields: Fields::new(&config.tools.redact),
        config,
        log,
        drivers,
        models,
        sidecars,
        ledgers,
        index,
        overview,
        seats,
        transfers: Arc::default(),
        drain: signal,
    };
    (state, drain)
}

pub(crate) fn namespace() -> Id {
    Id::parse("default").unwrap()
}

pub(crate) fn key(session: &str) -> StreamKey {
    StreamKey::session(&namespace(), &Id::parse(session).unwrap())
}

pub(crate) fn by(request_id: &str) -> Command {
    Command {
        request_id: request_id.to_owned(),
        principal: "ada".to_owned(),
    }
}

pub(crate) fn entry<const N: usize>(cause: Cause, events: [Event; N]) -> Entry {
    Entry::new(cause, events.into())
}

pub(crate) fn created(session: &str) -> Entry {
    let event = event::SessionCreated {
        session: session.to_owned(),
        namespace: "default".to_owned(),
        at: Timestamp(T0),
        agent: Arc::new(Agent {
            model: "scripted".to_owned(),
            ..Agent::default()
        }),
        limits: Arc::new(Limits::default()),
        labels: [("team".to_owned(), "blue".to_owned())].into(),
    };
    let tools = event::ToolsChanged { tools: tools() };
    entry(Cause::Create(by("r1")), [event.into(), tools.into()])
}

pub(crate) fn tools() -> Arc<ToolSet> {
    ToolSet::new(vec![ToolSpec {
        name: "files__read".to_owned(),
        description: "reads".to_owned(),
        input_schema: "{}".to_owned(),
        effect: loopwright_core::agent::EffectClass::Deduplicated {
            retention_ms: 1_500,
        },
        destructive: true,
        lookup: true,
        timeout_ms: 2_000,
        absolute_cap_ms: 9_000,
    }])
}

pub(crate) fn attached() -> Entry {
    entry(
        Cause::Attach,
        [event::DriverAttached {
            epoch: 1,
            server: String::new(),
        }
        .into()],
    )
}

pub(crate) fn started(n: u32, at: u64, text: &str) -> Entry {
    let message = event::MessageAdded {
        origin: Origin::User,
        parts: Arc::new(vec![Part::Text(text.into())]),
        nudge: None,
    };
    let started = event::LoopStarted {
        id: LoopId(n),
        at: Timestamp(at),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        agent: None,
        limits: None,
    };
    let call = event::ModelCallStarted {
        recap: None,
        step: 1,
        call: CallId(n),
        attempt: 1,
        at: Timestamp(at),
        model: "scripted".to_owned(),
        max_output_tokens: 4_096,
        bound: loopwright_core::budget::Bound::Configured,
    };
    let cause = Cause::StartLoop(by(&format!("start-{n}")));
    entry(cause, [message.into(), started.into(), call.into()])
}

/// The model asks for one tool, which is dispatched.
pub(crate) fn asks(model_call: u32, call: u32) -> Entry {
    let reply = event::ModelCallCompleted {
        recap: false,
        call: CallId(model_call),
        attempt: 1,
        parts: Arc::new(vec![
            Part::Text("Let me look".to_owned()),
            Part::ToolCall(CallPart {
                provider_id: "toolu_1".to_owned(),
                tool: "files__read".to_owned(),
                arguments: r#"{"path":"a"}"#.to_owned(),
            }),
        ]),
        stop: StopReason::ToolUse,
        usage: Some(Usage {
            input: 10,
            output: 5,
            cache_write: 2,
            cache_read: 3,
            cache_write_1h: 1,
        }),
        response_id: Some("req_1".to_owned()),
        body_crc: "0000002a".to_owned(),
        latency_ms: 1_250,
        first_token_ms: Some(40),
        cost_micro_usd: None,
    };
    let requested = event::ToolCallRequested {
        call: CallId(call),
        index: 1,
        args_hash: String::new(),
    };
    let dispatched = event::ToolCallStarted {
        call: CallId(call),
        attempt: 1,
        at: Timestamp(T0 + 5),
        deadline: None,
        sidecar_instance: String::new(),
    };
    let cause = Cause::Model {
        call: CallId(model_call),
        attempt: 1,
        jitter: 0,
        retry_after_ms: None,
    };
    entry(cause, [reply.into(), requested.into(), dispatched.into()])
}

pub(crate) fn ended(n: u32, at: u64, reason: EndReason) -> Entry {
    let ended = event::LoopEnded {
        id: LoopId(n),
        at: Timestamp(at),
        reason,
        text: "done".to_owned(),
        totals: Totals {
            steps: 2,
            model_calls: 3,
            ..Totals::default()
        },
    };
    entry(
        Cause::CancelLoop {
            by: by("c1"),
            guard: None,
        },
        [ended.into()],
    )
}

/// A session of one ended loop: six entries, the model's call started in the third.
pub(crate) fn session(id: &str) -> Vec<Entry> {
    let output = loopwright_core::message::ToolOutput {
        text: "hello".into(),
        ..Default::default()
    };
    let completed = event::ToolCallCompleted {
        call: CallId(2),
        attempt: 1,
        output: Arc::new(output),
    };
    let cause = Cause::Tool {
        retry_after_ms: None,
        call: CallId(2),
        attempt: 1,
        jitter: 0,
        retryable: false,
    };
    vec![
        created(id),
        attached(),
        started(1, T0 + 2_000, "read a"),
        asks(1, 2),
        entry(cause, [completed.into()]),
        ended(1, T0 + 9_000, EndReason::Completed),
    ]
}
