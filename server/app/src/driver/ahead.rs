//! A step under shared budgets, without a wait between its entries.
//!
//! Three records make it: the session's entry that asks for the reservation, the ledger's that grants
//! it, the session's that uses it. Each is decided on what the ones before it say, sent behind them, and
//! all are waited for at once: the log takes the last one only with the others, so that a crash, a lost
//! fence or a full disk leaves a prefix of them. Invariant: the call is made once all three are durable,
//! as everywhere; where one is not the driver ends, and the next one reads what there is.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use loopwright_core::{
    Entry, Event, What,
    ids::{Attempt, CallId},
    ledger::Granted,
};
use loopwright_log::{AppendError, Fate, Seq};

use super::{commit::Draft, run::Driver};
use crate::{effects::budget::Asked, ledger::OnItsWay};

/// Bytes that must be left of the session's log: then no entry is refused for its size once it was sent.
const ROOM: u64 = 4 << 20;

/// A reservation that was asked for, of this call.
type Early = ((CallId, Attempt), Asked);

/// An entry on its way, and what is sent behind it.
pub(super) struct Sent<'a> {
    pub(super) appended: BoxFuture<'a, Result<Seq, AppendError>>,
    pub(super) fate: Fate,
    pub(super) size: u64,
}

impl Driver {
    /// Whether what follows `entry` may be decided before it is durable: it asks for a reservation, ends
    /// nothing, settles nothing that the reservation may be made of, and is surely taken if anything is.
    pub(super) fn may_go_ahead(&self, entry: &Entry, size: u64) -> bool {
        let asks = |event: &Event| matches!(event, Event::ModelCallReserving(_));
        let ends = |e: &Event| matches!(e, Event::LoopEnded(_) | Event::BudgetSettled(_));
        let events = &entry.events;
        let room = self.world.session_bytes.saturating_sub(self.bytes);
        events.iter().any(asks) && !events.iter().any(ends) && room >= ROOM.saturating_add(size)
    }

    /// Takes in `entry`, which asks for a reservation and was sent, and sends the licence behind it if that
    /// is granted before it is durable.
    pub(super) async fn go_ahead(
        &mut self,
        entry: &Entry,
        sent: Sent<'_>,
    ) -> Result<(), AppendError> {
        let mut appended = sent.appended;
        self.apply(entry, sent.size);
        let mut early = self.ask_early();
        let granted = tokio::select! {
            biased;
            done = &mut appended => {
                appended = Box::pin(std::future::ready(done));
                None
            }
            granted = granted(&mut early) => granted,
        };
        let Some((licence, reserved)) = granted.and_then(|(of, on_its_way)| {
            let licence = self.licence(of, &on_its_way.granted)?;
            Some((licence, on_its_way.fate))
        }) else {
            self.early = early;
            appended.await.map_err(too_late)?;
            self.took_in(entry);
            return Ok(());
        };
        let (next, size) = (licence.entry, licence.size);
        let record = licence
            .record
            .behind(reserved.into_iter().chain([sent.fate]));
        let (log, key) = (Arc::clone(&self.world.log), self.key.clone());
        let licensed = log.append(&key, self.state.seq, record);
        let (asked, licensed) = tokio::join!(appended, licensed);
        asked.map_err(too_late)?;
        self.took_in(entry);
        licensed.map_err(too_late)?;
        self.apply(&next, size);
        self.took_in(&next);
        Ok(())
    }

    /// The entry that licenses the call for which this is granted.
    fn licence(&mut self, (call, attempt): (CallId, Attempt), granted: &Granted) -> Option<Draft> {
        let what = What::BudgetGranted {
            call,
            attempt,
            max_output_tokens: granted.amount.output,
            tool_calls: granted.tool_calls,
            left: granted.left.as_slice().into(),
        };
        let starts = |event: &Event| matches!(event, Event::ModelCallStarted(_));
        let draft = self.decided(what).ok()??;
        draft.entry.events.iter().any(starts).then_some(draft)
    }
}

/// What is granted of what was asked for, if anything was.
async fn granted(early: &mut Option<Early>) -> Option<((CallId, Attempt), OnItsWay)> {
    let (of, asked) = early.as_mut()?;
    Some((*of, asked.granted().await?))
}

/// The state is ahead of an entry that was refused: the driver ends, and the next one reads the log.
fn too_late(error: AppendError) -> AppendError {
    match error {
        AppendError::TooLarge { .. } => AppendError::Unavailable {
            reason: error.to_string(),
            ambiguous: false,
        },
        error => error,
    }
}
