#![expect(clippy::unwrap_used, reason = "tests")]

use futures_util::StreamExt as _;
use loopwright_proto::v1::session_log_service_server::SessionLogService as _;
use loopwright_proto::v1::start_loop_request::Input;

use super::*;
use crate::{
    config::{Config, ModelConfig, Provider},
    effects::model::{Models, ModelsOptions},
    service::{fixture, session_log::SessionLogs},
};

const QUICK: &str = "at_end: repeat\nturns:\n- text: one\n";
const SLOW: &str = "at_end: repeat\nturns:\n- text: late\n  delay_ms: 3600000\n";

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::local());
    request
}

fn start(request_id: &str, session: &str, text: &str) -> v1::StartLoopRequest {
    v1::StartLoopRequest {
        request_id: request_id.into(),
        session_id: session.into(),
        agent: Some(v1::Agent {
            model: "m".into(),
            name: format!("of-{session}"),
            ..Default::default()
        }),
        input: Some(Input::Text(text.into())),
        labels: [("team".to_owned(), session.to_owned())].into(),
    }
}

fn say(request_id: &str, mode: v1::MessageMode) -> v1::SendMessageRequest {
    v1::SendMessageRequest {
        request_id: request_id.into(),
        session_id: "s1".into(),
        mode: mode as i32,
        input: Some(v1::send_message_request::Input::Text("more".into())),
        ..Default::default()
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    let status = result.unwrap_err();
    let details = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    format!("{:?} {}", status.code(), details.reason)
}

pub(super) async fn ended(loops: &Loops, session: &str, id: &str) {
    let request = v1::WatchLoopRequest {
        session_id: session.into(),
        loop_id: id.into(),
        ..Default::default()
    };
    let items = loops.watch_loop(asked(request)).await.unwrap().into_inner();
    items.for_each(async |item| drop(item.unwrap())).await;
}

#[tokio::test]
async fn a_start_is_idempotent_and_its_session_is_derived_where_none_is_named() {
    let (state, _drain) = fixture::state(QUICK);
    let loops = Loops(state);
    let begin = async |request| {
        loops
            .start_loop(asked(request))
            .await
            .map(Response::into_inner)
    };
    let first = begin(start("r1", "", "go")).await.unwrap();
    assert!(first.session_id.starts_with("s-"), "{}", first.session_id);
    ended(&loops, &first.session_id, "l1").await;
    assert_eq!(
        begin(start("r1", "", "go")).await.unwrap(),
        first,
        "the first answer"
    );
    let reused = begin(start("r1", "", "something else")).await;
    assert_eq!(reason(reused), "AlreadyExists REQUEST_ID_REUSED");
    let other = begin(start("r2", "", "go")).await.unwrap();
    assert_ne!(other.session_id, first.session_id);
    let nameless = [
        begin(start("", "", "go")).await,
        begin(start("", "", "go")).await,
    ];
    let [one, two] = nameless.map(|started| started.unwrap().session_id);
    assert_ne!(one, two, "requests without an id are different ones");
}

#[tokio::test]
async fn what_a_start_cannot_have_is_refused_before_anything_is_written() {
    let (state, _drain) = fixture::state(QUICK);
    let loops = Loops(state.clone());
    let begin = async |agent| {
        let request = v1::StartLoopRequest {
            agent,
            ..start("r1", "s1", "go")
        };
        reason(loops.start_loop(asked(request)).await)
    };
    assert_eq!(begin(None).await, "FailedPrecondition NO_MODEL");
    let model = |model: &str| v1::Agent {
        model: model.into(),
        ..Default::default()
    };
    assert_eq!(
        begin(Some(model("nope"))).await,
        "FailedPrecondition NO_MODEL"
    );
    let fallbacks = vec!["nope".to_owned()];
    let fallback = v1::Agent {
        fallbacks,
        ..model("m")
    };
    assert_eq!(begin(Some(fallback)).await, "FailedPrecondition NO_MODEL");
    let tools = Some(v1::ToolSelection {
        tools: vec!["files__read".into()],
    });
    let tool = v1::Agent {
        tools,
        ..model("m")
    };
    assert_eq!(begin(Some(tool)).await, "FailedPrecondition TOOL_NOT_FOUND");
    let key = fixture::key("s1");
    assert_eq!(
        state.log.tail(&key).await.unwrap(),
        None,
        "no session came of it"
    );
    let request = Request::new(start("r1", "s1", "go"));
    assert_eq!(
        reason(loops.start_loop(request).await),
        "Unauthenticated NO_CREDENTIAL"
    );
}

#[tokio::test]
async fn the_output_cap_is_at_most_what_the_model_can_give_and_take() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.yaml");
    std::fs::write(&script, QUICK).unwrap();
    for (max_output, context_window, cap) in [
        (None, None, 4_096),
        (Some(1_000), None, 1_000),
        (None, Some(2_048), 2_048),
        (Some(3_000), Some(2_048), 2_048),
        (Some(9_000), Some(9_000), 4_096),
    ] {
        let (mut state, _drain) = fixture::state(QUICK);
        let model = ModelConfig {
            provider: Some(Provider::Scripted),
            script: Some(script.clone()),
            max_output,
            context_window,
            ..ModelConfig::default()
        };
        let config = Config {
            models: [("m".to_owned(), model)].into(),
            ..Config::default()
        };
        state.models = Models::new(&config, &[].into(), ModelsOptions::default()).unwrap();
        let loops = Loops(state.clone());
        let started = loops.start_loop(asked(start("r1", "s1", "go"))).await;
        started.unwrap();
        let request = asked(v1::GetSessionRequest {
            session_id: "s1".into(),
        });
        let session = SessionLogs(state).get_session(request).await.unwrap();
        let limits = session.into_inner().agent.unwrap().limits.unwrap();
        assert_eq!(limits.max_output_tokens, Some(cap));
    }
}

