//! A conversation with a mock, folded by the core as the server does it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use loopwright_core::{
    State,
    agent::{Agent, Limits, ToolSet, ToolSpec},
    event::{
        Event, LoopStarted, MessageAdded, ModelCallCompleted, ModelCallStarted, Origin,
        SessionCreated, ToolCallCompleted, ToolCallRequested, ToolsChanged,
    },
    ids::{CallId, LoopId, Timestamp},
    message::{Part, ToolOutput},
    outcome::{ModelFailure, ModelReply},
    prompt::ModelRequest,
};
use loopwright_log::{Id, MemoryLog, StreamKey};
use loopwright_server::{
    config::{Config, ModelConfig, Provider},
    effects::{
        CallTrace,
        model::{Models, ModelsOptions, Transcript},
        progress::ProgressSink,
    },
};
use loopwright_tests::mock_model::{MockModel, Protocol};

pub(super) const KEY: &str = "sk-very-secret-key";
pub(super) const BOTH: [Protocol; 2] = [Protocol::Anthropic, Protocol::OpenAi];

pub(super) struct Talk {
    pub(super) mock: MockModel,
    pub(super) models: Arc<Models>,
    pub(super) state: State,
    transcript: Transcript,
    current: CallId,
}

impl Talk {
    pub(super) async fn new(protocol: Protocol) -> Self {
        Self::with(protocol, Agent::default(), |_| {}).await
    }

    pub(super) async fn with(
        protocol: Protocol,
        mut agent: Agent,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let mock = MockModel::start().await.unwrap();
        mock.require_key(KEY);
        let (provider, base_url) = match protocol {
            Protocol::Anthropic => (Provider::Anthropic, mock.anthropic_url()),
            Protocol::OpenAi => (Provider::OpenAi, mock.openai_url()),
        };
        let model = ModelConfig {
            provider: Some(provider),
            id: Some("mock-1".to_owned()),
            base_url: Some(base_url),
            api_key_env: Some("KEY".to_owned()),
            ..ModelConfig::default()
        };
        let mut config = Config::default();
        config.models.insert("mock".to_owned(), model);
        configure(&mut config);
        let env = BTreeMap::from([("KEY".to_owned(), KEY.to_owned())]);
        let options = ModelsOptions {
            idle_timeout: Duration::from_secs(20),
            ..ModelsOptions::default()
        };
        let models = Models::new(&config, &env, options).unwrap();
        agent.model = "mock".to_owned();
        let state = session(
            agent,
            ToolSet::new(vec![tool("calc__add"), tool("files__read")]),
        );
        let (transcript, current) = (Transcript::default(), CallId(0));
        Self {
            mock,
            models,
            state,
            transcript,
            current,
        }
    }

    pub(super) fn user(&mut self, text: &str) {
        let parts = Arc::new(vec![Part::Text(text.to_owned())]);
        self.apply(Event::MessageAdded(MessageAdded {
            origin: Origin::Steer,
            parts,
            nudge: None,
        }));
    }

    /// Starts the next model call.
    pub(super) fn request(&mut self) -> ModelRequest {
        self.current = CallId(self.state.next_call);
        self.apply(Event::ModelCallStarted(ModelCallStarted {
            recap: None,
            step: 1,
            call: self.current,
            attempt: 1,
            at: Timestamp(1),
            model: "mock".to_owned(),
            max_output_tokens: 4096,
            bound: Default::default(),
        }));
        self.state.model_request().unwrap()
    }

    /// Makes the next model call.
    pub(super) async fn call(&mut self) -> Result<ModelReply, ModelFailure> {
        let request = self.request();
        self.attempt(request).await
    }

    /// Makes one attempt of a call.
    pub(super) async fn attempt(
        &mut self,
        request: ModelRequest,
    ) -> Result<ModelReply, ModelFailure> {
        self.begin(request).await
    }

    /// One attempt of a call, which starts when it is polled.
    pub(super) fn begin(
        &mut self,
        request: ModelRequest,
    ) -> BoxFuture<'static, Result<ModelReply, ModelFailure>> {
        let trace = CallTrace {
            traceparent: Some("00-1-2-01".to_owned()),
        };
        self.models
            .call(&mut self.transcript, request, trace, sink())
    }

    /// Says something, calls, and takes the reply.
    pub(super) async fn step(&mut self) -> ModelReply {
        let reply = self.call().await.unwrap();
        self.take(&reply);
        reply
    }

    /// Takes a reply into the conversation, and gives each of its tool calls a result.
    pub(super) fn take(&mut self, reply: &ModelReply) {
        let call = self.current;
        self.apply(Event::ModelCallCompleted(ModelCallCompleted {
            recap: false,
            call,
            attempt: 1,
            parts: Arc::clone(&reply.parts),
            stop: reply.stop.clone(),
            usage: reply.usage,
            response_id: None,
            body_crc: reply.body_crc.clone(),
            latency_ms: 0,
            first_token_ms: None,
            cost_micro_usd: None,
        }));
        let asked: Vec<u32> = (0..)
            .zip(reply.parts.iter())
            .filter(|(_, part)| matches!(part, Part::ToolCall(_)))
            .map(|(index, _)| index)
            .collect();
        let first = self.state.next_call - u32::try_from(asked.len()).unwrap();
        for (index, call) in asked.iter().copied().zip(first..) {
            let (call, args_hash) = (CallId(call), String::new());
            self.apply(Event::ToolCallRequested(ToolCallRequested {
                call,
                index,
                args_hash,
            }));
        }
        for call in (first..).take(asked.len()).map(CallId) {
            let text = format!("result of {call}");
            let output = Arc::new(ToolOutput {
                text,
                ..ToolOutput::default()
            });
            self.apply(Event::ToolCallCompleted(ToolCallCompleted {
                call,
                attempt: 1,
                output,
            }));
        }
    }

    fn apply(&mut self, event: Event) {
        self.state.apply(&event);
    }
}

fn sink() -> ProgressSink {
    let id = |text: &str| text.parse::<Id>().unwrap();
    let key = StreamKey::session(&id("n"), &id("s"));
    ProgressSink::new(MemoryLog::new(), key, 1, CallId(1), 1)
}

fn session(agent: Agent, tools: Arc<ToolSet>) -> State {
    let mut state = State::default();
    let at = Timestamp(1);
    state.apply(&Event::SessionCreated(SessionCreated {
        session: "s".to_owned(),
        namespace: "n".to_owned(),
        at,
        agent: Arc::new(agent),
        limits: Arc::new(Limits::default()),
        labels: BTreeMap::new(),
    }));
    state.apply(&Event::ToolsChanged(ToolsChanged { tools }));
    let (id, traceparent, agent, limits) = (LoopId(1), None, None, None);
    state.apply(&Event::LoopStarted(LoopStarted {
        id,
        at,
        traceparent,
        agent,
        limits,
    }));
    state
}

fn tool(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        // Both together are longer than the shortest prefix that is kept.
        description: "A tool. ".repeat(150),
        input_schema: "{\"properties\":{\"path\":{\"type\":\"string\"}}}".to_owned(),
        effect: Default::default(),
        destructive: false,
        lookup: false,
        timeout_ms: 1,
        absolute_cap_ms: 1,
    }
}
