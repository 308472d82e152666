//! WatchBudget: a fold of the ledger's stream that shows what each entry changed.
//!
//! Boundary: reads the log and nothing else. Invariant: pull-based; entries that came while the
//! watcher did not read are folded into one change of each budget, while warnings and overruns are
//! all told.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream, stream::BoxStream};
use loopwright_core::ledger::{Ledger, LedgerEntry, LedgerEvent, Name, Refusal};
use loopwright_log::{Id, ReadItem, ReadMode, ReadStream};
use loopwright_proto::v1::{self, watch_budget_response::Item};
use tonic::{Code, Status};

use super::{ServiceState, refused, wire};
use crate::{
    drain::DrainSignal,
    driver::Clock,
    ledger::Ledgers,
    service::{
        convert::words,
        status,
        watch::{Seat, goodbye, heartbeat},
    },
};

/// Silence after which a heartbeat is sent.
const IDLE: Duration = Duration::from_secs(15);
/// Entries that are folded into one change at most.
const AT_ONCE: usize = 1_024;

type Answer = Result<v1::WatchBudgetResponse, Status>;

/// Starts to watch one budget, or all of the namespace.
pub(super) async fn open(
    state: &ServiceState,
    namespace: &Id,
    only: Option<Name>,
) -> Result<BoxStream<'static, Answer>, Status> {
    let key = Ledgers::key(namespace);
    let seat = state.seats.take(&key)?;
    let mut watch = Watch {
        source: state.log.read(&key, 0, ReadMode::ToTail),
        ledger: Ledger::default(),
        only,
        changed: BTreeSet::new(),
        told: VecDeque::new(),
        drain: state.drain.clone(),
        over: false,
        _seat: seat,
    };
    while let Some(item) = watch.source.next().await {
        watch.take(item.map_err(|error| status::log(&error))?)?;
    }
    if let Some(name) = watch
        .only
        .as_ref()
        .filter(|name| !watch.ledger.budgets.contains_key(*name))
    {
        return Err(refused(&Refusal::NoBudget(Arc::clone(name)).into()));
    }
    // What led here is history: the watcher gets where it led.
    watch.told.clear();
    watch.changed = watch.ledger.budgets.keys().cloned().collect();
    watch.source = state.log.read(&key, watch.ledger.seq, ReadMode::Follow);
    Ok(stream::unfold(watch, Watch::next).boxed())
}

struct Watch {
    source: ReadStream,
    ledger: Ledger,
    only: Option<Name>,
    /// Budgets whose state is to be told.
    changed: BTreeSet<Name>,
    /// What is to be told one by one, before them.
    told: VecDeque<Item>,
    drain: DrainSignal,
    over: bool,
    _seat: Seat,
}

impl Watch {
    async fn next(mut self) -> Option<(Answer, Self)> {
        if self.over {
            return None;
        }
        let item = self.item().await;
        self.over = matches!(item, Err(_) | Ok(Item::Goodbye(_)));
        let answer = item.map(|item| v1::WatchBudgetResponse { item: Some(item) });
        Some((answer, self))
    }

    async fn item(&mut self) -> Result<Item, Status> {
        loop {
            self.fold_what_is_there()?;
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            if let Some(shown) = self.changed.pop_first().and_then(|name| self.show(&name)) {
                return Ok(shown);
            }
            if !self.changed.is_empty() {
                continue;
            }
            let mut drain = self.drain.clone();
            tokio::select! {
                biased;
                item = self.source.next() => match item {
                    Some(item) => self.take(item.map_err(|error| status::log(&error))?)?,
                    None => return Ok(Item::Goodbye(goodbye(self.ledger.seq))),
                },
                () = drain.wait() => return Ok(Item::Goodbye(goodbye(self.ledger.seq))),
                () = tokio::time::sleep(IDLE) => {
                    return Ok(Item::Heartbeat(heartbeat(self.ledger.seq)));
                }
            }
        }
    }

