//! The model asks again for what may have run: the call is held until somebody answers, or until nobody
//! has.

use anyhow::{Context as _, Result, ensure};
use loopwright_client::{ConverseEvent, Opening};
use loopwright_proto::v1::{
    ApprovalOutcome, ApprovalPolicy, ApprovalReason, CancelLoopRequest, DeadlineKind, EndReason,
    Entry, LoopLimits, PendingState, StartLoopRequest, ToolRejectKind, UnknownPolicy, event::Kind,
    loop_ended::Detail,
};
use loopwright_tests::scene::{ask, end_of, kinds, refusal, to_end};

use super::talk::{Set, TWICE};

fn lasting(millis: i32) -> Option<pbjson_types::Duration> {
    Some(pbjson_types::Duration {
        seconds: 0,
        nanos: millis * 1_000_000,
    })
}

/// Every way in which waits for approval ended.
fn resolved(entries: &[Entry]) -> Vec<(ApprovalOutcome, bool, String)> {
    let of = |kind: &Kind| match kind {
        Kind::ApprovalResolved(e) => Some((e.outcome(), e.allowed, e.reason.clone())),
        _ => None,
    };
    kinds(entries).filter_map(of).collect()
}

fn rejected(entries: &[Entry]) -> Vec<ToolRejectKind> {
    let of = |kind: &Kind| match kind {
        Kind::ToolCallRejected(e) => Some(e.kind()),
        _ => None,
    };
    kinds(entries).filter_map(of).collect()
}

/// The agent of `ask`, with more said.
fn asking(approval: Option<ApprovalPolicy>, limits: Option<LoopLimits>) -> StartLoopRequest {
    let mut request = ask("twice");
    if let Some(agent) = &mut request.agent {
        agent.approval = approval;
        agent.limits = limits;
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_held_and_runs_once_it_is_allowed() -> Result<()> {
    let set = Set::with(&[("twice", TWICE)], &[]).await?;
    let wait = set.held(ask("twice")).await?;
    let pending = set.pending(&wait.session, PendingState::Approval).await?;
    assert_eq!((&pending.call, pending.expires_at), (&wait.call, None));
    assert_eq!(set.probe.counts().came, 1, "it is not dispatched");

    let done = set
        .client()
        .resolve_approval(wait.verdict(true, "I looked"))
        .await?;
    assert_eq!((&done.session_id, &*done.loop_id), (&wait.session, "l1"));
    let entries = to_end(set.client(), &wait.session, "").await?;
    assert_eq!(end_of(&entries)?.result_text, "lost 1");
    assert_eq!(
        resolved(&entries),
        [(ApprovalOutcome::Allowed, true, "I looked".to_owned())]
    );
    let asked = kinds(&entries).find_map(|kind| match kind {
        Kind::ApprovalRequested(e) => Some((e.reason(), e.expires_at, e.allow_on_expiry)),
        _ => None,
    });
    assert_eq!(asked, Some((ApprovalReason::RepeatsUnknown, None, false)));
    let unknown = kinds(&entries).find_map(|kind| match kind {
        Kind::ToolCallUnknown(e) => Some((e.policy(), e.attempt)),
        _ => None,
    });
    assert_eq!(unknown, Some((UnknownPolicy::TellModel, 1)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_told_to_the_model_with_its_reason() -> Result<()> {
    let set = Set::with(&[("twice", TWICE)], &[]).await?;
    let wait = set.held(ask("twice")).await?;
    let mut talk = set.client().converse(Opening::Attach {
        session_id: wait.session.clone(),
        after_seq: 0,
        after_mark: None,
    });
    let request = wait.verdict(false, "twice is once too often");
    let id = talk.resolve_approval(request)?;
    let reply = loop {
        match talk.next().await.context("a reply")?? {
            ConverseEvent::Reply(reply) if reply.request_id == id => break reply,
            _ => {}
        }
    };
    assert_eq!(reply.result?.loop_id, "l1");
    let entries = to_end(set.client(), &wait.session, "").await?;
    let text = &end_of(&entries)?.result_text;
    assert!(text.contains("twice is once too often"), "{text}");
    assert_eq!(rejected(&entries), [ToolRejectKind::Denied]);
    assert_eq!(set.probe.counts().came, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_in_time_ends_by_the_default() -> Result<()> {
    let keys = [("tools.approval_timeout", "300ms")];
    let set = Set::with(&[("twice", TWICE)], &keys).await?;
    let entries = set.scene.run(ask("twice")).await?;
    assert_eq!(rejected(&entries), [ToolRejectKind::Expired]);
    let expired = (ApprovalOutcome::Expired, false, String::new());
    assert_eq!(resolved(&entries), [expired]);

    // The agent's own word goes before the configured one.
    let policy = ApprovalPolicy {
        expires_after: lasting(100),
        allow_on_expiry: true,
        ..ApprovalPolicy::default()
    };
    let entries = set.scene.run(asking(Some(policy), None)).await?;
    assert_eq!(end_of(&entries)?.result_text, "lost 1", "it ran");
    let expired = (ApprovalOutcome::Expired, true, String::new());
    assert_eq!(resolved(&entries), [expired]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_waits_for_a_person_no_longer_than_it_may() -> Result<()> {
    let set = Set::with(&[("twice", TWICE)], &[("loop.idle_timeout", "1h")]).await?;
    let limits = LoopLimits {
        idle_timeout: lasting(200),
        ..LoopLimits::default()
    };
    let entries = set.scene.run(asking(None, Some(limits))).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::Deadline);
    let Some(Detail::Deadline(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    assert_eq!(detail.kind(), DeadlineKind::Idle);
    let cancelled = (ApprovalOutcome::Cancelled, false, String::new());
    assert_eq!(resolved(&entries), [cancelled]);
    // The configured hour is the end of a wait that the agent says nothing of.
    let wait = set.held(ask("twice")).await?;
    let pending = set.pending(&wait.session, PendingState::Approval).await?;
    ensure!(pending.expires_at.is_some(), "{pending:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_wait_and_says_that_nothing_ran() -> Result<()> {
    let set = Set::with(&[("twice", TWICE)], &[]).await?;
    let wait = set.held(ask("twice")).await?;
    let cancel = CancelLoopRequest {
        session_id: wait.session.clone(),
        ..CancelLoopRequest::default()
    };
    set.client().cancel_loop(cancel).await?;
    let entries = to_end(set.client(), &wait.session, "").await?;
    let cancelled = (ApprovalOutcome::Cancelled, false, String::new());
    assert_eq!(resolved(&entries), [cancelled]);
    let dispatched = kinds(&entries).find_map(|kind| match kind {
        Kind::ToolCallCancelled(e) if e.call == wait.call => Some(e.dispatched),
        _ => None,
    });
    assert_eq!(dispatched, Some(false));
    let late = set.client().resolve_approval(wait.verdict(true, "")).await;
    let late = refusal(late)?;
    assert_eq!(late.reason, "CALL_NOT_WAITING");
    assert!(late.metadata.contains_key("state"), "{late:?}");
    Ok(())
}
