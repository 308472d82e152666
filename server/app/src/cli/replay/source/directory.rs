//! The session in a data directory, which a server may be using.

use std::path::Path;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, future};
use loopwright_log::{Id, JsonlLog, Log as _, ReadItem, ReadMode, StreamKey};

use super::{Source, parse};

pub(super) async fn open(dir: &Path, namespace: &str, session: &str) -> anyhow::Result<Source> {
    let namespace: Id = namespace.parse().context("--namespace")?;
    let id: Id = session.parse().context("SESSION")?;
    let key = StreamKey::session(&namespace, &id);
    let at = dir.to_owned();
    let looked = tokio::task::spawn_blocking(move || JsonlLog::open_read_only(&at)).await?;
    let (log, _) = looked.with_context(|| format!("--dir {} cannot be read", dir.display()))?;
    // A damaged session has a good part, which the read yields before it says so.
    if let Ok(None) = log.tail(&key).await {
        bail!(
            "there is no session {session} of namespace {namespace} in {}",
            dir.display()
        );
    }
    let items = log.read(&key, 0, ReadMode::ToTail);
    let lines = items.filter_map(|item| {
        future::ready(match item {
            Ok(ReadItem::Fact(record)) => parse(record.line()).transpose(),
            Ok(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)) => None,
            Err(error) => Some(Err(error.into())),
        })
    });
    Ok(Source {
        name: format!("session {session} in {}", dir.display()),
        lines: lines.boxed(),
    })
}
