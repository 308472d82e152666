//! Writes a session down: inputs in, entries out, by today's rules.

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    Entry, Input, State, What,
    agent::{Agent, EffectClass, Limits, ToolSet, ToolSpec},
    decide,
    event::UnknownResolution,
    ids::{Attempt, CallId, LoopId, Timestamp},
    input::{Command, Create, Mode, SendMessage, StartLoop},
    message::{CallPart, Part, ToolOutput},
    outcome::{
        LookupAnswer, ModelFailure, ModelFailureKind, ModelReply, StopReason, ToolFailure,
        ToolFailureKind, Verdict,
    },
    usage::Usage,
};
use serde::{Deserialize, Serialize};

/// One line of a golden file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When the entry was committed.
    pub(crate) at: Timestamp,
    /// The entry.
    pub(crate) entry: Entry,
}

/// A session in the making.
pub(crate) struct Script {
    state: State,
    now: u64,
    requests: u32,
    pub(crate) lines: Vec<Line>,
}

impl Script {
    /// A session that has been created and attached.
    pub(crate) fn new(agent: Agent, limits: Limits) -> Self {
        let mut script = Self {
            state: State::default(),
            now: 1_767_225_600_000,
            requests: 0,
            lines: Vec::new(),
        };
        let by = script.by();
        script.go(What::Create(Create {
            by,
            session: "golden".to_owned(),
            namespace: "default".to_owned(),
            agent: Arc::new(agent),
            limits: Arc::new(limits),
            labels: BTreeMap::from([("team".to_owned(), "kites".to_owned())]),
            tools: tools(),
        }));
        script.attach();
        script
    }

    /// One input, ten milliseconds after the one before.
    pub(crate) fn go(&mut self, what: What) {
        self.wait(10);
        let input = Input::new(Timestamp(self.now), what);
        let cause = input.cause();
        let events = decide(&self.state, input).expect("the script is accepted");
        assert!(!events.is_empty(), "{cause:?} decides to nothing");
        self.push(Entry::new(cause, events));
    }

