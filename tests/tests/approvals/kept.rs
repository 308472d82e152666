//! Waits and answers are facts: a crash forgets neither, and of two answers one counts.

use anyhow::{Context as _, Result, ensure};
use loopwright_client::Error;
use loopwright_proto::v1::{EndReason, PendingState, UnknownResolution, event::Kind};
use loopwright_tests::scene::{ask, client, end_of, kinds, log, to_end};
use tonic::Code;

use super::talk::{Answer, Set, TWICE, Wait};

/// The answer that counted, and how the other one was refused.
fn winner(answers: [Answer; 2]) -> Result<(usize, Box<loopwright_client::Rejection>)> {
    match answers {
        [Ok(_), Err(Error::Rejected(refused))] => Ok((0, refused)),
        [Err(Error::Rejected(refused)), Ok(_)] => Ok((1, refused)),
        other => anyhow::bail!("not one: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_people_who_answer_at_once_one_decides() -> Result<()> {
    let set = Set::with(&[("twice", TWICE)], &[]).await?;
    for _ in 0..8 {
        let wait = set.held(ask("twice")).await?;
        let people = [client(&set.scene.server.url, None)?, set.client().clone()];
        let mut yes = wait.verdict(true, "yes");
        yes.request_id = "ada-1".to_owned();
        let mut no = wait.verdict(false, "no");
        no.request_id = "bob-1".to_owned();
        let requests = [yes, no];
        let (first, second) = tokio::join!(
            people[0].resolve_approval(requests[0].clone()),
            people[1].resolve_approval(requests[1].clone()),
        );
        let seqs = [&first, &second].map(|done| done.as_ref().ok().map(|done| done.seq));
        let (who, refused) = winner([first, second])?;
        assert_eq!(refused.code, Code::FailedPrecondition);
        assert_eq!(refused.reason, "CALL_NOT_WAITING", "{refused:?}");
        assert_eq!(refused.metadata.get("call"), Some(&wait.call));
        assert!(refused.metadata.contains_key("state"), "{refused:?}");

        let entries = to_end(set.client(), &wait.session, "").await?;
        let said: Vec<bool> = kinds(&entries)
            .filter_map(|kind| match kind {
                Kind::ApprovalResolved(e) => Some(e.allowed),
                _ => None,
            })
            .collect();
        assert_eq!(said, [who == 0]);
        // The same request again is the same answer, though the loop has ended.
        let again = people[1].resolve_approval(requests[who].clone()).await?;
        assert_eq!(Some(again.seq), seqs[who]);
        assert_eq!(log(set.client(), &wait.session).await?.len(), entries.len());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_outlives_a_kill_with_the_same_expiry() -> Result<()> {
    let keys = [("tools.approval_timeout", "1h")];
    let mut set = Set::with(&[("twice", TWICE)], &keys).await?;
    let wait = set.held(ask("twice")).await?;
    let before = set.pending(&wait.session, PendingState::Approval).await?;
    ensure!(before.expires_at.is_some(), "{before:?}");
    set.scene.server.kill()?;
    set.scene.server.restart()?;
    let after = set.pending(&wait.session, PendingState::Approval).await?;
    assert_eq!(after, before);
    set.client()
        .resolve_approval(wait.verdict(true, ""))
        .await?;
    let entries = to_end(set.client(), &wait.session, "").await?;
    assert_eq!(end_of(&entries)?.result_text, "lost 1");
    let asked = kinds(&entries).filter(|kind| matches!(kind, Kind::ApprovalRequested(_)));
    assert_eq!(asked.count(), 1, "asked once, not again by the next driver");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_whose_time_passed_while_no_server_ran_ends_at_the_start() -> Result<()> {
    let keys = [("tools.approval_timeout", "700ms")];
    let mut set = Set::with(&[("twice", TWICE)], &keys).await?;
    let wait = set.held(ask("twice")).await?;
    set.scene.server.kill()?;
    // What it waits for is a time.
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    set.scene.server.restart()?;
    let entries = to_end(set.client(), &wait.session, "").await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    assert_eq!(set.probe.counts().came, 1, "denied by default");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_call_is_asked_about_once_however_often_the_server_dies() -> Result<()> {
    let keys = [("tools.on_unknown", "ask")];
    let mut set = Set::with(&[("twice", TWICE)], &keys).await?;
    let session = set.client().start_loop(ask("twice")).await?.session_id;
    let wait = set.asked(&session).await?;
    for _ in 0..2 {
        set.scene.server.kill()?;
        set.scene.server.restart()?;
        set.pending(&session, PendingState::Unknown).await?;
    }
    let request = wait.did(UnknownResolution::DidNotHappen);
    set.client().resolve_unknown(request).await?;
    // It did not run: asking for it again repeats nothing, so it is not held.
    let entries = to_end(set.client(), &session, "").await?;
    assert_eq!(end_of(&entries)?.result_text, "lost 1");
    let asked = kinds(&entries).filter(|kind| matches!(kind, Kind::ToolCallUnknown(_)));
    assert_eq!(asked.count(), 1);
    let wait_again = Wait { session, ..wait };
    let late = wait_again.did(UnknownResolution::Happened);
    let late = set.client().resolve_unknown(late).await;
    let reason = late.err().context("a refusal")?;
    assert_eq!(reason.reason(), Some("CALL_NOT_WAITING"));
    Ok(())
}
