use std::sync::Arc;

use loopwright_core::{
    agent::{Agent, ToolSet},
    message::{Opaque, Part, Thinking},
    prompt::ModelRequest,
};

use super::session::{Session, asked, text, tool};
use crate::effects::model::{
    protocol::Protocol,
    transcript::{Ask, Breakpoints, Transcript},
};

const MARK: &str = ",\"cache_control\":{\"type\":\"ephemeral\"}";

fn agent() -> Agent {
    Agent {
        system_prompt: "Be \"brief\".".to_owned(),
        ..Agent::default()
    }
}

fn body(transcript: &mut Transcript, protocol: Protocol, request: &ModelRequest) -> String {
    body_with(transcript, protocol, request, 0)
}

fn body_with(
    transcript: &mut Transcript,
    protocol: Protocol,
    request: &ModelRequest,
    least_bytes: usize,
) -> String {
    let cache = (protocol == Protocol::Anthropic).then_some(Breakpoints {
        member: MARK,
        least_bytes,
    });
    let tail = b"]}".to_vec();
    let ask = Ask {
        protocol,
        id: "m",
        request,
        cache,
        tail,
    };
    String::from_utf8(transcript.body(ask).unwrap().to_vec()).unwrap()
}

/// Runs `steps` steps and gives the body of each call; at some of them more than one thing happens.
fn bodies(protocol: Protocol, steps: usize) -> Vec<String> {
    let mut session = Session::new(agent(), ToolSet::new(vec![tool("b"), tool("a")]));
    let mut kept = Transcript::default();
    session.user("begin");
    let mut bodies = Vec::new();
    for step in 0..steps {
        let request = session.call(1);
        let body = body(&mut kept, protocol, &request);
        let afresh = self::body(&mut Transcript::default(), protocol, &request);
        assert_eq!(body, afresh, "step {step}: the cache changes nothing");
        bodies.push(body);
        if step % 3 == 1 {
            session.reply(vec![asked("a", "{}"), text("and"), asked("b", "{\"x\":1}")]);
            session.results(&[(0, "one"), (2, "two")]);
            session.user("steered");
            session.user("twice");
        } else if step % 7 == 6 {
            session.reply(vec![text(" ")]);
            session.user("say something");
        } else {
            session.reply(vec![text("hm"), asked("a", "{}")]);
            session.results(&[(1, "")]);
        }
    }
    bodies
}

#[test]
fn every_body_begins_with_the_one_before() {
    for protocol in [Protocol::Anthropic, Protocol::OpenAi] {
        let mut before = String::new();
        for (step, body) in bodies(protocol, 120).iter().enumerate() {
            let _: serde_json::Value = serde_json::from_str(body).unwrap();
            let plain = body.replace(MARK, "");
            let messages = plain.strip_suffix("]}").unwrap();
            assert!(
                messages.starts_with(&before),
                "{protocol:?}: step {step} changes the prefix"
            );
            assert!(body.matches(MARK).count() <= 4, "{protocol:?}: step {step}");
            before = messages.to_owned();
        }
    }
}

#[test]
fn the_older_breakpoint_falls_where_the_last_call_ended() {
    let bodies = bodies(Protocol::Anthropic, 60);
    for (step, pair) in bodies.windows(2).enumerate() {
        let end = pair[0].strip_suffix(&format!("{MARK}}}]}}]}}")).unwrap();
        let plain = end.replace(MARK, "").len();
        let marks = pair[1].match_indices(MARK).map(|(at, _)| at);
        let places: Vec<usize> = marks
            .enumerate()
            .map(|(n, at)| at - n * MARK.len())
            .collect();
        assert_eq!(places.len(), 4, "step {step}");
        assert_eq!(places[2], plain, "step {step}");
    }
}

#[test]
fn a_prefix_that_is_too_short_to_be_kept_has_no_breakpoint() {
    let least = 1_500;
    let mut session = Session::new(agent(), ToolSet::new(vec![tool("a")]));
    let mut kept = Transcript::default();
    session.user("begin");
    let mut counts = Vec::new();
    for _ in 0..40 {
        let request = session.call(1);
        let body = body_with(&mut kept, Protocol::Anthropic, &request, least);
        let afresh = body_with(
            &mut Transcript::default(),
            Protocol::Anthropic,
            &request,
            least,
        );
        assert_eq!(body, afresh, "the cache changes nothing");
        let marks: Vec<usize> = body.match_indices(MARK).map(|(at, _)| at).collect();
        for (earlier, at) in marks.iter().enumerate() {
            let prefix = at - earlier * MARK.len();
            assert!(prefix >= least, "{prefix} bytes are marked");
        }
        counts.push(marks.len());
        session.reply(vec![text("hm"), asked("a", "{}")]);
        session.results(&[(1, "found")]);
    }
    assert_eq!(counts[0], 0, "nothing is long enough");
    let first = counts.iter().position(|count| *count == 1);
    assert!(first.is_some(), "then the last turn is: {counts:?}");
    // The tools and the system prompt stay as short as they are.
    assert!(counts[39] == 2 && counts.is_sorted(), "{counts:?}");
}

