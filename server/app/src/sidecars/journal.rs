//! The registry's stream in the log: written before anything is acknowledged, folded at start.
//!
//! Boundary: facts in, facts out; what they mean is the book's. Invariant: the book in memory has
//! every record of the stream, and no fact that is not in it.

use std::sync::Arc;

use futures_util::StreamExt;
use loopwright_log::{
    AppendError, Id, KeyQuery, LogError, NewRecord, ReadItem, ReadMode, StreamKey, StreamKind,
    Timestamp,
};

use super::book::{Fact, Page};
use super::registry::now_ms;
use super::{STREAM_ID, Sidecars, Tenant};

/// Streams listed at a time.
const KEYS_PER_PAGE: usize = 100;
impl Sidecars {
    /// Brings back what the log says is registered, and dials it in the background. Every lease
    /// starts anew. Answers how many there are. What cannot be read is logged and left out:
    /// sidecars that live register again.
    pub async fn recover(self: &Arc<Self>) -> usize {
        let (mut count, mut after) = (0, None);
        loop {
            let query = KeyQuery {
                namespace: None,
                kind: StreamKind::Registry,
                after: after.take(),
                limit: KEYS_PER_PAGE,
            };
            let page = match self.log.keys(query).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "the registrations of sidecars cannot be listed");
                    return count;
                }
            };
            for key in page.keys.iter().filter(|key| key.id() == STREAM_ID) {
                match self.recover_namespace(key).await {
                    Ok(found) => count += found,
                    Err(error) => {
                        tracing::error!(%key, %error, "registrations of sidecars cannot be read")
                    }
                }
            }
            match page.keys.last() {
                Some(last) if page.more => after = Some(last.clone()),
                _ => return count,
            }
        }
    }

    async fn recover_namespace(self: &Arc<Self>, key: &StreamKey) -> Result<usize, LogError> {
        let _writing = self.writer.lock().await;
        let Ok(namespace) = Id::parse(key.namespace()) else {
            return Ok(0);
        };
        let mut tenant = Tenant::new(&namespace);
        let mut facts = self.log.read(key, 0, ReadMode::ToTail);
        while let Some(item) = facts.next().await {
            let ReadItem::Fact(record) = item? else {
                continue;
            };
            tenant.tail = Some(record.seq);
            match serde_json::from_slice::<Page>(&record.body()) {
                Ok(page) => page.facts().for_each(|fact| tenant.book.apply(fact)),
                Err(error) => {
                    tracing::warn!(%key, seq = record.seq, %error, "skipped an entry")
                }
            }
        }
        let standing: Vec<_> = tenant
            .book
            .iter()
            .filter(|noted| noted.live)
            .map(|noted| (noted.registered.clone(), noted.described.clone()))
            .collect();
        self.write().insert(namespace.as_str().to_owned(), tenant);
        let count = standing.len();
        for (registered, described) in standing {
            self.start(&namespace, registered, &described, None);
        }
        Ok(count)
    }

    /// Appends facts and takes them into the book. Wants the writer's lock held.
    pub(super) async fn append(&self, namespace: &Id, facts: Vec<Fact>) -> Result<(), AppendError> {
        if facts.is_empty() {
            return Ok(());
        }
        let body = Page::of(&facts)
            .and_then(|page| serde_json::to_vec(&page))
            .map_err(|_| AppendError::Malformed {
                reason: "a registration is not plain JSON",
            })?;
        let (key, tail) = {
            let mut tenants = self.write();
            let tenant = tenants
                .entry(namespace.as_str().to_owned())
                .or_insert_with(|| Tenant::new(namespace));
            // Asked for anew after a failure: it is not known whether the record is there.
            (tenant.key.clone(), tenant.tail.take())
        };
        let tail = match tail {
            Some(tail) => tail,
            None => self
                .log
                .tail(&key)
                .await
                .map_err(as_append_error)?
                .unwrap_or(0),
        };
        let record = NewRecord::new(Timestamp::from_unix_ms(now_ms()), 0, body.into());
        let seq = self.log.append(&key, tail, record).await?;
        if let Some(tenant) = self.write().get_mut(namespace.as_str()) {
            tenant.tail = Some(seq);
            facts.into_iter().for_each(|fact| tenant.book.apply(fact));
        }
        Ok(())
    }
}

fn as_append_error(error: LogError) -> AppendError {
    match error {
        LogError::Corrupt(corruption) => AppendError::Corrupt(corruption),
        LogError::Trimmed { oldest } => AppendError::Trimmed { oldest },
        LogError::Removed => AppendError::Conflict { tail: 0 },
        LogError::Unavailable { .. }
        | LogError::PastTail { .. }
        | LogError::NewerVersion { .. } => AppendError::Unavailable {
            reason: error.to_string(),
            ambiguous: false,
        },
    }
}
