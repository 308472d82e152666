//! One transition: decide, append behind the fence, apply. Law 5 is here: whatever the log answers
//! but `Ok` ends the driver.

use std::sync::{Arc, atomic::Ordering};

use futures_util::FutureExt as _;
use loopwright_core::{
    Cause, Entry, Event, Rejection, What, decide,
    ids::{Attempt, CallId},
    message::ToolOutput,
    outcome::{LookupAnswer, ModelFailure, ModelFailureKind},
};
use loopwright_log::{AppendError, NewRecord, ProgressTopic};

use super::{CommandError, End, ahead::Sent, run::Driver};
use crate::effects::progress::{CHANNEL_TEXT, CHANNEL_THINKING, CHANNEL_TOOL};

/// What the model is told in place of a result that no entry holds.
const TOO_LARGE: &str = "The result was too large to be kept.";

/// Bytes that the log puts round the body of a record, at most.
const RECORD_FRAME: u64 = 256;

/// An entry that was decided, its record, and about how many bytes that has.
pub(super) struct Draft {
    pub(super) entry: Entry,
    pub(super) record: NewRecord,
    pub(super) size: u64,
}

/// What became of an input.
pub(super) enum Committed {
    /// Its entry is durable and applied.
    Appended,
    /// It decided to nothing.
    Nothing,
    /// It was refused; nothing was written.
    Refused(CommandError),
}

impl Driver {
    /// Commits an outcome, a timer or the driver's own input, none of which is ever refused.
    pub(super) async fn commit(&mut self, what: What) -> Result<(), End> {
        let smaller = when_too_large(&what);
        match self.commit_command(what).await? {
            Committed::Appended | Committed::Nothing => Ok(()),
            Committed::Refused(CommandError::Log(AppendError::TooLarge { .. }))
                if smaller.is_some() =>
            {
                let smaller = smaller.unwrap_or(What::Detach);
                match self.commit_command(smaller).await? {
                    Committed::Appended | Committed::Nothing => Ok(()),
                    Committed::Refused(error) => Err(End::Lost {
                        reason: error.to_string(),
                    }),
                }
            }
            Committed::Refused(error) => Err(End::Lost {
                reason: error.to_string(),
            }),
        }
    }

    /// Commits an input that may be refused.
    pub(super) async fn commit_command(&mut self, what: What) -> Result<Committed, End> {
        let (full, limit) = (
            self.bytes >= self.world.session_bytes,
            self.world.session_bytes,
        );
        if full && matches!(what, What::StartLoop(_) | What::SendMessage(_)) {
            let full = AppendError::TooLarge {
                size: self.bytes,
                limit,
            };
            return Ok(Committed::Refused(CommandError::Log(full)));
        }
        let draft = match self.decided(what) {
            Ok(Some(draft)) => draft,
            Ok(None) => return Ok(Committed::Nothing),
            Err(rejection) => return Ok(Committed::Refused(rejection.into())),
        };
        match self.append(draft).await {
            Ok(()) => Ok(Committed::Appended),
            Err(error @ AppendError::TooLarge { .. }) => {
                Ok(Committed::Refused(CommandError::Log(error)))
            }
            Err(error @ (AppendError::Corrupt(_) | AppendError::Trimmed { .. })) => {
                Err(End::Undrivable {
                    reason: error.to_string(),
                })
            }
            Err(error @ AppendError::Unavailable { .. }) => Err(End::Unavailable {
                reason: error.to_string(),
            }),
            Err(error) => Err(End::Lost {
                reason: error.to_string(),
            }),
        }
    }

    /// The entry that follows from an input now, and its record; `None` where nothing does.
    pub(super) fn decided(&mut self, what: What) -> Result<Option<Draft>, Rejection> {
        let at = self.world.clock.now();
        let mut input = super::input(at, what);
        // They matter where a call may be dispatched that can be asked about later.
        if self.state.tools.iter().any(|tool| tool.lookup) {
            input.instances = self.world.sidecars.instances(self.key.namespace());
        }
        let cause = input.cause();
        let events = decide(&self.state, input)?;
        if events.is_empty() {
            return Ok(None);
        }
        let entry = Entry::new(cause, events);
        let body = serde_json::to_vec(&entry).expect("an entry has string keys alone");
        let size = body.len() as u64 + RECORD_FRAME;
        let epoch = epoch_of(&entry).unwrap_or(self.state.epoch);
        let mut record = NewRecord::new(
            loopwright_log::Timestamp::from_unix_ms(at.0),
            epoch,
            body.into(),
        );
        record.ends = self.topics_that_end(&entry);
        Ok(Some(Draft {
            entry,
            record,
            size,
        }))
    }

    /// Appends the entry behind the fence and applies it. Where it asks named budgets for something and
    /// has to wait, they are asked meanwhile.
    async fn append(&mut self, draft: Draft) -> Result<(), AppendError> {
        let Draft {
            entry,
            mut record,
            size,
        } = draft;
        let (log, key) = (Arc::clone(&self.world.log), self.key.clone());
        let fate = self.may_go_ahead(&entry, size).then(|| record.fate());
        let mut appended = log.append(&key, self.state.seq, record);
        if let Some(fate) = fate {
            // The record is on its way once the append was looked at.
            match (&mut appended).now_or_never() {
                Some(done) => drop(done?),
                None => {
                    let sent = Sent {
                        appended,
                        fate,
                        size,
                    };
                    return self.go_ahead(&entry, sent).await;
                }
            }
        } else {
            appended.await?;
        }
        self.apply(&entry, size);
        self.took_in(&entry);
        Ok(())
    }

