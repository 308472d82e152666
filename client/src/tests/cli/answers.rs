//! Calls that wait for a person: how they are shown, answered and listed.

use clap::Parser as _;
use loopwright_proto::v1::{
    ApprovalOutcome, ApprovalReason, ApprovalRequested, ApprovalResolved, LoopState, LoopSummary,
    PendingCall, PendingState, SessionState, ToolCallRequested, ToolCallUnknown, UnknownPolicy,
    UnknownResolution, UnknownResolved, event::Kind, part,
};
use loopwright_proto::well_known::Timestamp;
use tonic::Code;

use super::{Fake, Program, desk, ran};
use crate::cli::Exit;
use crate::render::Answering;
use crate::tests::fake::status;
use crate::tests::session::{Step, ended, entry};

fn expiry() -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_763_800_000,
        nanos: 0,
    })
}

fn asks(call: &str, tool: &str) -> Kind {
    Kind::ToolCallRequested(ToolCallRequested {
        call: call.into(),
        tool: tool.into(),
        ..ToolCallRequested::default()
    })
}

fn held(call: &str) -> Kind {
    Kind::ApprovalRequested(ApprovalRequested {
        call: call.into(),
        reason: ApprovalReason::RepeatsUnknown.into(),
        expires_at: expiry(),
        allow_on_expiry: false,
    })
}

fn unknown(call: &str, policy: UnknownPolicy) -> Kind {
    Kind::ToolCallUnknown(ToolCallUnknown {
        call: call.into(),
        attempt: 1,
        reason: "the server stopped".into(),
        policy: policy.into(),
    })
}

/// One call that is held and allowed, one that is asked about and runs again, one that is not asked
/// about.
fn waits() -> Vec<Step> {
    let allowed = ApprovalResolved {
        call: "c2".into(),
        outcome: ApprovalOutcome::Allowed.into(),
        allowed: true,
        by: "ada".into(),
        reason: "I looked".into(),
        ..ApprovalResolved::default()
    };
    let again = UnknownResolved {
        call: "c3".into(),
        resolution: UnknownResolution::RunAgain.into(),
        by: "ada".into(),
        ..UnknownResolved::default()
    };
    vec![
        entry(
            1,
            vec![asks("c2", "files__write"), asks("c3", "mail__send")],
        ),
        entry(2, vec![held("c2")]),
        entry(3, vec![unknown("c3", UnknownPolicy::Ask)]),
        entry(4, vec![unknown("c4", UnknownPolicy::TellModel)]),
        entry(5, vec![Kind::ApprovalResolved(allowed)]),
        entry(6, vec![Kind::UnknownResolved(again)]),
    ]
}

#[tokio::test]
async fn run_shows_what_is_asked_the_command_that_answers_and_the_answer() {
    let mut steps = waits();
    steps.push(entry(
        7,
        vec![ended(loopwright_proto::v1::EndReason::Completed)],
    ));
    let (_fake, client) = Fake::serve(steps).await;
    let mut desk = desk();

    let exit = ran(&client, &["run", "Hi"], &mut desk).await;

    assert_eq!(exit, Exit::Completed);
    let server = format!("--server {}", client.options().url);
    let shown = desk.err.text().replace(&server, "--server U");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines[..lines.len() - 1],
        [
            "? files__write waits for approval: the same call had an unknown outcome before, and \
             may have run; without an answer it is denied at 2025-11-22 08:26:40.000 UTC",
            "  run it:           loopwright approve s1 c2 --server U",
            "  do not run it:    loopwright deny s1 c2 --reason \"..\" --server U",
            "✗ mail__send: it cannot be known whether it ran: the server stopped; a person is asked",
            "  it ran:           loopwright resolve s1 c3 happened --result \"..\" --server U",
            "  it did not run:   loopwright resolve s1 c3 did-not-happen --server U",
            "  run it again:     loopwright resolve s1 c3 run-again --server U",
            "  leave it unknown: loopwright resolve s1 c3 tell-model --server U",
            "✗ tool call c4: it cannot be known whether it ran: the server stopped; the model is \
             told so",
            "· files__write: allowed, says ada: I looked",
            "· mail__send: it is run again, says ada",
        ]
    );
}

#[test]
fn every_command_that_is_shown_can_be_given() {
    let all = Answering::at("http://h:1");
    let states = [PendingState::Approval, PendingState::Unknown];
    let lines = states.map(|state| all.commands("s1", "c2", state));
    for line in lines.iter().flatten() {
        let command = line.split_once(':').unwrap().1.trim();
        let words = command.replace('"', "");
        let parsed = Program::try_parse_from(words.split_whitespace());
        assert!(parsed.is_ok(), "{command}: {:?}", parsed.err());
    }
    assert!(
        all.commands("s1", "c2", PendingState::Dispatched)
            .is_empty()
    );
}

#[tokio::test]
async fn the_log_ends_with_the_waits_that_are_open() {
    let mut steps = waits();
    steps.truncate(5);
    let (_fake, client) = Fake::serve(steps).await;
    let mut desk = desk();

    ran(&client, &["log", "show", "s1"], &mut desk).await;

    let notes = desk.err.text();
    assert!(
        notes.starts_with("? c3 (mail__send) waits for a word on whether it ran\n"),
        "{notes}"
    );
    assert!(!notes.contains("c2") && !notes.contains("c4"), "{notes}");
    let log = desk.out.text();
    assert!(
        log.contains("ApprovalResolved    c2: allowed, says ada: I looked"),
        "{log}"
    );
}

