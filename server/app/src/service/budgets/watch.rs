//! WatchBudget: a fold of the ledger's streams that shows what each entry changed.
//!
//! Boundary: begins with the ledger as it stands, and reads the log from there. Invariant: pull-based; entries that came while the
//! watcher did not read are folded into one change of each budget, while warnings and overruns are
//! all told; where a ledger goes on in another stream, the watcher goes there, and one that is so late
//! that its stream was removed is told so.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream, stream::BoxStream};
use loopwright_core::ledger::{Ledger, LedgerEvent, LedgerSealed, Name, Refusal};
use loopwright_log::{Id, Log, LogError, ReadItem, ReadMode, ReadStream, StreamKey, StreamKind};
use loopwright_proto::v1::{self, watch_budget_response::Item};
use tonic::{Code, Status};

use super::{ServiceState, refused, wire};
use crate::{
    drain::DrainSignal,
    driver::Clock,
    ledger::{LedgerError, Place, entry_of},
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
    let seat = state.seats.take(&Place::first(namespace).key)?;
    let whole = state.ledgers.whole(namespace).await;
    let (ledger, place) = whole.map_err(|error| refused(&error))?;
    if let Some(name) = only
        .as_ref()
        .filter(|name| !ledger.budgets.contains_key(*name))
    {
        return Err(refused(&Refusal::NoBudget(Arc::clone(name)).into()));
    }
    let after = ledger.seq - place.base;
    let watch = Watch {
        source: state.log.read(&place.key, after, ReadMode::Follow),
        log: Arc::clone(&state.log),
        namespace: namespace.clone(),
        // What led here is history: the watcher gets where it led.
        changed: ledger.budgets.keys().cloned().collect(),
        place,
        ledger,
        only,
        told: VecDeque::new(),
        drain: state.drain.clone(),
        over: false,
        _seat: seat,
    };
    Ok(stream::unfold(watch, Watch::next).boxed())
}

struct Watch {
    source: ReadStream,
    log: Arc<dyn Log>,
    namespace: Id,
    place: Place,
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
                    Some(item) => self.take(item.map_err(|error| unread(&error))?)?,
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
            self.take(item.map_err(|error| unread(&error))?)?;
        }
        Ok(())
    }

    fn take(&mut self, item: ReadItem) -> Result<(), Status> {
        let ReadItem::Fact(record) = item else {
            return Ok(());
        };
        let entry = entry_of(&self.place.key, record.seq, &record.body());
        let entry = entry.map_err(|error| refused(&error))?;
        for event in &entry.events {
            self.note(event);
        }
        let seq = self.place.base + record.seq;
        self.ledger.apply_entry(seq, &entry);
        match entry.events.last() {
            Some(LedgerEvent::LedgerSealed(seal)) => self.go_on(seal),
            _ => Ok(()),
        }
    }

    /// Reads on in the next stream, behind what it carries over: that is known.
    fn go_on(&mut self, seal: &LedgerSealed) -> Result<(), Status> {
        let id = Id::parse(&seal.next).map_err(|error| {
            let reason = format!("{} was sealed: {error}", self.place.key);
            refused(&LedgerError::Unreadable(reason))
        })?;
        let key = StreamKey::new(StreamKind::Ledger, &self.namespace, &id);
        self.source = self.log.read(&key, seal.records, ReadMode::Follow);
        self.place = Place {
            key,
            base: self.ledger.seq,
        };
        self.ledger.seq += seal.records;
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
            // What is carried over is known here already.
            LedgerEvent::BudgetWarning(_)
            | LedgerEvent::LedgerSealed(_)
            | LedgerEvent::LedgerCarried(_)
            | LedgerEvent::BudgetCarried(_)
            | LedgerEvent::EndedCarried(_) => {}
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

/// Why a watch ends whose stream cannot be read on.
fn unread(error: &LogError) -> Status {
    match error {
        LogError::Removed | LogError::PastTail { .. } => {
            let message = "the watcher is too far behind: what it has not read was removed; open the \
                           stream again to get where each budget stands";
            status::other(
                Code::OutOfRange,
                "WATCHER_TOO_LATE",
                message,
                Vec::new(),
                None,
            )
        }
        error => status::log(error),
    }
}