    /// An entry as it stands, whoever decided it.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.state.apply_entry(self.state.seq + 1, &entry);
        let at = Timestamp(self.now);
        self.lines.push(Line { at, entry });
    }

    /// This log so far as a copy that is not closed.
    pub(crate) fn copied(mut self) -> Self {
        self.state = State::default();
        for line in &mut self.lines {
            line.entry.copied = true;
            self.state.apply_entry(self.state.seq + 1, &line.entry);
        }
        self
    }

    /// A person answers about a tool call.
    pub(crate) fn answer(&mut self, call: u32, allow: bool) {
        let by = self.by();
        self.go(What::ResolveApproval {
            by,
            guard: Some(LoopId(1)),
            call: CallId(call),
            allow,
            reason: "I asked the bank".to_owned(),
        });
    }

    /// A person says what became of a tool call.
    pub(crate) fn resolve(&mut self, call: u32, resolution: UnknownResolution) {
        let by = self.by();
        let output = (resolution == UnknownResolution::Happened).then(|| {
            Arc::new(ToolOutput {
                text: "paid".to_owned(),
                ..ToolOutput::default()
            })
        });
        self.go(What::ResolveUnknown {
            by,
            guard: None,
            call: CallId(call),
            resolution,
            output,
            reason: "I asked the bank".to_owned(),
        });
    }

    /// An attempt of a tool call breaks off.
    pub(crate) fn breaks(&mut self, call: u32, attempt: Attempt) {
        self.go(What::ToolFailed {
            call: CallId(call),
            attempt,
            failure: ToolFailure {
                kind: ToolFailureKind::Ambiguous,
                message: "deadline".to_owned(),
                retryable: false,
                retry_after_ms: Some(500),
                cause: None,
            },
            jitter: 250_000,
        });
    }

    /// Nobody knows what became of a tool call in doubt.
    pub(crate) fn not_known(&mut self, call: u32) {
        self.go(What::LookedUp {
            call: CallId(call),
            answer: LookupAnswer::NotKnown("the sidecar was restarted".to_owned()),
        });
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += millis;
    }

    pub(crate) fn attach(&mut self) {
        let epoch = self.state.epoch + 1;
        let cut_bytes = (epoch > 1).then_some(512);
        self.go(What::Attach {
            epoch,
            cut_bytes,
            server: String::new(),
        });
    }

    pub(crate) fn start(&mut self, text: &str) {
        let by = self.by();
        self.go(What::StartLoop(StartLoop {
            by,
            parts: said(text),
            agent: None,
            limits: None,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        }));
    }

    pub(crate) fn send(&mut self, text: &str, mode: Mode) {
        let by = self.by();
        self.go(What::SendMessage(SendMessage {
            by,
            parts: said(text),
            mode,
            guard: None,
            agent: None,
            limits: None,
            traceparent: None,
        }));
    }

    /// The running model call answers.
    pub(crate) fn reply(&mut self, parts: Vec<Part>, stop: StopReason, usage: Option<Usage>) {
        let (call, attempt) = self.model();
        let verdict = |part: &Part| match part {
            Part::ToolCall(_) => Some(Verdict {
                args_hash: "6b86b273ff34fce1".to_owned(),
                invalid: None,
            }),
            Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_) => None,
        };
        let verdicts = parts.iter().filter_map(verdict).collect();
        let reply = ModelReply {
            parts: Arc::new(parts),
            stop,
            usage,
            response_id: Some("resp_1".to_owned()),
            body_crc: "9f3c1a2b".to_owned(),
            latency_ms: 812,
            first_token_ms: None,
            cost_micro_usd: Some(90),
            verdicts,
        };
        self.go(What::ModelCompleted {
            call,
            attempt,
            reply,
        });
    }

    /// The running model call fails.
    pub(crate) fn fail(&mut self, kind: ModelFailureKind, retry_after_ms: Option<u64>) {
        let (call, attempt) = self.model();
        let failure = ModelFailure {
            kind,
            message: "try later".to_owned(),
            retry_after_ms,
            http_status: 0,
            usage: None,
            cost_micro_usd: None,
            body_crc: "9f3c1a2b".to_owned(),
        };
        self.go(What::ModelFailed {
            call,
            attempt,
            failure,
            jitter: 500_000,
        });
    }

    /// A tool answers.
    pub(crate) fn tool(&mut self, call: u32, attempt: Attempt, text: &str) {
        let output = ToolOutput {
            text: text.to_owned(),
            structured: Some("{\"ok\":true}".to_owned()),
            ..ToolOutput::default()
        };
        self.go(What::ToolCompleted {
            call: CallId(call),
            attempt,
            output: Arc::new(output),
        });
    }

    pub(crate) fn model(&self) -> (CallId, Attempt) {
        let active = self.state.active.as_ref().expect("a loop runs");
        let model = active.model.as_ref().expect("a model call is under way");
        (model.call, model.attempt)
    }

    pub(crate) fn by(&mut self) -> Command {
        self.requests += 1;
        Command {
            request_id: format!("req-{}", self.requests),
            principal: "ann".to_owned(),
        }
    }
}

/// An agent with every kind of field.
pub(crate) fn agent() -> Agent {
    Agent {
        model: "anthropic/claude".to_owned(),
        fallbacks: vec!["openai/gpt".to_owned()],
        system_prompt: "You fly kites. \u{1fa81}".to_owned(),
        temperature: Some(0.2),
        ..Agent::default()
    }
}

pub(crate) fn said(text: &str) -> Arc<Vec<Part>> {
    Arc::new(vec![Part::Text(text.to_owned())])
}

pub(crate) fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

pub(crate) fn call(tool: &str) -> Part {
    Part::ToolCall(CallPart {
        provider_id: "toolu_01".to_owned(),
        tool: tool.to_owned(),
        arguments: "{\"path\":\"a.txt\"}".to_owned(),
    })
}

pub(crate) fn tokens(input: u64, output: u64) -> Option<Usage> {
    Some(Usage {
        input,
        output,
        cache_write: 7,
        cache_read: 11,
        cache_write_1h: 0,
    })
}

fn tools() -> Arc<ToolSet> {
    let spec = |name: &str, effect, lookup| ToolSpec {
        name: name.to_owned(),
        description: "Does it.".to_owned(),
        input_schema: "{\"type\":\"object\"}".to_owned(),
        effect,
        destructive: lookup,
        lookup,
        timeout_ms: 120_000,
        absolute_cap_ms: 1_800_000,
    };
    let retention_ms = 86_400_000;
    ToolSet::new(vec![
        spec("files__read", EffectClass::ReadOnly, false),
        spec("files__write", EffectClass::AtMostOnce, true),
        spec(
            "mail__send",
            EffectClass::Deduplicated { retention_ms },
            false,
        ),
    ])
}