    /// An entry that was applied is durable.
    pub(super) fn took_in(&mut self, entry: &Entry) {
        self.observe(entry);
        self.note_progress(&entry.cause);
    }

    /// Takes an entry into the state.
    pub(super) fn apply(&mut self, entry: &Entry, size: u64) {
        self.bytes = self.bytes.saturating_add(size);
        self.before_apply();
        self.state.apply_entry(self.state.seq + 1, entry);
    }

    /// A driver that wrote more than that it is there got somewhere.
    fn note_progress(&self, cause: &Cause) {
        let is_own = matches!(cause, Cause::Attach | Cause::Detach | Cause::Tools);
        if !is_own && !self.progressed.swap(true, Ordering::Relaxed) {
            self.world.index.troubles().over(&self.key);
        }
    }

    /// Progress that is of no more use once `entry` is written.
    fn topics_that_end(&mut self, entry: &Entry) -> Vec<ProgressTopic> {
        let mut topics = Vec::new();
        for (call, attempt) in entry.events.iter().filter_map(attempt_that_ends) {
            let first = (call, attempt.unwrap_or(Attempt::MIN));
            let last = (call, attempt.unwrap_or(Attempt::MAX));
            let ended = self.anchors.range(first..=last);
            let ended: Vec<_> = ended.map(|(&key, &anchor)| (key, anchor)).collect();
            for ((call, attempt), anchor) in ended {
                self.anchors.remove(&(call, attempt));
                topics.extend(
                    [CHANNEL_TEXT, CHANNEL_THINKING, CHANNEL_TOOL].map(|channel| ProgressTopic {
                        anchor,
                        call: call.0,
                        attempt,
                        channel,
                    }),
                );
            }
        }
        topics
    }
}

fn epoch_of(entry: &Entry) -> Option<u64> {
    entry.events.iter().find_map(|event| match event {
        Event::DriverAttached(attached) => Some(attached.epoch),
        _ => None,
    })
}

/// The call that needs no more progress, and which attempt of it; `None` is all of them.
fn attempt_that_ends(event: &Event) -> Option<(CallId, Option<Attempt>)> {
    match event {
        Event::ModelCallCompleted(e) => Some((e.call, Some(e.attempt))),
        Event::ModelCallFailed(e) => Some((e.call, Some(e.attempt))),
        Event::ModelCallAbandoned(e) => Some((e.call, Some(e.attempt))),
        Event::ToolCallCompleted(e) => Some((e.call, Some(e.attempt))),
        Event::ToolCallFailed(e) => Some((e.call, Some(e.attempt))),
        Event::ToolCallInDoubt(e) => Some((e.call, Some(e.attempt))),
        Event::ToolCallStarted(e) if e.attempt > 1 => Some((e.call, None)),
        Event::ToolCallUnknown(e) => Some((e.call, None)),
        Event::ToolCallCancelled(e) => Some((e.call, None)),
        _ => None,
    }
}

/// What to commit instead of an outcome that no entry holds. The edges clamp what they read, so this
/// is for many outcomes of legal size in one entry.
fn when_too_large(what: &What) -> Option<What> {
    match what {
        What::ModelCompleted {
            call,
            attempt,
            reply,
        } => Some(What::ModelFailed {
            call: *call,
            attempt: *attempt,
            failure: ModelFailure {
                kind: ModelFailureKind::TooLarge,
                message: "the reply is larger than an entry of the log may be".to_owned(),
                retry_after_ms: None,
                http_status: 0,
                usage: reply.usage,
                cost_micro_usd: reply.cost_micro_usd,
                body_crc: reply.body_crc.clone(),
            },
            jitter: 0,
        }),
        What::ToolCompleted { call, attempt, .. } => Some(What::ToolCompleted {
            call: *call,
            attempt: *attempt,
            output: Arc::new(ToolOutput::error(TOO_LARGE)),
        }),
        What::LookedUp { call, answer } => Some(What::LookedUp {
            call: *call,
            answer: match answer {
                LookupAnswer::Completed(_) => {
                    LookupAnswer::Completed(Arc::new(ToolOutput::error(TOO_LARGE)))
                }
                LookupAnswer::NotKnown(_) => {
                    LookupAnswer::NotKnown("the sidecar's word was too large to be kept".to_owned())
                }
                LookupAnswer::NeverStarted => return None,
            },
        }),
        _ => None,
    }
}

impl End {
    /// What a caller is told whose command this end cut short: the same request may be sent again.
    pub(super) fn as_command_error(&self) -> CommandError {
        let reason = match self {
            Self::Idle { .. } | Self::NotCreated => "the driver let go".to_owned(),
            Self::Drained => return CommandError::Draining,
            Self::Panicked { payload } => format!("the driver panicked: {payload}"),
            Self::Lost { reason } | Self::Unavailable { reason } | Self::Undrivable { reason } => {
                reason.clone()
            }
        };
        CommandError::Log(AppendError::Unavailable {
            reason,
            ambiguous: true,
        })
    }
}
