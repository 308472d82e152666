//! What became of a call whose outcome was lost: its sidecar is asked, and a call that still runs is
//! rejoined.
//!
//! Boundary: a call in doubt in, one [`LookupAnswer`] out. Invariants: nothing is run by asking;
//! whatever is not the sidecar's clear word is `NotKnown`, with the reason in words; every wait ends:
//! for the sidecar after `tools.sidecar_wait`, for its answer after `tools.lookup_timeout`, for the
//! call itself at the deadline that it had from its first dispatch on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use loopwright_core::outcome::LookupAnswer;
use loopwright_proto::v1::{
    AttachCallRequest, LookupCallRequest, LookupCallResponse, lookup_call_response::Outcome,
};
use tokio::time::{Instant, sleep, timeout};

use super::answer::{Rejoined, collect, reason_of};
use super::deadline::Deadline;
use super::failure::expired;
use super::{Call, MESSAGE_SLACK, TRANSPORT_SLACK, output, timestamp, traced};
use crate::effects::{CallTrace, progress::ProgressSink};
use crate::redaction::Redaction;
use crate::sidecars::channel::{Link, in_words, was_not_sent};
use crate::sidecars::schema::{or_empty_object, sha256_hex};
use crate::sidecars::{Sidecars, split_tool_name};

/// The least time that a call is given to say its result once it was found running.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// Time between two looks at a call that runs and cannot be rejoined.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two tries to ask over connections that are just being lost.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Asks until there is an answer. `passed` is the time since the call's first dispatch.
pub(crate) async fn look_up(
    sidecars: &Arc<Sidecars>,
    call: Call<'_>,
    passed: Duration,
    trace: CallTrace,
    sink: ProgressSink,
) -> LookupAnswer {
    let name = &call.spec.name;
    let Some((sidecar, tool)) = split_tool_name(name) else {
        return LookupAnswer::NotKnown(format!("`{name}` is not the name of a sidecar's tool"));
    };
    let whole = Duration::from_millis(call.spec.absolute_cap_ms);
    let mut inquiry = Inquiry {
        sidecars,
        call,
        sidecar,
        tool,
        hash: sha256_hex(or_empty_object(&call.request.part.arguments)),
        traceparent: trace.traceparent.unwrap_or_default(),
        ends: Instant::now() + whole.saturating_sub(passed).max(LAST_CHANCE),
        sink,
    };
    // The transport panics on some malformed trailers; a sidecar must not take the driver with it.
    let found = AssertUnwindSafe(inquiry.until_its_end())
        .catch_unwind()
        .await;
    let found = found.unwrap_or_else(|_| Err("its answer could not be read".to_owned()));
    match found {
        Ok(Rejoined::Result(result)) => {
            let output = output::of(result, sidecars, call).await;
            LookupAnswer::Completed(Arc::new(output))
        }
        Ok(Rejoined::NeverStarted) => LookupAnswer::NeverStarted,
        Ok(Rejoined::NotKnown(why)) | Err(why) => {
            LookupAnswer::NotKnown(format!("sidecar `{sidecar}`: {why}"))
        }
    }
}

/// One call, and what is known of it.
struct Inquiry<'a> {
    sidecars: &'a Arc<Sidecars>,
    call: Call<'a>,
    sidecar: &'a str,
    tool: &'a str,
    hash: String,
    traceparent: String,
    /// When the call is given up, whatever it says.
    ends: Instant,
    sink: ProgressSink,
}

/// What a lookup found.
enum Found {
    Running,
    Ended(Rejoined),
}

/// What became of an attempt to rejoin.
enum Joining {
    Ended(Rejoined),
    /// It was given up: too long a silence, or too long in all.
    Expired(String),
    /// Nothing is known but that it ran a moment ago.
    Lost,
}

