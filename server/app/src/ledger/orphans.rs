//! Reservations that nobody will settle: of sessions that are gone, that cannot be read, or whose log
//! does not know of them.
//!
//! Boundary: reads sessions and the ledger; settles by the ledger's own requests. Invariant: what is
//! settled here was open in the ledger before its session was read, and a session writes down that it
//! reserves before it does, and that it has settled after it has: what its log does not know of then is
//! nobody's. It counts as used whole, since it may have been.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt as _;
use loopwright_core::{
    Entry, State,
    ids::Timestamp,
    ledger::{HoldId, Ledger, Request, Used, claims},
};
use loopwright_log::{Id, KeyQuery, Log, LogError, ReadItem, ReadMode, StreamKey, StreamKind};

use super::{LedgerError, Ledgers};
use crate::drain::DrainSignal;

/// How often it is looked again, and how old a reservation is then at least: most calls are over.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Streams of ledgers that are listed at once.
const PAGE: usize = 1_000;

/// Settles orphans, those of before now and then those that come, until the server goes down.
pub(crate) async fn watch_over(ledgers: Arc<Ledgers>, mut drain: DrainSignal) {
    let mut before = ledgers.clock.now();
    loop {
        let settled = tokio::select! {
            settled = ledgers.settle_orphans(before) => settled,
            () = drain.wait() => return,
        };
        match settled {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "reservations that nobody would settle are settled"),
            Err(error) => tracing::warn!(%error, "reservations of lost calls are looked for later"),
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = drain.wait() => return,
        }
        let age = u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX);
        before = Timestamp(ledgers.clock.now().0.saturating_sub(age));
    }
}

impl Ledgers {
    /// Counts as used what sessions had set aside before then and will never settle; how many
    /// reservations that were.
    ///
    /// # Errors
    /// The state of the log; what was settled until then stays so.
    pub async fn settle_orphans(&self, before: Timestamp) -> Result<usize, LedgerError> {
        let mut settled = 0;
        for namespace in self.namespaces().await? {
            let open = self.look(&namespace, move |ledger, _| open_calls(ledger, before));
            for (session, holds) in open.await? {
                let Some(claimed) = self.claimed(&namespace, &session).await else {
                    continue;
                };
                for hold in holds.into_iter().filter(|hold| !claimed.contains(hold)) {
                    tracing::warn!(%hold, "no session knows of this reservation: it counts as used");
                    let used = Used::Whole;
                    self.ask(&namespace, Request::Settle { hold, used }).await?;
                    settled += 1;
                }
            }
        }
        Ok(settled)
    }

    /// What a session's log knows to be set aside; nothing where there is none, or none that can be
    /// driven on; `None` where it cannot be told now.
    async fn claimed(&self, namespace: &Id, session: &str) -> Option<BTreeSet<HoldId>> {
        let Ok(id) = Id::parse(session) else {
            return Some(BTreeSet::new());
        };
        match fold(&*self.log, &StreamKey::session(namespace, &id)).await {
            Ok(state) => state.map(|state| claims(&state)),
            Err(LogError::Unavailable { .. } | LogError::NewerVersion { .. }) => None,
            Err(_) => Some(BTreeSet::new()),
        }
    }

    /// The namespaces that have a ledger.
    async fn namespaces(&self) -> Result<BTreeSet<Id>, LedgerError> {
        let mut found = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.log.keys(KeyQuery {
                namespace: None,
                kind: StreamKind::Ledger,
                after,
                limit: PAGE,
            });
            let page = page.await;
            let page = page.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
            let names = page.keys.iter().map(|key| Id::parse(key.namespace()));
            found.extend(names.filter_map(Result::ok));
            match page.keys.last() {
                Some(last) if page.more => after = Some(last.clone()),
                _ => return Ok(found),
            }
        }
    }
}

/// The open reservations of model calls that were made before then, by session.
fn open_calls(ledger: &Ledger, before: Timestamp) -> BTreeMap<String, Vec<HoldId>> {
    let mut open: BTreeMap<String, Vec<HoldId>> = BTreeMap::new();
    let old = ledger.holds.iter().filter(|(_, hold)| hold.at < before);
    for (id, _) in old {
        if let Some((session, ..)) = id.call() {
            open.entry(session.to_owned()).or_default().push(id.clone());
        }
    }
    open
}

/// The state that a session's log says; `None` where a later version wrote it.
async fn fold(log: &dyn Log, key: &StreamKey) -> Result<Option<State>, LogError> {
    let mut state = State::default();
    let mut records = log.read(key, 0, ReadMode::ToTail);
    while let Some(item) = records.next().await {
        let ReadItem::Fact(record) = item? else {
            continue;
        };
        let Ok(entry) = serde_json::from_slice::<Entry>(&record.body()) else {
            return Ok(None);
        };
        state.apply_entry(record.seq, &entry);
    }
    Ok(Some(state))
}