#[tokio::test]
async fn the_window_is_the_smallest_of_the_agents_models() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script.yaml");
    std::fs::write(&script, QUICK).unwrap();
    let model = |window: u64| ModelConfig {
        provider: Some(Provider::Scripted),
        script: Some(script.clone()),
        context_window: Some(window),
        ..ModelConfig::default()
    };
    let models = [("m", 100_000), ("wide", 900_000), ("narrow", 3_000)];
    let config = Config {
        models: models
            .map(|(name, window)| (name.to_owned(), model(window)))
            .into(),
        ..Config::default()
    };
    for (fallbacks, tokens, cap) in [
        (&[][..], 100_000, 4_096),
        (&["wide"], 100_000, 4_096),
        (&["wide", "narrow"], 3_000, 3_000),
    ] {
        let (mut state, _drain) = fixture::state(QUICK);
        state.models = Models::new(&config, &[].into(), ModelsOptions::default()).unwrap();
        let mut asks = start("r1", "s1", "go");
        if let Some(agent) = &mut asks.agent {
            agent.fallbacks = fallbacks.iter().map(ToString::to_string).collect();
        }
        Loops(state.clone()).start_loop(asked(asks)).await.unwrap();
        let session = asked(v1::GetSessionRequest {
            session_id: "s1".into(),
        });
        let session = SessionLogs(state).get_session(session).await.unwrap();
        let agent = session.into_inner().agent.unwrap();
        assert_eq!(
            agent.limits.unwrap().max_output_tokens,
            Some(cap),
            "{fallbacks:?}"
        );
        assert_eq!(
            agent.context.unwrap().max_tokens,
            Some(tokens),
            "{fallbacks:?}"
        );
    }
}