impl Inquiry<'_> {
    /// Looks, and rejoins what runs, until it has ended or is given up. An error says in words why
    /// nothing is known.
    async fn until_its_end(&mut self) -> Result<Rejoined, String> {
        loop {
            let (found, link, attach) = self.ask().await?;
            match found {
                Found::Ended(end) => return Ok(end),
                Found::Running if attach => match self.rejoin(&link).await {
                    Joining::Ended(end) => return Ok(end),
                    Joining::Expired(words) => return Err(words),
                    Joining::Lost => {}
                },
                Found::Running => {}
            }
            if Instant::now() + LOOK_EVERY > self.ends {
                let cap = Duration::from_millis(self.call.spec.absolute_cap_ms);
                return Err(format!(
                    "the call was still running after {cap:?} in all (tools.absolute_cap)"
                ));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The sidecar's word, over whichever connection there is; and whether it lets rejoin.
    async fn ask(&mut self) -> Result<(Found, Link, bool), String> {
        let limits = self.sidecars.limits();
        let patience = Instant::now() + limits.sidecar_wait;
        loop {
            let namespace = &self.call.session.namespace;
            let (live, link) = self.sidecars.reach(namespace, self.sidecar).await?;
            let Some(served) = live.tool(self.tool) else {
                return Err(format!("it serves no tool `{}` any more", self.tool));
            };
            let _running = live.enter();
            let mut client = link.client(limits.max_result_bytes.saturating_add(MESSAGE_SLACK));
            let mut request = traced(&self.traceparent, |_| self.lookup_request());
            request.set_timeout(limits.lookup_timeout + TRANSPORT_SLACK);
            self.sink.flight().sent();
            let asked = timeout(limits.lookup_timeout, client.lookup_call(request));
            let status = match asked.await {
                Ok(Ok(response)) => {
                    let found = found(response.into_inner(), limits.redaction);
                    if matches!(found, Found::Ended(Rejoined::Result(_))) {
                        self.sink.flight().answered();
                    }
                    return Ok((found, link, served.tool.attach));
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    let limit = limits.lookup_timeout;
                    return Err(format!(
                        "LookupCall had no answer within {limit:?} (tools.lookup_timeout)"
                    ));
                }
            };
            let lost = was_not_sent(&status) || link.is_closed();
            if !lost || Instant::now() >= patience {
                return Err(format!(
                    "LookupCall failed: {}",
                    in_words(&status, limits.redaction)
                ));
            }
            // Whoever keeps the sidecar is about to notice.
            sleep(ASK_AGAIN).await;
        }
    }

    async fn rejoin(&mut self, link: &Link) -> Joining {
        let spec = self.call.spec;
        let (patience, whole) = (
            Duration::from_millis(spec.timeout_ms),
            Duration::from_millis(spec.absolute_cap_ms),
        );
        let mut deadline = Deadline::until(self.ends, patience, whole);
        let limits = self.sidecars.limits();
        let mut client = link.client(limits.max_result_bytes.saturating_add(MESSAGE_SLACK));
        let left = self.ends.saturating_duration_since(Instant::now());
        let mut request = traced(&self.traceparent, |traceparent| {
            self.attach_request(left, patience, traceparent)
        });
        request.set_timeout(left + TRANSPORT_SLACK);
        let response = tokio::select! {
            biased;
            response = client.attach_call(request) => response,
            silence = deadline.passed() => return Joining::Expired(expired(silence).message),
        };
        let Ok(stream) = response else {
            return Joining::Lost;
        };
        let messages = stream.into_inner();
        match collect(messages, &mut deadline, &mut self.sink, limits.redaction).await {
            Ok(last) => Joining::Ended(last),
            Err(failure) if deadline.has_passed() => Joining::Expired(failure.message),
            Err(_) => Joining::Lost,
        }
    }

    fn lookup_request(&self) -> LookupCallRequest {
        let asked = self.call.request;
        LookupCallRequest {
            session_id: self.call.session.session.to_string(),
            call: asked.call.to_string(),
            key: self.call.session.key_of(self.call.request.call),
            attempt: asked.attempt,
            epoch: asked.epoch,
            tool: self.tool.to_owned(),
            arguments_sha256: self.hash.clone(),
            first_dispatched_at: UNIX_EPOCH
                .checked_add(Duration::from_millis(asked.first_at.0))
                .map(timestamp),
            instance: asked.instance(),
        }
    }

    fn attach_request(
        &self,
        left: Duration,
        patience: Duration,
        traceparent: String,
    ) -> AttachCallRequest {
        let asked = self.call.request;
        AttachCallRequest {
            session_id: self.call.session.session.to_string(),
            call: asked.call.to_string(),
            key: self.call.session.key_of(self.call.request.call),
            attempt: asked.attempt,
            epoch: asked.epoch,
            tool: self.tool.to_owned(),
            arguments_sha256: self.hash.clone(),
            deadline: SystemTime::now().checked_add(left).map(timestamp),
            timeout: Some(patience.into()),
            traceparent,
            instance: asked.instance(),
        }
    }
}

fn found(response: LookupCallResponse, redaction: Redaction) -> Found {
    Found::Ended(match response.outcome {
        Some(Outcome::Running(_)) => return Found::Running,
        Some(Outcome::Completed(result)) => Rejoined::Result(result),
        Some(Outcome::NeverStarted(_)) => Rejoined::NeverStarted,
        Some(Outcome::NotKnown(why)) => Rejoined::NotKnown(reason_of(&why, redaction)),
        None => Rejoined::NotKnown("its answer is of a kind that is not known here".to_owned()),
    })
}
