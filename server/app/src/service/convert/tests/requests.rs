//! What is refused, each in its very words; and what is taken, whole.

use std::collections::BTreeMap;

use loopwright_core::agent::{Agent, BudgetLimits, Limits};
use loopwright_core::message::Part;
use loopwright_proto::v1;

use crate::config::{Config, units::Period};
use crate::service::convert::{
    agent::{terms, to_wire},
    fields::{self, Violations},
    kinds,
    message::{Said, said},
};

/// `field: problem` of everything that is wrong.
fn told(all: Violations) -> Vec<String> {
    all.0
        .into_iter()
        .map(|one| format!("{}: {}", one.field, one.problem))
        .collect()
}

fn refusals(agent: v1::Agent, config: &Config) -> Vec<String> {
    let mut all = Violations::default();
    terms(Some(agent), config, &mut all);
    told(all)
}

fn limited(limits: v1::LoopLimits) -> v1::Agent {
    v1::Agent {
        limits: Some(limits),
        ..Default::default()
    }
}

#[test]
fn every_field_of_an_agent_that_does_not_act_is_refused_by_name() {
    let agent = v1::Agent {
        name: "a".into(),
        output_schema_json: "{}".into(),
        approval: Some(v1::ApprovalPolicy {
            destructive: true,
            ..Default::default()
        }),
        session_budget: Some(v1::BudgetLimits {
            max_tool_calls: Some(1),
            max_wall_time: Some(v1_duration(-1, 0)),
            warn_at: Some(0.5),
            on_exhausted: v1::OnExhausted::End as i32,
            ..Default::default()
        }),
        context: Some(v1::ContextOptions {
            max_tool_output_chars: Some(7),
            ..Default::default()
        }),
        ..limited(v1::LoopLimits {
            budget: Some(v1::BudgetLimits {
                max_wall_time: Some(v1_duration(1, -5)),
                warn_at: Some(f64::NAN),
                on_exhausted: 7,
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    let no = "does not act in this version yet; leave it out";
    let no_span = "is no span; send 0s or more, or leave it out for no limit";
    let of_the_loop = "is taken from the loop's own budget; leave it out, and set it there";
    assert_eq!(
        refusals(agent, &Config::default()),
        [
            format!("agent.output_schema_json: {no}, and ask for JSON in the system prompt"),
            format!(
                "agent.approval.destructive: {no}, and offer only tools that may run by themselves"
            ),
            format!(
                "agent.context.max_tool_output_chars: {no}; context.max_tool_output_chars of the \
                 server holds"
            ),
            format!("agent.limits.budget.max_wall_time: 1.000000005s {no_span}"),
            "agent.limits.budget.on_exhausted: 7 is no value of this enum; leave it out".to_owned(),
            "agent.limits.budget.warn_at: NaN is not a share from 0.01 to 1; leave it out for \
             budget.warn_at = 0.8 of the server"
                .to_owned(),
            format!("agent.session_budget.warn_at: {of_the_loop}"),
            format!("agent.session_budget.on_exhausted: {of_the_loop}"),
            format!("agent.session_budget.max_wall_time: -1.000000000s {no_span}"),
        ]
    );
}

fn is(agent: v1::Agent, expected: &[&str]) {
    assert_eq!(refusals(agent, &Config::default()), expected);
}

#[test]
fn how_a_conversation_is_compacted_has_its_bounds() {
    let context = Some(v1::ContextOptions {
        max_tokens: Some(999),
        compaction_threshold: Some(0.09),
        compaction_check_every: Some(0),
        compaction_target: Some(f64::NAN),
        ..Default::default()
    });
    let nothing = v1::Agent::default();
    is(
        v1::Agent { context, ..nothing },
        &[
            "agent.context.max_tokens: 999 is less than 1000, which no conversation fits",
            "agent.context.compaction_check_every: 0 is no cadence; send 1 for every step",
            "agent.context.compaction_threshold: 0.09 is not a share from 0.1 to 1",
            "agent.context.compaction_target: NaN is not a share from 0.05 to 1",
        ],
    );
}

#[test]
fn numbers_and_lists_of_an_agent_have_their_bounds() {
    let nothing = v1::Agent::default;
    let (temperature, top_p) = (Some(2.5), Some(f64::NAN));
    is(
        v1::Agent {
            temperature,
            top_p,
            ..nothing()
        },
        &[
            "agent.temperature: 2.5 is not between 0 and 2",
            "agent.top_p: NaN is not between 0 and 1",
        ],
    );
    let fallbacks = vec![String::new()];
    is(
        v1::Agent {
            fallbacks,
            ..nothing()
        },
        &[r#"agent.fallbacks[0]: "" is no name of a model; leave it out"#],
    );
    let fallbacks = vec!["m".to_owned(); 9];
    is(
        v1::Agent {
            fallbacks,
            ..nothing()
        },
        &["agent.fallbacks: has 9 models; at most 8 are taken"],
    );
    let system_prompt = "x".repeat((512 << 10) + 1);
    is(
        v1::Agent {
            system_prompt,
            ..nothing()
        },
        &["agent.system_prompt: has 524289 bytes; at most 524288 are taken"],
    );
    let unknown_policy = 9;
    is(
        v1::Agent {
            unknown_policy,
            ..nothing()
        },
        &["agent.unknown_policy: 9 is no value of this enum; leave it out"],
    );
}

#[test]
fn tools_are_named_as_on_the_models_wire() {
    let choice = |mode, tool: &str| v1::Agent {
        tool_choice: Some(v1::ToolChoice {
            mode,
            tool: tool.into(),
        }),
        ..v1::Agent::default()
    };
    let no_tool = "is not the name of a tool, such as \"files__read\"";
    let expected = format!("agent.tool_choice.tool: \"read\" {no_tool}");
    is(
        choice(v1::ToolChoiceMode::Tool as i32, "read"),
        &[&expected],
    );
    is(
        choice(0, "files__read"),
        &[r#"agent.tool_choice.tool: names "files__read"; set the mode to TOOL, or leave it out"#],
    );
    is(
        choice(9, ""),
        &["agent.tool_choice: mode 9 is no value of this enum; leave it out"],
    );
    let tools = Some(v1::ToolSelection {
        tools: vec!["files".into()],
    });
    let expected = format!("agent.tools.tools[0]: \"files\" {no_tool}");
    is(
        v1::Agent {
            tools,
            ..v1::Agent::default()
        },
        &[&expected],
    );
}

#[test]
fn options_for_a_provider_are_what_providers_take() {
    let options = |json: &str| v1::Agent {
        provider_options_json: json.into(),
        ..v1::Agent::default()
    };
    is(
        options("[1]"),
        &[
            "agent.provider_options_json: \"[1]\" cannot be sent: provider_options is no JSON object",
        ],
    );
    let own = refusals(options(r#"{"model":"x","top_k":1}"#), &Config::default());
    assert!(
        own[0].contains("sets `model`, which the loop sets itself; leave it out"),
        "{own:?}"
    );
    is(options(r#"{"top_k":1}"#), &[]);
}

#[test]
fn limits_move_up_to_the_servers_and_budgets_only_narrow() {
    let mut config = Config::default();
    config.limits.max_steps = Some(100);
    config.limits.max_output_tokens = Some(8_000);
    config.limits.max_parallel_tool_calls = Some(16);
    config.budget.max_total_tokens = Some(50_000);
    let over = v1::LoopLimits {
        max_steps: Some(101),
        max_output_tokens: Some(8_001),
        max_output_retries: Some(101),
        max_parallel_tool_calls: Some(0),
        deadline: Some(v1_duration(-1, 0)),
        no_progress_limit: Some(1_000_001),
        wrapup_steps: Some(1_000_001),
        final_call_tokens: Some(100_000_001),
        budget: Some(v1::BudgetLimits {
            max_total_tokens: Some(50_001),
            min_output_tokens: Some(63),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        refusals(limited(over), &config),
        [
            "agent.limits.max_steps: 101 is above limits.max_steps = 100 of the server; ask for \
             less, or leave it out for loop.max_steps = 75",
            "agent.limits.max_output_tokens: 8001 is above limits.max_output_tokens = 8000 of the \
             server; ask for less, or leave it out for loop.max_output_tokens = 4096",
            "agent.limits.max_output_retries: 101 is not between 0 and 100; leave it out for \
             loop.max_output_retries = 2",
            "agent.limits.max_parallel_tool_calls: 0 is not between 1 and 1024; leave it out for \
             loop.max_parallel_tool_calls = 8",
            "agent.limits.deadline: -1s is not between 1ms and 365 days; leave it out for what is \
             configured",
            "agent.limits.budget.min_output_tokens: 63 is not between budget.min_output_tokens = \
             64 of the server and 1000000",
            "agent.limits.budget.max_total_tokens: 50001 is wider than budget.max_total_tokens = \
             50000 of the server; ask for less, or leave it out",
            "agent.limits.no_progress_limit: 1000001 is not between 0 and 1000000; leave it out for \
             loop.no_progress_limit = 15",
            "agent.limits.wrapup_steps: 1000001 is not between 0 and 1000000; leave it out for \
             loop.wrapup_steps = 5",
            "agent.limits.final_call_tokens: 100000001 is more than 100000000; leave it out for \
             budget.final_call_tokens = 0",
        ]
    );
}

#[test]
fn what_is_left_out_is_as_configured() {
    let mut config = Config::default();
    config.loops.max_steps = 9;
    config.loops.deadline = Some(Period::from_secs(60));
    config.budget.max_input_tokens = Some(1_000);
    config.retry.max_attempts = 3;
    let mut all = Violations::default();
    let defaults = terms(None, &config, &mut all);
    assert_eq!(defaults.agent, Agent::default());
    let expected = Limits {
        max_steps: 9,
        deadline_ms: Some(60_000),
        budget: BudgetLimits {
            input_tokens: Some(1_000),
            ..Default::default()
        },
        retry: loopwright_core::retry::RetryPolicy {
            max_attempts: 3,
            ..Default::default()
        },
        context: Some(loopwright_core::context::ContextTerms::default()),
        no_progress: Some(15),
        wrapup_steps: 5,
        warn_permille: 800,
        ..Limits::default()
    };
    assert_eq!(*defaults.limits, expected);
    assert_eq!(told(all), Vec::<String>::new());
}

fn asked_for() -> v1::Agent {
    v1::Agent {
        model: "m".into(),
        fallbacks: vec!["n".into()],
        system_prompt: "be brief".into(),
        temperature: Some(0.0),
        top_p: Some(1.0),
        reasoning_effort: "low".into(),
        tool_choice: Some(v1::ToolChoice {
            mode: 4,
            tool: "files__read".into(),
        }),
        provider_options_json: r#"{"top_k":4}"#.into(),
        tools: Some(v1::ToolSelection {
            tools: vec!["files__read".into()],
        }),
        unknown_policy: v1::UnknownPolicy::End as i32,
        session_budget: Some(v1::BudgetLimits {
            max_total_tokens: Some(9),
            ..Default::default()
        }),
        ..limited(v1::LoopLimits {
            budget: Some(v1::BudgetLimits {
                max_input_tokens: Some(0),
                max_output_tokens: Some(5),
                max_total_tokens: Some(6),
                max_model_calls: Some(7),
                max_tool_calls: Some(8),
                min_output_tokens: Some(100),
                warn_at: Some(0.5),
                on_exhausted: v1::OnExhausted::Pause as i32,
                ..Default::default()
            }),
            no_progress_limit: Some(0),
            wrapup_steps: Some(2),
            tell_budget: Some(true),
            final_call_tokens: Some(4_000),
            ..Default::default()
        })
    }
}

#[test]
fn an_agent_is_shown_as_it_was_asked_for() {
    let mut config = Config::default();
    config.loops.deadline = Some(Period::from_secs(60));
    config.budget.max_input_tokens = Some(1_000);
    let mut all = Violations::default();
    let asked = asked_for();
    let kept = terms(Some(asked.clone()), &config, &mut all);
    assert_eq!(told(all), Vec::<String>::new());
    assert_eq!(
        kept.limits.budget.input_tokens,
        Some(0),
        "0 = nothing allowed"
    );
    let mut shown = to_wire(&kept.agent, Some(&kept.limits));
    let limits = shown.limits.take().unwrap();
    assert_eq!(limits.budget, asked.limits.as_ref().unwrap().budget.clone());
    assert_eq!(limits.deadline, Some(v1_duration(60, 0)));
    assert_eq!(
        (limits.no_progress_limit, limits.wrapup_steps),
        (Some(0), Some(2))
    );
    assert_eq!(kept.limits.no_progress, None, "0 = it never ends a loop");
    assert_eq!(
        (limits.tell_budget, limits.final_call_tokens),
        (Some(true), Some(4_000))
    );
    let context = shown.context.take().unwrap();
    assert_eq!(context.max_tokens, Some(180_000));
    assert_eq!(shown.approval.take(), Some(v1::ApprovalPolicy::default()));
    assert_eq!(
        shown,
        v1::Agent {
            limits: None,
            ..asked
        }
    );
}

#[test]
fn ids_labels_and_pages_are_checked_all_at_once() {
    let mut all = Violations::default();
    fields::id("session_id", "", &mut all);
    fields::id("session_id", "a/b", &mut all);
    fields::optional_loop("loop_id", "l0", &mut all);
    fields::request_id("caf\u{e9}", &mut all);
    fields::page_size(-1, &mut all);
    fields::states::<v1::LoopState>(&[1, 77], "states", &mut all);
    fields::reason(&"x".repeat(1_025), &mut all);
    kinds::filter(&["nope".to_owned()], &mut all);
    let labels: BTreeMap<String, String> = [
        ("Bad".to_owned(), String::new()),
        ("long".to_owned(), "y".repeat(257)),
    ]
    .into();
    fields::labels(labels, &mut all);
    let many = (0..33).map(|n| (format!("k{n}"), String::new())).collect();
    fields::labels(many, &mut all);
    assert_eq!(
        told(all),
        [
            "session_id: is empty; name one",
            r#"session_id: "a/b" does not match [a-z0-9][a-z0-9_-]{0,62}; use such an id"#,
            r#"loop_id: "l0" is no loop's id; they are "l1", "l2" and so on, or leave it empty"#,
            "request_id: \"caf\u{e9}\" is not 1 to 128 printable ASCII characters; a UUID is a good one",
            "page_size: -1 is negative; leave it out for 50",
            "states: 77 is no value of this enum; leave it out",
            "reason: has 1025 characters; at most 1024 are taken",
            "kinds: \"nope\" is no kind of event; they are named as the fields of Event.kind, such \
             as \"loop_ended\"",
            r#"labels: the key "Bad" does not match [a-z0-9][a-z0-9._/-]{0,62}"#,
            r#"labels: the value of "long" has 257 characters; at most 256 are taken"#,
            "labels: has 33 labels; at most 32 are taken",
        ]
    );
    let mut all = Violations::default();
    assert_eq!(fields::page_size(0, &mut all), 50);
    assert_eq!(fields::page_size(9_999, &mut all), 500);
    let any = fields::states::<v1::LoopState>(&[0, 1], "states", &mut all);
    assert_eq!(any, [], "the unspecified one means any");
    let (one, two) = (
        fields::request_id("", &mut all),
        fields::request_id("", &mut all),
    );
    assert_ne!(one, two, "a request without an id is a request of its own");
    assert!(all.0.is_empty());
}

#[test]
fn messages_are_text_from_a_user() {
    let refused = |said_| {
        let mut all = Violations::default();
        said(said_, 10, &mut all);
        told(all)
    };
    assert_eq!(
        refused(Said::Nothing),
        ["text: is empty, and so is message; say what the model is to do in one of them"]
    );
    assert_eq!(
        refused(Said::Text(String::new())),
        ["text: is empty; say what the model is to do"]
    );
    assert_eq!(
        refused(Said::Text("12345678901".into())),
        [
            "message: has 11 bytes, and limits.message_bytes is 10; send less, or let a tool read the \
          rest"
        ]
    );
    let part = |kind| v1::Part { kind, full: None };
    let message = v1::Message {
        role: v1::Role::Assistant as i32,
        parts: vec![
            part(Some(v1::part::Kind::Blob(v1::BlobPart::default()))),
            part(Some(v1::part::Kind::Opaque(v1::OpaquePart::default()))),
            v1::Part {
                kind: None,
                full: Some(v1::BlobRef::default()),
            },
        ],
    };
    assert_eq!(
        refused(Said::Message(message)),
        [
            "message.role: ROLE_ASSISTANT cannot be sent; leave it out, or send ROLE_USER",
            "message.parts[0]: is a blob, which this version does not take yet; send text, or a \
             path that a tool can read",
            "message.parts[1]: is of a kind that only the server writes; send text",
            "message.parts[2]: is empty or of a kind that this version does not know; send text",
            "message.parts[2].full: is set by the server alone; leave it out",
        ]
    );
    assert_eq!(
        refused(Said::Message(v1::Message::default())),
        ["message.parts: is empty; send at least one text part"]
    );
    let text = |text: &str| part(Some(v1::part::Kind::Text(text.into())));
    let message = v1::Message {
        role: 0,
        parts: vec![text("a"), text("b")],
    };
    let mut all = Violations::default();
    let parts = said(Said::Message(message), 10, &mut all);
    assert_eq!(*parts, vec![Part::Text("a".into()), Part::Text("b".into())]);
}

fn v1_duration(seconds: i64, nanos: i32) -> loopwright_proto::well_known::Duration {
    loopwright_proto::well_known::Duration { seconds, nanos }
}
