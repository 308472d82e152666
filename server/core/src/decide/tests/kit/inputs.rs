//! Inputs and tools of sessions under test.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    What,
    agent::{Agent, EffectClass, Limits, LimitsChange, ToolSet, ToolSpec},
    event::UnknownResolution,
    ids::{Attempt, CallId, LoopId},
    input::{Command, Create, Mode, SendMessage, StartLoop},
    message::{CallPart, Part, Parts, ToolOutput},
    outcome::{ModelReply, StopReason, Verdict},
    usage::Usage,
};

pub(in crate::decide::tests) fn create(by: Command, limits: Limits, agent: Agent) -> Create {
    Create {
        by,
        session: "s".to_owned(),
        namespace: "n".to_owned(),
        agent: Arc::new(agent),
        limits: Arc::new(limits),
        labels: BTreeMap::new(),
        tools: ToolSet::new(specs()),
    }
}

pub(in crate::decide::tests) fn by(request: &str) -> Command {
    Command {
        request_id: request.to_owned(),
        principal: "ann".to_owned(),
    }
}

pub(in crate::decide::tests) fn start(request: &str, text: &str) -> StartLoop {
    StartLoop {
        by: by(request),
        parts: said(text),
        agent: None,
        limits: None,
        traceparent: None,
    }
}

pub(in crate::decide::tests) fn send(request: &str, mode: Mode, text: &str) -> SendMessage {
    SendMessage {
        by: by(request),
        parts: said(text),
        mode,
        guard: None,
        agent: None,
        limits: None,
        traceparent: None,
    }
}

pub(in crate::decide::tests) fn cancel(request: &str, guard: Option<LoopId>) -> What {
    What::CancelLoop {
        by: by(request),
        guard,
        reason: "enough".to_owned(),
    }
}

pub(in crate::decide::tests) fn pause(request: &str) -> What {
    What::PauseLoop {
        by: by(request),
        guard: None,
    }
}

pub(in crate::decide::tests) fn resume(request: &str) -> What {
    What::ResumeLoop {
        by: by(request),
        guard: None,
    }
}

pub(in crate::decide::tests) fn update(change: LimitsChange) -> What {
    What::UpdateLimits {
        by: by(""),
        guard: None,
        change: Box::new(change),
    }
}

pub(in crate::decide::tests) fn answer(request: &str, call: u32, allow: bool) -> What {
    What::ResolveApproval {
        by: by(request),
        guard: None,
        call: CallId(call),
        allow,
        reason: "so be it".to_owned(),
    }
}

pub(in crate::decide::tests) fn resolve(
    request: &str,
    call: u32,
    resolution: UnknownResolution,
) -> What {
    What::ResolveUnknown {
        by: by(request),
        guard: None,
        call: CallId(call),
        resolution,
        output: None,
        reason: "I looked".to_owned(),
    }
}

pub(in crate::decide::tests) fn completed(
    call: CallId,
    attempt: Attempt,
    parts: Vec<Part>,
    stop: StopReason,
    usage: Option<Usage>,
) -> What {
    let asks = |part: &&Part| matches!(part, Part::ToolCall(_));
    let verdict = |part: &Part| {
        let arguments = match part {
            Part::ToolCall(call) => call.arguments.as_str(),
            Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_) => "",
        };
        let bad = arguments == "bad";
        Verdict {
            args_hash: arguments.to_owned(),
            invalid: bad.then(|| "`a` must be a number".to_owned()),
        }
    };
    let verdicts = parts.iter().filter(asks).map(verdict).collect();
    let reply = ModelReply {
        parts: Arc::new(parts),
        stop,
        usage,
        response_id: None,
        body_crc: String::new(),
        latency_ms: 1,
        first_token_ms: None,
        cost_micro_usd: Some(3),
        verdicts,
    };
    What::ModelCompleted {
        call,
        attempt,
        reply,
    }
}

pub(in crate::decide::tests) fn tool_completed(call: u32, attempt: Attempt, text: &str) -> What {
    let output = ToolOutput {
        text: text.to_owned(),
        ..ToolOutput::default()
    };
    What::ToolCompleted {
        call: CallId(call),
        attempt,
        output: Arc::new(output),
    }
}

pub(in crate::decide::tests) fn said(text: &str) -> Parts {
    Arc::new(vec![Part::Text(text.to_owned())])
}

pub(in crate::decide::tests) fn call(tool: &str) -> Part {
    call_with(tool, "{}")
}

pub(in crate::decide::tests) fn call_with(tool: &str, arguments: &str) -> Part {
    Part::ToolCall(CallPart {
        provider_id: "same".to_owned(),
        tool: tool.to_owned(),
        arguments: arguments.to_owned(),
    })
}

pub(in crate::decide::tests) fn usage(input: u64, output: u64) -> Option<Usage> {
    Some(Usage {
        input,
        output,
        ..Usage::default()
    })
}

/// A tool of each class; `once` can be looked up, `blind` cannot.
pub(in crate::decide::tests) fn specs() -> Vec<ToolSpec> {
    let retention_ms = 60_000;
    [
        ("read", EffectClass::ReadOnly, false),
        ("idem", EffectClass::Idempotent, false),
        ("dedup", EffectClass::Deduplicated { retention_ms }, false),
        ("once", EffectClass::AtMostOnce, true),
        ("blind", EffectClass::AtMostOnce, false),
    ]
    .map(|(name, effect, lookup)| ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        input_schema: "{}".to_owned(),
        effect,
        destructive: false,
        lookup,
        timeout_ms: 1,
        absolute_cap_ms: 1,
    })
    .to_vec()
}
