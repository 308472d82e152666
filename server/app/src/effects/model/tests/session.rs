//! A session folded from events, and the requests that its calls make.

use std::sync::Arc;

use loopwright_core::{
    State,
    agent::{Agent, Limits, ToolSet, ToolSpec},
    event::{
        Event, LoopStarted, MessageAdded, ModelCallCompleted, ModelCallStarted, Origin,
        SessionCreated, ToolCallCompleted, ToolCallRequested, ToolsChanged,
    },
    ids::{CallId, LoopId, Timestamp},
    message::{CallPart, Part, ToolOutput},
    outcome::StopReason,
    prompt::ModelRequest,
    usage::Usage,
};
use loopwright_log::{Id, Log, MemoryLog, StreamKey};

use crate::effects::progress::ProgressSink;

/// A session whose log is written by hand.
pub(super) struct Session {
    state: State,
    current: CallId,
}

impl Session {
    pub(super) fn new(agent: Agent, tools: Arc<ToolSet>) -> Self {
        Self::within(Limits::default(), agent, tools)
    }

    pub(super) fn within(limits: Limits, agent: Agent, tools: Arc<ToolSet>) -> Self {
        let mut session = Self {
            state: State::default(),
            current: CallId(0),
        };
        session.apply(Event::SessionCreated(SessionCreated {
            session: "s".to_owned(),
            namespace: "n".to_owned(),
            at: Timestamp(1),
            agent: Arc::new(agent),
            limits: Arc::new(limits),
            labels: Default::default(),
        }));
        session.apply(Event::ToolsChanged(ToolsChanged { tools }));
        session.apply(Event::LoopStarted(LoopStarted {
            id: LoopId(1),
            at: Timestamp(1),
            traceparent: None,
            agent: None,
            limits: None,
        }));
        session
    }

    pub(super) fn user(&mut self, text: &str) {
        self.apply(Event::MessageAdded(MessageAdded {
            origin: Origin::Steer,
            parts: Arc::new(vec![Part::Text(text.to_owned())]),
            nudge: None,
        }));
    }

    /// Starts the next model call, and gives what it asks.
    pub(super) fn call(&mut self, attempt: u32) -> ModelRequest {
        if attempt == 1 {
            self.current = CallId(self.state.next_call);
        }
        self.apply(Event::ModelCallStarted(ModelCallStarted {
            recap: None,
            step: 1,
            call: self.current,
            attempt,
            at: Timestamp(1),
            model: self.state.agent.model.clone(),
            max_output_tokens: 4096,
            bound: Default::default(),
        }));
        self.state.model_request().unwrap()
    }

    /// The call's reply, which nobody counts.
    pub(super) fn reply(&mut self, parts: Vec<Part>) {
        self.reply_counted(parts, None);
    }

    /// The call's reply, whose prompt came to so many tokens.
    pub(super) fn reply_counted(&mut self, parts: Vec<Part>, prompt: Option<u64>) {
        let usage = prompt.map(|input| Usage {
            input,
            output: 1,
            ..Usage::default()
        });
        self.apply(Event::ModelCallCompleted(ModelCallCompleted {
            recap: false,
            call: self.current,
            attempt: 1,
            parts: Arc::new(parts),
            stop: StopReason::ToolUse,
            usage,
            response_id: None,
            body_crc: String::new(),
            latency_ms: 0,
            first_token_ms: None,
            cost_micro_usd: None,
        }));
    }

    /// The results of the tool calls that the last reply asked for, at these places among its
    /// parts.
    pub(super) fn results(&mut self, results: &[(u32, &str)]) {
        let output = |text: &str| ToolOutput {
            text: text.to_owned(),
            ..ToolOutput::default()
        };
        let all = results.iter().map(|(index, text)| (*index, output(text)));
        self.gives(&all.collect::<Vec<_>>());
    }

    /// The same, with whole outputs.
    pub(super) fn gives(&mut self, results: &[(u32, ToolOutput)]) {
        let first = self.state.next_call - u32::try_from(results.len()).unwrap();
        for (index, call) in results.iter().map(|(index, _)| *index).zip(first..) {
            let (call, args_hash) = (CallId(call), String::new());
            self.apply(Event::ToolCallRequested(ToolCallRequested {
                call,
                index,
                args_hash,
            }));
        }
        for ((_, output), call) in results.iter().zip(first..) {
            let (call, output) = (CallId(call), Arc::new(output.clone()));
            self.apply(Event::ToolCallCompleted(ToolCallCompleted {
                call,
                attempt: 1,
                output,
            }));
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.state.apply(&event);
    }
}

pub(super) fn asked(tool: &str, arguments: &str) -> Part {
    Part::ToolCall(CallPart {
        provider_id: "theirs".to_owned(),
        tool: tool.to_owned(),
        arguments: arguments.to_owned(),
    })
}

pub(super) fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

pub(super) fn tool(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: format!("does {name}"),
        input_schema: "{\"properties\":{\"b\":{},\"a\":{}}}".to_owned(),
        effect: Default::default(),
        destructive: false,
        lookup: false,
        timeout_ms: 1,
        absolute_cap_ms: 1,
    }
}

pub(super) fn sink() -> ProgressSink {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::default());
    let id = |text: &str| text.parse::<Id>().unwrap();
    let key = StreamKey::session(&id("n"), &id("s"));
    ProgressSink::new(log, key, 1, CallId(1), 1)
}
