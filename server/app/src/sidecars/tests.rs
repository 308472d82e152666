//! Sidecars against real gRPC servers in this process, kind and unkind ones.
#![expect(clippy::unwrap_used, reason = "tests")]

mod calls;
pub(crate) mod fake;
mod leases;
mod lookups;
mod registering;
mod schemas;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use loopwright_core::agent::{READ_OUTPUT, ToolSet, ToolSpec};
use loopwright_core::ids::{CallId, Timestamp};
use loopwright_core::message::{CallPart, ToolOutput};
use loopwright_core::outcome::{LookupAnswer, ToolFailure};
use loopwright_core::prompt::ToolRequest;
use loopwright_log::{Id, Log, MemoryLog, NewRecord, ReadMode, ReadStream, StreamKey};

use super::{Phase, Registered, Registration, SessionRef, SidecarError, Sidecars, Who};
use crate::config::Config;
use crate::config::units::Period;
use crate::effects::CallTrace;
use crate::effects::progress::ProgressSink;
use crate::telemetry::Telemetry;
use fake::Fake;

/// Sidecars on a log in memory, as configured.
struct Bench {
    sidecars: Arc<Sidecars>,
    log: Arc<MemoryLog>,
    config: Config,
}

impl Bench {
    fn new(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.tools.sidecar_wait = Period::from_secs(20);
        configure(&mut config);
        let log = MemoryLog::new();
        let sidecars = Sidecars::new(&config, Arc::clone(&log) as Arc<dyn Log>, Telemetry::off());
        Self {
            sidecars,
            log,
            config,
        }
    }

    /// The server after a restart on the same log.
    fn restarted(self) -> Self {
        let sidecars = Sidecars::new(
            &self.config,
            Arc::clone(&self.log) as Arc<dyn Log>,
            Telemetry::off(),
        );
        Self { sidecars, ..self }
    }

    async fn register(&self, name: &str, endpoint: &str) -> Result<Registered, SidecarError> {
        self.sidecars
            .register(&who(), registration(name, endpoint))
            .await
    }

    async fn with(&self, fake: &Fake) -> Registered {
        self.register("fake", &fake.endpoint()).await.unwrap()
    }

    fn tools(&self) -> Vec<String> {
        names(&self.sidecars.tools("default", None))
    }

    async fn until_tools(&self, wanted: &[&str]) {
        let mut changes = self.sidecars.changes();
        let wait = async {
            while self.tools() != wanted {
                changes.changed().await.unwrap();
            }
        };
        let end = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(end.is_ok(), "wanted {wanted:?}, offered {:?}", self.tools());
    }

