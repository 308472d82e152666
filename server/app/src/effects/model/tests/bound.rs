//! What a call reserves for its prompt is never less than what it is sent.
//!
//! The tokenizer is the worst that a byte-level one can be: a token for each byte of every string and
//! every name of a member in the body, decoded, whatever it is for.

use std::sync::Arc;

use loopwright_core::{
    agent::{Agent, BudgetLimits, Limits, ToolSet},
    context::{CompactionTrigger, Goal, plan},
    event::{ContextCompacted, MessageAdded, Nudge, Origin, ToolsChanged},
    message::{BlobPart, Opaque, Part, Thinking, ToolOutput},
    outcome::EndReason,
    prompt::ModelRequest,
};
use proptest::prelude::*;
use serde_json::Value;

use super::session::{Session, asked, text, tool};
use crate::effects::model::{
    protocol::Protocol,
    transcript::{Ask, Transcript},
};

const BOTH: [Protocol; 2] = [Protocol::Anthropic, Protocol::OpenAi];

/// What happens between two calls.
#[derive(Clone, Debug)]
enum Happening {
    Said(Vec<Part>),
    Compacted(u64),
    Tools(u8),
    Concluding,
}

/// One call: what happens before it, its reply, the results of its tools, and whether it is counted.
type Step = (Vec<Happening>, Vec<Part>, Vec<(String, bool)>, bool);

/// The tokens of a body.
fn tokens(protocol: Protocol, request: &ModelRequest) -> u64 {
    let tail = protocol.tail(true, request.max_output_tokens, request);
    let ask = Ask {
        protocol,
        id: "m",
        request,
        cache: None,
        tail: tail.unwrap(),
    };
    let body = Transcript::default().body(ask).unwrap().to_vec();
    read(&serde_json::from_slice(&body).unwrap())
}

fn read(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string().len() as u64,
        Value::String(text) => text.len() as u64,
        Value::Array(all) => all.iter().map(read).sum(),
        Value::Object(all) => {
            let member = |(name, value): (&String, &Value)| name.len() as u64 + read(value);
            all.iter().map(member).sum()
        }
    }
}

/// Any text, often blank or full of what JSON escapes.
fn words() -> impl Strategy<Value = String> {
    let odd = prop::collection::vec(
        prop::sample::select(vec![
            '"', '\\', '\n', '\u{1}', '\u{7f}', 'ä', '世', '\u{1f}',
        ]),
        0..60,
    );
    let any = prop::collection::vec(any::<char>(), 0..60);
    prop_oneof![
        Just(String::new()),
        Just(" \n".to_owned()),
        odd.prop_map(|all| all.into_iter().collect()),
        any.prop_map(|all| all.into_iter().collect()),
        Just("plain words ".repeat(200)),
    ]
}

/// A JSON object of text and whole numbers.
fn object() -> impl Strategy<Value = String> {
    prop::collection::btree_map(words(), words(), 0..4)
        .prop_map(|members| serde_json::json!(members).to_string())
}

fn reply_part() -> impl Strategy<Value = Part> {
    let thought = (words(), prop::option::of(words()))
        .prop_map(|(text, signature)| Part::Thinking(Thinking { text, signature }));
    let own = (any::<bool>(), object()).prop_map(|(ours, json)| {
        let provider = if ours { "anthropic" } else { "openai" };
        Part::Opaque(Opaque {
            provider: provider.to_owned(),
            json,
        })
    });
    prop_oneof![
        words().prop_map(|said| text(&said)),
        thought,
        own,
        (words(), words()).prop_map(|(tool, arguments)| asked(&tool, &arguments)),
        (words(), object()).prop_map(|(tool, arguments)| asked(&tool, &arguments)),
    ]
}

fn said() -> impl Strategy<Value = Vec<Part>> {
    let blob = "[a-z/]{0,40}".prop_map(|media_type| {
        Part::Blob(BlobPart {
            sha256: "0".repeat(64),
            bytes: u64::MAX,
            media_type,
        })
    });
    let part = prop_oneof![4 => words().prop_map(|said| text(&said)), 1 => blob];
    prop::collection::vec(part, 1..6)
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => said().prop_map(Happening::Said),
        1 => (0u64..4_000).prop_map(Happening::Compacted),
        1 => (0u8..4).prop_map(Happening::Tools),
        1 => Just(Happening::Concluding),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (
        prop::collection::vec(happening(), 0..3),
        prop::collection::vec(reply_part(), 0..6),
        prop::collection::vec((words(), any::<bool>()), 6),
        any::<bool>(),
    )
}

