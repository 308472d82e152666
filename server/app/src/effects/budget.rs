//! What shared budgets say of a model call: asked before it is made, told after it has ended.
//!
//! Boundary: a driver's wish in, the ledger's word out. Invariants: a ledger that cannot be reached is
//! asked again until it answers, under the same reservation; nothing is taken for granted meanwhile.

use std::{sync::Arc, time::Duration};

use loopwright_core::{
    budget::{Amount, Ask},
    event::BudgetWarning,
    ledger::{Answer, Granted, HoldId, Name, OnExhausted, Refusal, Request, Used},
    outcome::{EndReason, WaitsFor},
    state::Settlement,
};
use loopwright_log::{Id, StreamKey};

use tokio::sync::watch;

use crate::ledger::{Ahead, LedgerError, Ledgers, OnItsWay};

/// How often a loop looks that waits for a budget whose ledger does not change: a new period needs none.
const PERIOD_CHECK: Duration = Duration::from_secs(15);
/// First and longest wait before a ledger that could not be reached is asked again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Why a reservation is not granted.
pub(crate) enum Refused {
    /// A budget is short that says to wait.
    ForNow(WaitsFor),
    /// The loop ends like this.
    ForGood(EndReason),
    /// It was made before, for an attempt that the session's log does not know of any more.
    Spent,
}

/// A reservation that was asked for.
pub(crate) struct Asked(Ahead);

impl Asked {
    /// What is granted, as soon as the ledger's entry is on its way; `None` where nothing is, or another
    /// answer comes.
    pub(crate) async fn granted(&mut self) -> Option<OnItsWay> {
        (&mut self.0.granted).await.ok()
    }

    /// The answer, durable; `None` where the ledger did not get to it.
    pub(crate) async fn answered(self) -> Option<Result<Answer, LedgerError>> {
        self.0.answer.await.ok()
    }
}

/// One attempt of a model call, as the ledger of its namespace knows it.
pub(crate) struct Charged {
    ledgers: Arc<Ledgers>,
    namespace: Option<Id>,
    hold: HoldId,
}

impl Charged {
    /// The attempt that `hold` is of, of a call of the session `key`.
    pub(crate) fn new(ledgers: Arc<Ledgers>, key: &StreamKey, hold: HoldId) -> Self {
        Self {
            ledgers,
            namespace: Id::parse(key.namespace()).ok(),
            hold,
        }
    }

    /// Asks for a reservation now, whatever becomes of the answer: one that nobody looks at is found by
    /// its id when it is asked for again, settled or given back.
    pub(crate) fn ask(self, budgets: Vec<Name>, ask: Ask) -> Option<Asked> {
        let (namespace, hold) = (self.namespace?, self.hold);
        let request = Request::ReserveCall { hold, budgets, ask };
        self.ledgers.ask_ahead(&namespace, request).map(Asked)
    }

    /// Reserves; what is granted, first by the answer to what was asked already. A loop that `waits` already is answered once there is
    /// another answer than that it has to.
    ///
    /// # Errors
    /// What the loop does instead.
    pub(crate) async fn reserve(
        self,
        budgets: Vec<Name>,
        ask: Ask,
        waits: bool,
        mut asked: Option<Asked>,
    ) -> Result<Granted, Refused> {
        let hold = self.hold.clone();
        let request = Request::ReserveCall { hold, budgets, ask };
        // Before the question: what changes after the answer is seen.
        let mut changes = self.namespace.as_ref().map(|ns| self.ledgers.changes(ns));
        loop {
            let early = match asked.take() {
                Some(asked) => asked.answered().await,
                None => None,
            };
            let answer = match early {
                None | Some(Err(LedgerError::Unavailable(_))) => {
                    self.until_answered(request.clone()).await
                }
                Some(answer) => answer,
            };
            match answer {
                Ok(Answer::Granted(granted)) => return Ok(granted),
                Ok(Answer::Done | Answer::Settled(_)) => {
                    return Err(error("the ledger granted nothing").into());
                }
                Err(LedgerError::Refused(Refusal::Exhausted {
                    budget,
                    short,
                    on_exhausted: OnExhausted::Pause,
                })) => {
                    let budget = budget.to_string();
                    if !waits {
                        return Err(Refused::ForNow(WaitsFor::Budget { budget, short }));
                    }
                    changed(changes.as_mut()).await;
                }
                Err(LedgerError::Refused(Refusal::Exhausted { budget, short, .. })) => {
                    return Err(short.of(&budget).into());
                }
                Err(LedgerError::Refused(Refusal::Ended(_) | Refusal::Reused(_))) => {
                    return Err(Refused::Spent);
                }
                Err(refused) => return Err(error(refused).into()),
            }
        }
    }

    /// Tells what became of the reservation. Ends once the ledger has taken it: with what that brought to
    /// its warning share.
    pub(crate) async fn settle(self, settlement: Settlement) -> Vec<BudgetWarning> {
        let hold = self.hold.clone();
        let request = match settlement {
            Settlement::Used(used) => Request::Settle {
                hold,
                used: Used::Reported(used),
            },
            Settlement::Whole(beside) => Request::Settle {
                hold,
                used: Used::Tokens(beside),
            },
            Settlement::Released => Request::Release { hold },
            Settlement::Time { agent, wall_ms } => Request::Charge {
                hold,
                budgets: agent.budgets.iter().map(|n| n.as_str().into()).collect(),
                used: Amount {
                    wall_ms,
                    ..Amount::default()
                },
            },
        };
        let hold = self.hold.clone();
        match self.until_answered(request).await {
            Ok(Answer::Settled(warned)) => warned.into_iter().map(BudgetWarning::from).collect(),
            // It was taken before.
            Ok(Answer::Done | Answer::Granted(_)) => Vec::new(),
            Err(error) => {
                // The session's own log keeps what was used; a ledger that is read again takes it then.
                tracing::error!(%hold, %error, "a settlement was not taken");
                std::future::pending().await
            }
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

/// Ends when the ledger has changed, or a period may have ended.
async fn changed(changes: Option<&mut watch::Receiver<u64>>) {
    let moved = async {
        match changes {
            Some(changes) => drop(changes.changed().await),
            None => std::future::pending().await,
        }
    };
    // Either way it is asked again.
    let _ = tokio::time::timeout(PERIOD_CHECK, moved).await;
}

impl From<EndReason> for Refused {
    fn from(reason: EndReason) -> Self {
        Self::ForGood(reason)
    }
}

fn error(message: impl std::fmt::Display) -> EndReason {
    EndReason::Error {
        message: message.to_string(),
    }
}