#[tokio::test]
async fn approve_and_deny_say_what_they_did() {
    let (fake, client) = Fake::serve(vec![]).await;
    let mut desk = desk();

    let yes = ["approve", "s1", "c7"];
    let no = ["deny", "s1", "c8", "--reason", "not now", "--loop", "l2"];
    assert_eq!(ran(&client, &yes, &mut desk).await, Exit::Completed);
    assert_eq!(ran(&client, &no, &mut desk).await, Exit::Completed);

    assert_eq!(desk.out.text(), "allowed c7 (seq 7)\ndenied c8 (seq 7)\n");
    let state = fake.state();
    let given: Vec<_> = state
        .approvals
        .iter()
        .map(|r| {
            (
                r.call.as_str(),
                r.allow,
                r.reason.as_str(),
                r.loop_id.as_str(),
            )
        })
        .collect();
    assert_eq!(
        given,
        [("c7", true, "", ""), ("c8", false, "not now", "l2")]
    );
    assert!(state.approvals.iter().all(|r| r.session_id == "s1"));
}

#[tokio::test]
async fn resolve_takes_a_result_only_of_a_call_that_ran() {
    let (fake, client) = Fake::serve(vec![]).await;
    let mut desk = desk();

    for what in ["happened", "did-not-happen", "run-again", "tell-model"] {
        let exit = ran(&client, &["resolve", "s1", "c3", what], &mut desk).await;
        assert_eq!(exit, Exit::Completed, "{what}");
    }
    let told = [
        "resolve", "s1", "c3", "happened", "--result", "two", "--failed",
    ];
    assert_eq!(ran(&client, &told, &mut desk).await, Exit::Completed);
    let wrong = ["resolve", "s1", "c3", "run-again", "--result", "two"];
    assert_eq!(ran(&client, &wrong, &mut desk).await, Exit::Usage);

    let state = fake.state();
    let said: Vec<_> = state.resolved.iter().map(|r| r.resolution()).collect();
    use UnknownResolution::{DidNotHappen, Happened, RunAgain, TellModel};
    assert_eq!(
        said,
        [Happened, DidNotHappen, RunAgain, TellModel, Happened]
    );
    assert!(state.resolved[..4].iter().all(|r| r.result.is_none()));
    let result = state.resolved[4].result.clone().unwrap();
    let text = part::Kind::Text("two".into());
    assert_eq!(result.parts[0].kind, Some(text));
    assert!(result.is_error);
    assert!(desk.err.text().contains("`happened` alone"));
}

#[tokio::test]
async fn a_call_that_is_not_there_is_refused_with_a_way_out() {
    let (fake, client) = Fake::serve(vec![]).await;
    let refusal = status(Code::NotFound, "CALL_NOT_FOUND");
    fake.state().refusals.push_back(refusal);
    let mut desk = desk();

    let exit = ran(&client, &["approve", "s1", "c7"], &mut desk).await;

    assert_eq!(exit, Exit::Error);
    assert!(
        desk.err.text().contains("sessions show"),
        "{}",
        desk.err.text()
    );
}

#[tokio::test]
async fn sessions_show_lists_the_calls_that_wait_and_how_to_answer_them() {
    let (fake, client) = Fake::serve(vec![]).await;
    let pending = |call: &str, state: PendingState, expires_at| PendingCall {
        call: call.into(),
        tool: "files__write".into(),
        state: state.into(),
        expires_at,
    };
    fake.state().summary = Some(LoopSummary {
        session_id: "s1".into(),
        loop_id: "l1".into(),
        state: LoopState::Waiting.into(),
        seq: 9,
        pending_calls: vec![
            pending("c2", PendingState::Dispatched, None),
            pending("c3", PendingState::Approval, expiry()),
        ],
        ..LoopSummary::default()
    });
    let mut desk = desk();

    let exit = ran(&client, &["sessions", "show", "s1"], &mut desk).await;

    assert_eq!(exit, Exit::Completed);
    let shown = desk.out.text();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[..2], ["session   s1", "state     waiting"]);
    let at = lines
        .iter()
        .position(|line| line.starts_with("CALL"))
        .unwrap();
    assert_eq!(
        lines[at..at + 4],
        [
            "CALL  TOOL          WAITS FOR   UNTIL (UTC)",
            "c2    files__write  dispatched",
            "c3    files__write  approval    2025-11-22 08:26:40",
            "c3 is answered by:",
        ]
    );
    assert!(
        lines[at + 4].contains("loopwright approve s1 c3"),
        "{shown}"
    );
    assert_eq!(lines.len(), at + 6);
}

#[tokio::test]
async fn filters_are_the_servers_where_it_has_them() {
    let (fake, client) = Fake::serve(vec![]).await;
    let mut desk = desk();
    let line = [
        "sessions",
        "list",
        "--state",
        "waiting",
        "--state",
        "idle",
        "--label",
        "team=search",
        "--agent",
        "writer",
        "--limit",
        "1",
    ];

    let exit = ran(&client, &line, &mut desk).await;

    assert_eq!(exit, Exit::Completed);
    assert_eq!(desk.out.text().lines().count(), 2, "{}", desk.out.text());
    assert!(desk.err.text().contains("only the latest 1"));
    let asked = fake.state().listed[0].clone();
    let states = [SessionState::Idle, SessionState::Active].map(i32::from);
    assert_eq!(asked.states, states);
    assert_eq!(asked.labels["team"], "search");
    assert_eq!(asked.agent, "writer");
    // The sessions of the fake are idle: none of them waits.
    let waiting = ["sessions", "list", "--state", "waiting"];
    ran(&client, &waiting, &mut desk).await;
    assert!(desk.err.text().contains("no session passes"));
    assert!(matches!(
        Program::try_parse_from(["loopwright", "sessions", "list", "--label", "team"]),
        Err(error) if error.to_string().contains("KEY=VALUE")
    ));
}
