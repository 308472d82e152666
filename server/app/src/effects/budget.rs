//! What shared budgets say of a model call: asked before it is made, told after it has ended.
//!
//! Boundary: a driver's wish in, the ledger's word out. Invariants: a ledger that cannot be reached is
//! asked again until it answers, under the same reservation; nothing is taken for granted meanwhile.

use std::{sync::Arc, time::Duration};

use loopwright_core::{
    budget::Ask,
    ids::{Attempt, CallId},
    ledger::{Answer, HoldId, Name, Refusal, Request},
    outcome::EndReason,
    state::Settlement,
};
use loopwright_log::{Id, StreamKey};

use crate::ledger::{LedgerError, Ledgers};

/// First and longest wait before a ledger that could not be reached is asked again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// One attempt of a model call, as the ledger of its namespace knows it.
pub(crate) struct Charged {
    ledgers: Arc<Ledgers>,
    namespace: Option<Id>,
    hold: HoldId,
}

impl Charged {
    /// An attempt of a call of the session `key`.
    pub(crate) fn new(
        ledgers: Arc<Ledgers>,
        key: &StreamKey,
        call: CallId,
        attempt: Attempt,
    ) -> Self {
        Self {
            ledgers,
            namespace: Id::parse(key.namespace()).ok(),
            hold: HoldId::of_call(key.id(), call, attempt),
        }
    }

    /// Reserves; the output cap that is granted.
    ///
    /// # Errors
    /// How the loop ends instead.
    pub(crate) async fn reserve(self, budgets: Vec<Name>, ask: Ask) -> Result<u64, EndReason> {
        let hold = self.hold.clone();
        let request = Request::ReserveCall { hold, budgets, ask };
        match self.until_answered(request).await {
            Ok(Answer::Granted(granted)) => Ok(granted.amount.output),
            Ok(Answer::Done) => Err(error("the ledger granted nothing")),
            Err(LedgerError::Refused(Refusal::Exhausted { budget, short, .. })) => {
                Err(short.of(&budget))
            }
            Err(refused) => Err(error(refused)),
        }
    }

    /// Tells what became of the reservation. Ends once the ledger has taken it.
    pub(crate) async fn settle(self, settlement: Settlement) {
        let hold = self.hold.clone();
        let request = match settlement {
            Settlement::Used(used) => Request::Settle {
                hold,
                used: Some(used),
            },
            Settlement::Whole => Request::Settle { hold, used: None },
            Settlement::Released => Request::Release { hold },
        };
        let hold = self.hold.clone();
        if let Err(error) = self.until_answered(request).await {
            // The session's own log keeps what was used; a ledger that is read again takes it then.
            tracing::error!(%hold, %error, "a settlement was not taken");
            std::future::pending::<()>().await;
        }
    }

    async fn until_answered(&self, request: Request) -> Result<Answer, LedgerError> {
        let Some(namespace) = &self.namespace else {
            let reason = "the session's namespace is none".to_owned();
            return Err(LedgerError::Unreadable(reason));
        };
        let (mut wait, longest) = WAITS;
        loop {
            match self.ledgers.ask(namespace, request.clone()).await {
                Err(LedgerError::Unavailable(reason)) => {
                    tracing::debug!(%reason, hold = %self.hold, "asked again later");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(longest);
                }
                answer => return answer,
            }
        }
    }
}

fn error(message: impl std::fmt::Display) -> EndReason {
    EndReason::Error {
        message: message.to_string(),
    }
}