    async fn until_healthy(&self) {
        let mut presence = self.sidecars.presence.subscribe();
        let healthy = || {
            self.sidecars
                .list("default")
                .iter()
                .all(|one| one.phase == Phase::Healthy)
        };
        let wait = async {
            while !healthy() {
                presence.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .unwrap();
    }

    async fn call(&self, tool: &str, arguments: &str) -> Result<ToolOutput, ToolFailure> {
        self.call_with(tool, arguments, |_| {}).await
    }

    async fn call_with(
        &self,
        tool: &str,
        arguments: &str,
        change: impl FnOnce(&mut ToolSpec),
    ) -> Result<ToolOutput, ToolFailure> {
        let mut spec = self.spec(tool);
        change(&mut spec);
        self.call_to(spec, arguments).await
    }

    /// The tool of this name as a session is offered it now.
    fn spec(&self, tool: &str) -> ToolSpec {
        let tools = self.sidecars.tools("default", None);
        tools.get(&format!("fake__{tool}")).unwrap().clone()
    }

    async fn call_to(&self, spec: ToolSpec, arguments: &str) -> Result<ToolOutput, ToolFailure> {
        let request = request(&spec, arguments);
        let (session, trace, sink) = self.caller();
        self.sidecars
            .call(session, request, spec, trace, sink)
            .await
    }

    /// Calls a tool of the instance of this name.
    async fn call_meant_for(&self, instance: &str, tool: &str) -> Result<ToolOutput, ToolFailure> {
        let spec = self.spec(tool);
        let request = ToolRequest {
            sidecar_instance: instance.into(),
            ..request(&spec, "{}")
        };
        let (session, trace, sink) = self.caller();
        let called = self.sidecars.call(session, request, spec, trace, sink);
        called.await
    }

    /// Asks about a call that was meant for the instance of this name.
    async fn look_up_meant_for(&self, instance: &str, tool: &str) -> LookupAnswer {
        let spec = self.spec(tool);
        let request = ToolRequest {
            sidecar_instance: instance.into(),
            ..request(&spec, "{}")
        };
        let (session, trace, sink) = self.caller();
        let passed = Duration::ZERO;
        let asked = self
            .sidecars
            .look_up(session, request, spec, passed, trace, sink);
        asked.await
    }

    async fn look_up(&self, tool: &str, arguments: &str) -> LookupAnswer {
        self.look_up_by(self.spec(tool), arguments, Duration::ZERO)
            .await
    }

    async fn look_up_with(
        &self,
        tool: &str,
        passed: Duration,
        change: impl FnOnce(&mut ToolSpec),
    ) -> LookupAnswer {
        let mut spec = self.spec(tool);
        change(&mut spec);
        self.look_up_by(spec, "{}", passed).await
    }

    async fn look_up_by(&self, spec: ToolSpec, arguments: &str, passed: Duration) -> LookupAnswer {
        let request = request(&spec, arguments);
        let (session, trace, sink) = self.caller();
        self.sidecars
            .look_up(session, request, spec, passed, trace, sink)
            .await
    }

    fn caller(&self) -> (SessionRef, CallTrace, ProgressSink) {
        let key = StreamKey::parse("session/default/s1").unwrap();
        let sink = ProgressSink::new(Arc::clone(&self.log) as _, key, 1, CallId(7), 2);
        let session = SessionRef {
            namespace: "default".into(),
            session: "s1".into(),
            born_at: Timestamp(1_795_345_899_123),
        };
        let traceparent =
            Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        (session, CallTrace { traceparent }, sink)
    }

    /// What is written and shown of the session that calls, from its first record on.
    async fn follow(&self) -> ReadStream {
        let key = StreamKey::parse("session/default/s1").unwrap();
        let at = loopwright_log::Timestamp::from_unix_ms(1);
        let first = NewRecord::new(at, 1, "{}".into());
        self.log.append(&key, 0, first).await.unwrap();
        let mut items = self.log.read(&key, 0, ReadMode::Follow);
        items.next().await.unwrap().unwrap();
        items
    }
}

/// The call as it is dispatched: attempt 2 of `c7`, by the third driver.
fn request(spec: &ToolSpec, arguments: &str) -> ToolRequest {
    ToolRequest {
        call: CallId(7),
        attempt: 2,
        epoch: 3,
        part: CallPart {
            provider_id: "p1".to_owned(),
            tool: spec.name.clone(),
            arguments: arguments.to_owned(),
        },
        first_at: loopwright_core::ids::Timestamp(86_400_500),
        sidecar_instance: "".into(),
        reads_output: true,
    }
}

fn who() -> Who {
    by("local")
}

fn by(principal: &str) -> Who {
    let namespace = Id::parse("default").unwrap();
    Who {
        namespace,
        principal: principal.to_owned(),
        admin: false,
    }
}

fn registration(name: &str, endpoint: &str) -> Registration {
    Registration {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        ..Registration::default()
    }
}

/// What sidecars serve of them.
fn names(tools: &ToolSet) -> Vec<String> {
    let served = tools.iter().filter(|tool| tool.name != READ_OUTPUT);
    served.map(|tool| tool.name.clone()).collect()
}

#[test]
fn a_session_under_the_id_of_a_deleted_one_does_not_meet_its_calls() {
    let key = |born| {
        let session = SessionRef {
            namespace: "default".into(),
            session: "s1".into(),
            born_at: Timestamp(born),
        };
        session.key_of(CallId(1))
    };
    assert_eq!(key(7), "default/s1@7/c1");
    assert_ne!(key(7), key(8));
}
