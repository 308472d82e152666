use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    agent::{Agent, ToolSet},
    outcome::{ModelFailureKind, StopReason},
    usage::Usage,
};

use super::session::{Session, asked, sink, text};
use crate::{
    config::Config,
    effects::{
        CallTrace,
        model::{Models, ModelsOptions, NoModel, Transcript},
    },
};

const SCRIPT: &str = "
- text: I look.
  tool_calls: [{tool: files__read, arguments: {path: a}, id: x}]
- fail: {status: 529, retry_after_ms: 5, times: 2}
  text: 'It says {{last_result}}, {{last_user}}.'
  usage: {input: 7, output: 3}
- text: 0123456789
  usage: {output: 9}
- text: no end in sight
";

fn models() -> Arc<Models> {
    let scripts = BTreeMap::from([("demo".to_owned(), SCRIPT.to_owned())]);
    let options = ModelsOptions {
        scripts,
        ..ModelsOptions::default()
    };
    Models::new(&Config::default(), &BTreeMap::new(), options).unwrap()
}

fn session() -> Session {
    let agent = Agent {
        model: "demo".to_owned(),
        ..Agent::default()
    };
    Session::new(agent, ToolSet::new(vec![]))
}

#[tokio::test]
async fn the_conversation_says_which_turn_comes() {
    let (models, mut session) = (models(), session());
    let mut transcript = Transcript::default();
    let mut call = |request| models.call(&mut transcript, request, CallTrace::default(), sink());
    session.user("go");
    let request = session.call(1);
    let first = call(request.clone()).await.unwrap();
    assert_eq!(first.stop, StopReason::ToolUse);
    let began = first.first_token_ms.unwrap();
    assert!(began <= first.latency_ms, "{began} of {}", first.latency_ms);
    assert_eq!(
        *first.parts,
        vec![text("I look."), {
            let mut part = asked("files__read", "{\"path\":\"a\"}");
            if let loopwright_core::message::Part::ToolCall(call) = &mut part {
                call.provider_id = "x".to_owned();
            }
            part
        }]
    );
    assert_eq!(
        call(request).await.unwrap().parts,
        first.parts,
        "a repeat gets the same turn"
    );
    session.reply(first.parts.to_vec());
    session.results(&[(1, "42")]);
    session.user("hurry");
    for attempt in [1, 2] {
        let failure = call(session.call(attempt)).await.unwrap_err();
        assert_eq!(failure.kind, ModelFailureKind::Overloaded);
        assert_eq!(
            (failure.retry_after_ms, failure.http_status),
            (Some(5), 529)
        );
    }
    let second = call(session.call(3)).await.unwrap();
    assert_eq!(*second.parts, vec![text("It says 42, hurry.")]);
    assert_eq!(
        second.usage,
        Some(Usage {
            input: 7,
            output: 3,
            ..Usage::default()
        })
    );
}

#[tokio::test]
async fn a_text_over_the_cap_is_cut_and_a_script_ends() {
    let (models, mut session) = (models(), session());
    let mut transcript = Transcript::default();
    let mut call = |request| models.call(&mut transcript, request, CallTrace::default(), sink());
    for number in 0..3 {
        session.user("go");
        session.call(1);
        session.reply(vec![text(&number.to_string())]);
    }
    session.user("go");
    let mut request = session.call(1);
    request.max_output_tokens = 2;
    let cut = call(request).await.unwrap();
    assert_eq!(
        (cut.stop, &*cut.parts),
        (StopReason::MaxTokens, &vec![text("no end i")])
    );
    assert_eq!(cut.usage.unwrap().output, 2);
    session.reply(vec![text("3")]);
    let failure = call(session.call(1)).await.unwrap_err();
    assert_eq!(failure.kind, ModelFailureKind::InvalidRequest);
    assert!(
        failure
            .message
            .contains("has 4 replies, and this is number 5"),
        "{}",
        failure.message
    );
}

#[test]
fn no_model_names_the_ways_out() {
    let models = |env: &[(&str, &str)]| {
        let env = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Models::new(&Config::default(), &env, ModelsOptions::default()).unwrap()
    };
    let none = models(&[]);
    assert!(!none.has_any());
    let problem = none.check("").unwrap_err();
    assert_eq!(problem, NoModel::None);
    for way in [
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "models.<alias>",
        "loopwright demo",
    ] {
        assert!(problem.to_string().contains(way), "{way}");
    }
    let some = models(&[("OPENAI_API_KEY", "k")]);
    assert!(some.has_any());
    assert_eq!(
        some.check("").unwrap().name,
        some.check("openai/gpt-5.5").unwrap().name
    );
}
