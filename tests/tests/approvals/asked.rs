//! A call that destroys was running when the server died: a person is asked what it did.

use anyhow::{Result, ensure};
use loopwright_proto::v1::{
    EndReason, PendingState, UnknownPolicy, UnknownResolution, event::Kind,
};
use loopwright_tests::scene::{ask, end_of, kinds, loopwright, refusal, to_end};
use tonic::Code;

use super::talk::{Set, WIPE, Wait, said};

/// So many loops, each with a call that nobody can tell of.
async fn crashed(loops: usize) -> Result<(Set, Vec<Wait>)> {
    let mut set = Set::with(&[("wipe", WIPE)], &[]).await?;
    let mut sessions = Vec::new();
    for _ in 0..loops {
        sessions.push(set.client().start_loop(ask("wipe")).await?.session_id);
    }
    set.probe.until(|counts| counts.running == loops).await?;
    set.scene.server.kill()?;
    set.probe.until(|counts| counts.running == 0).await?;
    set.scene.server.restart()?;
    let mut waits = Vec::new();
    for session in &sessions {
        waits.push(set.asked(session).await?);
    }
    Ok((set, waits))
}

/// What the model was told, which it repeats.
async fn outcome(set: &Set, wait: &Wait) -> Result<String> {
    let entries = to_end(set.client(), &wait.session, "").await?;
    let end = end_of(&entries)?;
    ensure!(end.reason() == EndReason::Completed, "{end:?}");
    Ok(end.result_text.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_has_its_own_consequence() -> Result<()> {
    let (set, waits) = crashed(5).await?;
    let [happened, told, not, again, unknown] = &waits[..] else {
        anyhow::bail!("{waits:?}");
    };
    let pending = set
        .pending(&happened.session, PendingState::Unknown)
        .await?;
    assert_eq!(
        (&pending.call, &*pending.tool),
        (&happened.call, "probe__wipe")
    );
    assert_eq!(pending.expires_at, None);

    let client = set.client();
    let mut request = happened.did(UnknownResolution::Happened);
    request.result = Some(said("42 files are gone"));
    client.resolve_unknown(request).await?;
    assert_eq!(outcome(&set, happened).await?, "42 files are gone");

    client
        .resolve_unknown(told.did(UnknownResolution::Happened))
        .await?;
    let text = outcome(&set, told).await?;
    assert!(text.contains("ran"), "{text}");

    let mut request = not.did(UnknownResolution::DidNotHappen);
    request.reason = "all files are there".to_owned();
    client.resolve_unknown(request).await?;
    let text = outcome(&set, not).await?;
    assert!(text.contains("all files are there"), "{text}");

    client
        .resolve_unknown(again.did(UnknownResolution::RunAgain))
        .await?;
    set.probe.until(|counts| counts.running == 1).await?;
    set.probe.let_go(1);
    assert_eq!(outcome(&set, again).await?, "wipe 2", "a second attempt");

    client
        .resolve_unknown(unknown.did(UnknownResolution::TellModel))
        .await?;
    let text = outcome(&set, unknown).await?;
    assert!(text.contains("not known"), "{text}");
    assert_eq!(set.probe.counts().came, 6, "only one ran again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_answers_too_and_the_log_says_who() -> Result<()> {
    let (set, waits) = crashed(2).await?;
    let dir = tempfile::tempdir()?;
    let [told, wrong] = &waits[..] else {
        anyhow::bail!("{waits:?}");
    };
    let run = |args: &[&str]| {
        let server = ["--server", &set.scene.server.url];
        let all: Vec<&str> = args.iter().chain(&server).copied().collect();
        loopwright(dir.path(), &all)?
            .output()
            .map_err(anyhow::Error::from)
    };
    let listed = run(&["sessions", "list", "--state", "waiting"])?;
    let listed = String::from_utf8(listed.stdout)?;
    assert_eq!(listed.lines().count(), 3, "{listed}");

    let answer = [
        "resolve",
        &told.session,
        &told.call,
        "happened",
        "--result",
        "gone",
    ];
    let done = run(&answer)?;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(outcome(&set, told).await?, "gone");
    let entries = loopwright_tests::scene::log(set.client(), &told.session).await?;
    let by = kinds(&entries).find_map(|kind| match kind {
        Kind::UnknownResolved(e) => Some(e.by.clone()),
        _ => None,
    });
    assert_eq!(by.as_deref(), Some("local"));
    let unknown = kinds(&entries).find_map(|kind| match kind {
        Kind::ToolCallUnknown(e) => Some((e.attempt, e.policy())),
        _ => None,
    });
    assert_eq!(unknown, Some((1, UnknownPolicy::Ask)));

    let approve = run(&["approve", &wrong.session, &wrong.call])?;
    let said = String::from_utf8(approve.stderr)?;
    assert_eq!(approve.status.code(), Some(1), "{said}");
    assert!(said.contains("CALL_NOT_WAITING"), "{said}");
    let usage = [
        "resolve",
        &wrong.session,
        &wrong.call,
        "tell-model",
        "--result",
        "x",
    ];
    assert_eq!(run(&usage)?.status.code(), Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_answer_is_refused_by_name() -> Result<()> {
    let (set, waits) = crashed(1).await?;
    let wait = &waits[0];
    let client = set.client();
    let mut with_result = wait.did(UnknownResolution::RunAgain);
    with_result.result = Some(said("no"));
    let mut no_call = wait.did(UnknownResolution::Happened);
    no_call.call.clear();
    for (request, field) in [
        (wait.did(UnknownResolution::Unspecified), "resolution"),
        (wait.did(UnknownResolution::Cancelled), "resolution"),
        (with_result, "result"),
        (no_call, "call"),
    ] {
        let refused = refusal(client.resolve_unknown(request).await)?;
        assert_eq!(refused.code, Code::InvalidArgument);
        let fields: Vec<&str> = refused
            .fields
            .iter()
            .map(|one| one.field.as_str())
            .collect();
        assert_eq!(fields, [field], "{refused:?}");
    }
    let mut other = wait.did(UnknownResolution::Happened);
    other.call = "c99".to_owned();
    let refused = refusal(client.resolve_unknown(other).await)?;
    assert_eq!(
        (refused.code, &*refused.reason),
        (Code::NotFound, "CALL_NOT_FOUND")
    );
    let mut other = wait.did(UnknownResolution::Happened);
    other.loop_id = "l9".to_owned();
    let refused = refusal(client.resolve_unknown(other).await)?;
    assert_eq!(refused.reason, "LOOP_MISMATCH");
    // Nothing of that was an answer.
    set.pending(&wait.session, PendingState::Unknown).await?;
    Ok(())
}