#[tokio::test]
async fn messages_to_a_running_loop_wait_or_join() {
    let (state, _drain) = fixture::state(SLOW);
    let loops = Loops(state);
    let missing = loops
        .send_message(asked(say("q0", v1::MessageMode::Queue)))
        .await;
    assert_eq!(reason(missing), "NotFound SESSION_NOT_FOUND");
    loops
        .start_loop(asked(start("r1", "s1", "go")))
        .await
        .unwrap();
    let second = loops.start_loop(asked(start("r2", "s1", "go"))).await;
    assert_eq!(reason(second), "FailedPrecondition LOOP_RUNNING");
    let send = async |request| {
        loops
            .send_message(asked(request))
            .await
            .unwrap()
            .into_inner()
    };
    assert_eq!(
        send(say("q1", v1::MessageMode::Queue)).await.loop_id,
        "",
        "it is queued"
    );
    assert_eq!(send(say("q2", v1::MessageMode::Steer)).await.loop_id, "l1");
    let other = v1::SendMessageRequest {
        loop_id: "l7".into(),
        ..say("q3", v1::MessageMode::Queue)
    };
    let mismatch = loops.send_message(asked(other)).await;
    assert_eq!(reason(mismatch), "FailedPrecondition LOOP_MISMATCH");
    let session = loops_summary(&loops).await;
    assert_eq!(
        (session.state(), session.driver_restarts),
        (v1::LoopState::Running, 0)
    );

    let cancel = |id: &str| v1::CancelLoopRequest {
        request_id: id.into(),
        session_id: "s1".into(),
        ..Default::default()
    };
    let done = loops
        .cancel_loop(asked(cancel("c1")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(done.loop_id, "l1");
    let again = loops
        .cancel_loop(asked(cancel("c1")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, done, "the first answer");
    let idle = loops.cancel_loop(asked(cancel("c2"))).await;
    assert_eq!(reason(idle), "FailedPrecondition NO_LOOP");
    assert_eq!(
        loops_summary(&loops).await.end_reason(),
        v1::EndReason::Cancelled
    );
}

async fn loops_summary(loops: &Loops) -> v1::LoopSummary {
    let request = v1::GetLoopRequest {
        session_id: "s1".into(),
        loop_id: String::new(),
    };
    loops
        .get_loop(asked(request))
        .await
        .unwrap()
        .into_inner()
        .r#loop
        .unwrap()
}

/// Three sessions of one loop, then a second loop of `s2`, all ended.
async fn listed() -> (Loops, crate::drain::Drain) {
    let (state, drain) = fixture::state(QUICK);
    let loops = Loops(state);
    let runs = [
        ("r1", "s1", "l1"),
        ("r2", "s2", "l1"),
        ("r3", "s3", "l1"),
        ("r4", "s2", "l2"),
    ];
    for (request_id, session, id) in runs {
        let started = loops
            .start_loop(asked(start(request_id, session, "go")))
            .await
            .unwrap();
        assert_eq!(started.into_inner().loop_id, id);
        ended(&loops, session, id).await;
    }
    (loops, drain)
}

#[tokio::test]
async fn loops_are_listed_by_page_and_filter_the_latest_first() {
    let (loops, _drain) = listed().await;
    let list = async |request: v1::ListLoopsRequest| {
        let listed = loops.list_loops(asked(request)).await.unwrap().into_inner();
        let names = listed
            .loops
            .iter()
            .map(|one| format!("{}/{}", one.session_id, one.loop_id));
        (names.collect::<Vec<_>>(), listed.next_page_token)
    };
    let none = v1::ListLoopsRequest::default;
    let (all, token) = list(none()).await;
    assert_eq!(
        (all.len(), all[0].as_str(), token.as_str()),
        (4, "s2/l2", "")
    );
    let (mut paged, mut page_token) = (Vec::new(), String::new());
    for _ in 0..2 {
        let request = v1::ListLoopsRequest {
            page_size: 3,
            page_token,
            ..none()
        };
        let (page, next) = list(request).await;
        paged.extend(page);
        page_token = next;
    }
    assert_eq!((paged, page_token), (all, String::new()));
    let mine = v1::ListLoopsRequest {
        session_id: "s1".into(),
        ..none()
    };
    assert_eq!(list(mine).await.0, ["s1/l1"]);
    let labels = [("team".to_owned(), "s3".to_owned())].into();
    assert_eq!(
        list(v1::ListLoopsRequest { labels, ..none() }).await.0,
        ["s3/l1"]
    );
    let agent = "of-s3".to_owned();
    assert_eq!(
        list(v1::ListLoopsRequest { agent, ..none() }).await.0,
        ["s3/l1"]
    );
    let states = vec![v1::LoopState::Running as i32];
    assert_eq!(
        list(v1::ListLoopsRequest { states, ..none() })
            .await
            .0
            .len(),
        0
    );
    let missing = v1::GetLoopRequest {
        session_id: "s1".into(),
        loop_id: "l9".into(),
    };
    let missing = loops.get_loop(asked(missing)).await;
    assert_eq!(reason(missing), "NotFound LOOP_NOT_FOUND");
}

#[tokio::test]
async fn sessions_are_listed_and_told() {
    let (loops, _drain) = listed().await;
    let logs = SessionLogs(loops.0.clone());
    let labels = [("team".to_owned(), "s3".to_owned())].into();
    let request = v1::ListSessionsRequest {
        labels,
        ..Default::default()
    };
    let listed = logs
        .list_sessions(asked(request))
        .await
        .unwrap()
        .into_inner();
    let listed: Vec<_> = listed
        .sessions
        .into_iter()
        .map(|one| (one.title, one.last_text))
        .collect();
    assert_eq!(listed, [("go".to_owned(), "one".to_owned())]);
    let request = v1::GetSessionRequest {
        session_id: "s2".into(),
    };
    let got = logs.get_session(asked(request)).await.unwrap().into_inner();
    let (session, agent) = (got.session.unwrap(), got.agent.unwrap());
    assert_eq!(
        (session.loops, session.state()),
        (2, v1::SessionState::Idle)
    );
    assert_eq!(
        (agent.model.as_str(), agent.limits.unwrap().max_steps),
        ("m", Some(75))
    );
    let request = v1::GetSessionRequest {
        session_id: "s9".into(),
    };
    let missing = logs.get_session(asked(request)).await;
    assert_eq!(reason(missing), "NotFound SESSION_NOT_FOUND");
}

#[tokio::test]
async fn a_session_whose_model_is_gone_goes_on_with_another() {
    let (state, _drain) = fixture::state(QUICK);
    fixture::append(&*state.log, &fixture::key("s1"), fixture::session("s1")).await;
    let loops = Loops(state);
    let sent = loops
        .send_message(asked(say("q1", v1::MessageMode::Queue)))
        .await;
    assert_eq!(reason(sent), "FailedPrecondition NO_MODEL");
    let same = v1::StartLoopRequest {
        agent: None,
        labels: Default::default(),
        ..start("r2", "s1", "go")
    };
    assert_eq!(
        reason(loops.start_loop(asked(same)).await),
        "FailedPrecondition NO_MODEL"
    );
    let labelled = loops.start_loop(asked(start("r2", "s1", "go"))).await;
    assert_eq!(
        reason(labelled),
        "InvalidArgument INVALID_FIELDS",
        "labels that it does not have"
    );
    let other = v1::StartLoopRequest {
        labels: Default::default(),
        ..start("r2", "s1", "go")
    };
    let started = loops.start_loop(asked(other)).await.unwrap().into_inner();
    assert_eq!(started.loop_id, "l2");
    ended(&loops, "s1", "l2").await;
}

#[tokio::test]
async fn a_message_given_again_gets_its_answer_though_the_model_is_gone() {
    let (mut state, _drain) = fixture::state(QUICK);
    let loops = Loops(state.clone());
    loops
        .start_loop(asked(start("r1", "s1", "go")))
        .await
        .unwrap();
    ended(&loops, "s1", "l1").await;
    let send = async |loops: &Loops| {
        let message = asked(say("q1", v1::MessageMode::Steer));
        loops.send_message(message).await.map(Response::into_inner)
    };
    let first = send(&loops).await.unwrap();
    ended(&loops, "s1", "l2").await;
    state.models = Models::new(&Config::default(), &[].into(), ModelsOptions::default()).unwrap();
    assert_eq!(send(&Loops(state)).await.unwrap(), first);
}

#[test]
fn a_traceparent_is_taken_only_in_its_one_form() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let good = format!("00-{trace}-b7ad6b7169203331-01");
    let taken = |text: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("traceparent", text.parse().unwrap());
        traceparent(&metadata)
    };
    assert_eq!(taken(&good), Some(good.clone()));
    for bad in [
        format!("01-{trace}-b7ad6b7169203331-01"),
        format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
        format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
        format!("{good}-x"),
        String::new(),
    ] {
        assert_eq!(taken(&bad), None, "{bad}");
    }
}