    fn fold_what_is_there(&mut self) -> Result<(), Status> {
        for _ in 0..AT_ONCE {
            let Some(Some(item)) = self.source.next().now_or_never() else {
                break;
            };
            self.take(item.map_err(|error| status::log(&error))?)?;
        }
        Ok(())
    }

    fn take(&mut self, item: ReadItem) -> Result<(), Status> {
        let ReadItem::Fact(record) = item else {
            return Ok(());
        };
        let entry: LedgerEntry = serde_json::from_slice(&record.body()).map_err(|error| {
            let message = format!("the ledger's entry {} cannot be read: {error}", record.seq);
            status::other(
                Code::DataLoss,
                "LEDGER_UNREADABLE",
                message,
                Vec::new(),
                None,
            )
        })?;
        for event in &entry.events {
            self.note(event);
        }
        self.ledger.apply_entry(record.seq, &entry);
        Ok(())
    }

    /// What an event changes, and what it has to tell by itself.
    fn note(&mut self, event: &LedgerEvent) {
        match event {
            LedgerEvent::BudgetCreated(e) => self.touch(&e.name),
            LedgerEvent::LimitsUpdated(e) => self.touch(&e.name),
            LedgerEvent::BudgetPeriodStarted(e) => self.touch(&e.name),
            LedgerEvent::BudgetDeleted(e) => self.touch(&e.name),
            LedgerEvent::BudgetReserved(e) => e.budgets.iter().for_each(|name| self.touch(name)),
            LedgerEvent::BudgetSettled(e) => self.touch_all_of(&e.hold),
            LedgerEvent::BudgetReleased(e) => self.touch_all_of(&e.hold),
            LedgerEvent::BudgetWarning(e) if self.wants(&e.name) => {
                self.told.push_back(Item::Warning(v1::BudgetWarning {
                    budget: Some(wire::reference(&e.name)),
                    dimension: words::dimension(e.dimension).into(),
                    limit: e.limit,
                    used: e.used,
                }));
            }
            LedgerEvent::BudgetOverrun(e) => {
                let hold = self.ledger.holds.get(&e.hold);
                let budgets = hold
                    .map(|hold| Arc::clone(&hold.budgets))
                    .unwrap_or_default();
                if budgets.iter().any(|name| self.wants(name)) {
                    let call = e.hold.call();
                    self.told.push_back(Item::Overrun(v1::ReservationOverrun {
                        session_id: call.map_or("", |(session, ..)| session).to_owned(),
                        call: call
                            .map(|(_, call, _)| call.to_string())
                            .unwrap_or_default(),
                        reservation_id: e.hold.client().unwrap_or_default().to_owned(),
                        dimension: words::dimension(e.dimension).into(),
                        reserved: e.reserved,
                        used: e.used,
                        budgets: budgets.iter().map(|name| name.to_string()).collect(),
                    }));
                }
            }
            LedgerEvent::BudgetWarning(_) => {}
        }
    }

    fn touch_all_of(&mut self, hold: &loopwright_core::ledger::HoldId) {
        let budgets = self
            .ledger
            .holds
            .get(hold)
            .map(|hold| Arc::clone(&hold.budgets));
        budgets
            .iter()
            .flat_map(|names| names.iter())
            .for_each(|name| self.touch(name));
    }

    fn touch(&mut self, name: &Name) {
        if self.wants(name) {
            self.changed.insert(Arc::clone(name));
        }
    }

    fn wants(&self, name: &Name) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }

    /// Where a budget stands; that it is gone, where it is.
    fn show(&self, name: &Name) -> Option<Item> {
        if !self.wants(name) {
            return None;
        }
        let Some(budget) = self.ledger.budgets.get(name) else {
            return Some(Item::Deleted(name.to_string()));
        };
        let holds = self.ledger.holds.values();
        let open = holds.filter(|hold| hold.budgets.contains(name)).count();
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        Some(Item::Budget(wire::to_wire(name, budget, open, Clock.now())))
    }
}
