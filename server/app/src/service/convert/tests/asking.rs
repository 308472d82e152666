//! What is asked of a person: by which rules, for how long, and what counts as an answer.

use loopwright_core::{
    What,
    agent::{Limits, UnknownPolicy},
    event::UnknownResolution,
    ids::{CallId, LoopId},
};
use loopwright_proto::{v1, well_known};

use crate::{
    config::{ApprovalDefault, Config, OnUnknown, units::Period},
    service::{
        caller::Caller,
        convert::{
            agent::{terms, to_wire},
            commands,
            fields::Violations,
        },
    },
};

fn seconds(seconds: i64) -> Option<well_known::Duration> {
    Some(well_known::Duration { seconds, nanos: 0 })
}

fn limits(agent: Option<v1::Agent>, config: &Config) -> Limits {
    let mut all = Violations::default();
    let terms = terms(agent, config, &mut all);
    assert_eq!(all.0, []);
    (*terms.limits).clone()
}

fn asks(limits: &Limits) -> (Option<UnknownPolicy>, Option<u64>, bool, Option<u64>) {
    (
        limits.on_unknown,
        limits.approval_timeout_ms,
        limits.approval_default_allow,
        limits.idle_timeout_ms,
    )
}

#[test]
fn the_agents_word_goes_before_the_configured_one() {
    let mut config = Config::default();
    assert_eq!(asks(&limits(None, &config)), (None, None, false, None));
    config.tools.on_unknown = Some(OnUnknown::Ask);
    config.tools.approval_timeout = Some(Period::from_secs(60));
    config.tools.approval_default = ApprovalDefault::Allow;
    config.loops.idle_timeout = Some(Period::from_secs(5));
    let (ask, end) = (Some(UnknownPolicy::Ask), Some(UnknownPolicy::End));
    let configured = (ask, Some(60_000), true, Some(5_000));
    assert_eq!(asks(&limits(None, &config)), configured);

    let agent = v1::Agent {
        unknown_policy: v1::UnknownPolicy::End.into(),
        approval: Some(v1::ApprovalPolicy {
            expires_after: seconds(7),
            ..v1::ApprovalPolicy::default()
        }),
        limits: Some(v1::LoopLimits {
            idle_timeout: seconds(9),
            ..v1::LoopLimits::default()
        }),
        ..v1::Agent::default()
    };
    let own = limits(Some(agent), &config);
    assert_eq!(asks(&own), (end, Some(7_000), false, Some(9_000)));
    // What is shown is what was asked for, so that it can be sent back.
    let shown = to_wire(&Default::default(), Some(&own));
    assert_eq!(asks(&limits(Some(shown), &config)), asks(&own));
}

#[test]
fn periods_that_cannot_be_are_refused_by_name() {
    let agent = v1::Agent {
        unknown_policy: 99,
        approval: Some(v1::ApprovalPolicy {
            expires_after: seconds(0),
            tools: vec!["a__b".to_owned()],
            ..v1::ApprovalPolicy::default()
        }),
        limits: Some(v1::LoopLimits {
            idle_timeout: seconds(366 * 86_400),
            ..v1::LoopLimits::default()
        }),
        ..v1::Agent::default()
    };
    let mut all = Violations::default();
    terms(Some(agent), &Config::default(), &mut all);
    let mut fields: Vec<&str> = all.0.iter().map(|one| one.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "agent.approval.expires_after",
            "agent.approval.tools",
            "agent.limits.idle_timeout",
            "agent.unknown_policy",
        ]
    );
}

#[test]
fn an_answer_is_checked_whole() {
    let request = v1::ResolveUnknownRequest {
        session_id: "No".to_owned(),
        loop_id: "l0".to_owned(),
        call: "seven".to_owned(),
        resolution: v1::UnknownResolution::RunAgain.into(),
        result: Some(v1::ToolResult {
            structured_json: "{".to_owned(),
            usage: Some(v1::ToolUsage::default()),
            parts: vec![v1::Part::default()],
            ..v1::ToolResult::default()
        }),
        reason: "x".repeat(1_025),
        ..v1::ResolveUnknownRequest::default()
    };
    let refused = commands::unknown(request, &Caller::local(), &Config::default());
    let refused = refused.unwrap_err();
    let fields: Vec<&str> = refused.0.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "session_id",
            "loop_id",
            "call",
            "reason",
            "result",
            "result.parts[0]",
            "result.structured_json",
            "result.usage",
        ]
    );

    let request = v1::ResolveUnknownRequest {
        session_id: "s".to_owned(),
        loop_id: "l2".to_owned(),
        call: "c7".to_owned(),
        resolution: v1::UnknownResolution::Happened.into(),
        result: Some(v1::ToolResult {
            structured_json: r#"{"n":1}"#.to_owned(),
            is_error: true,
            ..v1::ToolResult::default()
        }),
        ..v1::ResolveUnknownRequest::default()
    };
    let told = commands::unknown(request, &Caller::local(), &Config::default()).unwrap();
    let What::ResolveUnknown {
        by,
        guard,
        call,
        resolution,
        output,
        ..
    } = told.what
    else {
        panic!("{told:?}");
    };
    assert_eq!((by.principal.as_str(), guard), ("local", Some(LoopId(2))));
    let output = output.unwrap();
    assert_eq!((call, resolution), (CallId(7), UnknownResolution::Happened));
    assert_eq!(output.structured.as_deref(), Some(r#"{"n":1}"#));
    assert!(output.is_error && output.text.is_empty());
}