fn agent() -> impl Strategy<Value = Agent> {
    let option = |name: &'static str| {
        words().prop_map(move |value| serde_json::json!({ name: value }).to_string())
    };
    let choices = vec![None, Some("auto"), Some("required"), Some("files__read")];
    (
        words(),
        prop::option::of(option("service_tier")),
        prop::option::of(object()),
        prop::sample::select(choices),
        prop::option::of("[a-z]{1,9}"),
    )
        .prop_map(
            |(system_prompt, provider_options, output_schema, choice, effort)| Agent {
                system_prompt,
                provider_options,
                output_schema,
                tool_choice: choice.map(str::to_owned),
                reasoning_effort: effort,
                temperature: Some(0.5),
                ..Agent::default()
            },
        )
}

/// So many tools; each set is of as many bytes as any other of so many.
fn tools(kind: u8) -> Arc<ToolSet> {
    let names: &[&str] = match kind {
        0 => &[],
        1 => &["files__read"],
        2 => &["files__list"],
        _ => &["files__read", "files__list", "mail__send"],
    };
    ToolSet::new(names.iter().map(|name| tool(name)).collect())
}

fn happens(session: &mut Session, what: Happening) {
    match what {
        Happening::Said(parts) => session.apply(
            MessageAdded {
                origin: Origin::Steer,
                parts: Arc::new(parts),
                nudge: None,
            }
            .into(),
        ),
        Happening::Tools(kind) => session.apply(ToolsChanged { tools: tools(kind) }.into()),
        Happening::Concluding => session.apply(
            MessageAdded {
                origin: Origin::Nudge,
                parts: Arc::new(vec![text("conclude")]),
                nudge: Some(Nudge::Conclude(EndReason::Completed)),
            }
            .into(),
        ),
        Happening::Compacted(target) => compact(session, target),
    }
}

fn compact(session: &mut Session, target: u64) {
    let state = session.state();
    let goal = Goal {
        target,
        ceiling: target,
        min_recent: 0,
        reads_output: state.tools.reads_output(),
    };
    let plan = plan(&state.conversation.turns(), state.recap.as_deref(), goal);
    let Some(plan) = plan else {
        return;
    };
    let event = ContextCompacted {
        trigger: CompactionTrigger::Ceiling,
        dropped: u32::try_from(plan.dropped).unwrap(),
        from_seq: 0,
        through_seq: 0,
        tokens_before: 0,
        tokens_after: 0,
        target_met: true,
        recap: plan.recap.map(Arc::new),
        shortened: plan.shortened,
        by_model: false,
        fallback: None,
    };
    session.apply(event.into());
}

fn results(parts: &[Part], given: &[(String, bool)]) -> Vec<(u32, ToolOutput)> {
    let calls = parts.iter().enumerate();
    let calls = calls.filter(|(_, part)| matches!(part, Part::ToolCall(_)));
    let result = |((index, _), (text, is_error)): ((usize, _), &(String, bool))| {
        let output = ToolOutput {
            text: text.clone(),
            is_error: *is_error,
            ..ToolOutput::default()
        };
        (u32::try_from(index).unwrap(), output)
    };
    calls.zip(given).map(result).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is said, thought, called, answered and compacted, for both protocols, counted by the
    /// provider at times or never.
    #[test]
    fn no_prompt_is_larger_than_what_is_reserved_for_it(
        agent in agent(),
        steps in prop::collection::vec(step(), 1..9),
        counts_by in 0usize..2,
        is_counted in any::<bool>(),
        tell_budget in any::<bool>(),
    ) {
        let limits = Limits {
            tell_budget,
            budget: BudgetLimits { total_tokens: Some(u64::MAX), ..BudgetLimits::default() },
            ..Limits::default()
        };
        let mut session = Session::within(limits, agent, tools(1));
        session.user("begin");
        let mut counted = false;
        for (before, parts, given, counts) in steps {
            before.into_iter().for_each(|what| happens(&mut session, what));
            let bound = session.state().prompt_bound();
            let request = session.call(1);
            for (at, protocol) in BOTH.into_iter().enumerate() {
                // What one provider counts says nothing of another's prompts.
                if !counted || at == counts_by {
                    let sent = tokens(protocol, &request);
                    prop_assert!(sent <= bound, "{protocol:?} is sent {sent} of {bound}");
                }
            }
            let counts = counts && is_counted;
            let prompt = counts.then(|| tokens(BOTH[counts_by], &request));
            counted |= counts;
            let results = results(&parts, &given);
            session.reply_counted(parts, prompt);
            if !results.is_empty() {
                session.gives(&results);
            }
        }
    }
}
