//! Listing keys, page by page.

use futures_util::StreamExt as _;

use super::{Subject, fill, key, text, topic};
use crate::{Id, KeyPage, KeyQuery, Log, Seq, StreamKey, StreamKind};

pub(super) async fn run(subject: &Subject) {
    let log = &*subject.log;
    let ids = ["a", "b-1", "b_2", "c", "d"];
    for id in ids {
        fill(log, &key("keys-one", id), 1).await;
    }
    for id in ["a", "z"] {
        fill(log, &key("keys-two", id), 2).await;
    }
    let ledger = StreamKey::new(StreamKind::Ledger, &parse("keys-one"), &parse("main"));
    fill(log, &ledger, 1).await;
    // Looked at, shown progress, never written: not listed.
    assert_eq!(log.tail(&key("keys-one", "empty")).await, Ok(None));
    log.publish(&key("keys-one", "noise"), text(topic(1, 1), 0, "x"));

    let all: Vec<_> = ids.map(|id| key("keys-one", id)).into();
    let page = KeyPage {
        keys: all.clone(),
        sizes: sizes(log, &all).await,
        more: false,
    };
    assert_eq!(list(log, query("keys-one")).await, page);
    fill(log, &all[0], 1).await;
    let grown = list(log, query("keys-one")).await.sizes;
    assert!(grown[0] > page.sizes[0], "an append shows");
    assert_eq!(grown, sizes(log, &all).await);
    assert_eq!(list(log, query("keys-none")).await, KeyPage::default());
    let ledgers = KeyQuery {
        kind: StreamKind::Ledger,
        ..query("keys-one")
    };
    assert_eq!(list(log, ledgers).await.keys, [ledger]);
    pages_add_up(log, all).await;
}

async fn pages_add_up(log: &dyn Log, all: Vec<StreamKey>) {
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = list(
            log,
            KeyQuery {
                after,
                limit: 2,
                ..query("keys-one")
            },
        )
        .await;
        paged.extend(page.keys);
        after = paged.last().cloned();
        if !page.more {
            break;
        }
    }
    assert_eq!(paged, all, "pages add up");
    let every = list(
        log,
        KeyQuery {
            namespace: None,
            ..query("keys-one")
        },
    )
    .await
    .keys;
    let two = [key("keys-two", "a"), key("keys-two", "z")];
    let due: Vec<_> = all.into_iter().chain(two).collect();
    let ours: Vec<_> = every
        .into_iter()
        .filter(|k| k.namespace().starts_with("keys-"))
        .collect();
    assert_eq!(ours, due, "without a namespace all are listed");
}

/// What the records of each stream take, read one by one.
async fn sizes(log: &dyn Log, keys: &[StreamKey]) -> Vec<u64> {
    let mut sizes = Vec::new();
    for key in keys {
        let mut size = 0;
        let mut records = log.read_back(key, Seq::MAX);
        while let Some(record) = records.next().await {
            size += record.expect("read back").stored_bytes();
        }
        sizes.push(size);
    }
    sizes
}

fn parse(text: &str) -> Id {
    Id::parse(text).expect("the suite uses good ids")
}

fn query(namespace: &str) -> KeyQuery {
    KeyQuery {
        namespace: Some(parse(namespace)),
        kind: StreamKind::Session,
        after: None,
        limit: 100,
    }
}

async fn list(log: &dyn Log, query: KeyQuery) -> KeyPage {
    log.keys(query).await.expect("keys")
}