#[test]
fn a_conversation_that_is_another_one_is_rendered_anew() {
    let mut kept = Transcript::default();
    let request = |words: &[&str]| {
        let mut session = Session::new(agent(), ToolSet::new(vec![]));
        words.iter().for_each(|word| session.user(word));
        session.call(1)
    };
    for words in [&["a", "b", "c"][..], &["x", "b", "c"], &["a"], &["a", "b"]] {
        let got = body(&mut kept, Protocol::OpenAi, &request(words));
        for word in words {
            assert!(got.contains(&format!("\"{word}\"")), "{got}");
        }
        assert_eq!(got.matches("\"user\"").count(), words.len(), "{got}");
    }
}

#[test]
fn what_a_provider_cannot_take_is_left_out() {
    let own = |provider: &str, json: &str| {
        Part::Opaque(Opaque {
            provider: provider.to_owned(),
            json: json.to_owned(),
        })
    };
    let thought = |signature: Option<&str>| {
        let signature = signature.map(str::to_owned);
        Part::Thinking(Thinking {
            text: "t".to_owned(),
            signature,
        })
    };
    let mut session = Session::new(Agent::default(), ToolSet::new(vec![]));
    session.user("go");
    session.call(1);
    session.reply(vec![
        thought(Some("sig")),
        thought(None),
        text(""),
        own("anthropic", "{\"type\":\"server_tool_use\"}"),
        asked("t", "{broken"),
        own("openai", "{\"extra_content\":{\"k\":1}}"),
        thought(Some("at the end")),
    ]);
    session.results(&[(4, " ")]);
    let request = session.call(1);
    let anthropic = body(&mut Transcript::default(), Protocol::Anthropic, &request);
    assert_eq!(
        anthropic.replace(MARK, ""),
        "{\"model\":\"m\",\"messages\":[\
         {\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"go\"}]},\
         {\"role\":\"assistant\",\"content\":[\
         {\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"sig\"},\
         {\"type\":\"server_tool_use\"},\
         {\"type\":\"tool_use\",\"id\":\"c2\",\"name\":\"t\",\
         \"input\":{\"INVALID_JSON\":\"{broken\"}}]},\
         {\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c2\",\
         \"content\":\"(no output)\"}]}]}"
    );
    let openai = body(&mut Transcript::default(), Protocol::OpenAi, &request);
    assert_eq!(
        openai,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"go\"},\
         {\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c2\",\
         \"type\":\"function\",\"function\":{\"name\":\"t\",\
         \"arguments\":\"{\\\"INVALID_JSON\\\":\\\"{broken\\\"}\"},\"extra_content\":{\"k\":1}}]},\
         {\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":\"(no output)\"}]}"
    );
    assert_eq!(
        Arc::strong_count(&request.agent),
        2,
        "the transcripts hold no agent once dropped"
    );
}

#[test]
fn a_conversation_of_blanks_is_refused_with_a_reason() {
    let mut session = Session::new(Agent::default(), ToolSet::new(vec![]));
    session.user(" \n");
    let request = session.call(1);
    let ask = Ask {
        protocol: Protocol::OpenAi,
        id: "m",
        request: &request,
        cache: None,
        tail: vec![],
    };
    let refused = Transcript::default().body(ask).unwrap_err();
    assert!(refused.contains("every message is blank"), "{refused}");
}

#[test]
fn a_schema_that_is_none_names_its_tool() {
    let mut broken = tool("files__read");
    broken.input_schema = "true".to_owned();
    let mut session = Session::new(Agent::default(), ToolSet::new(vec![broken]));
    session.user("go");
    let request = session.call(1);
    let ask = Ask {
        protocol: Protocol::OpenAi,
        id: "m",
        request: &request,
        cache: None,
        tail: vec![],
    };
    assert!(
        Transcript::default()
            .body(ask)
            .unwrap_err()
            .contains("`files__read`")
    );
}
