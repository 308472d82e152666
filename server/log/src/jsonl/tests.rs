//! The embedded log on a real disk.
#![expect(clippy::unwrap_used, reason = "tests")]

use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Subject};

fn small(dir: &TempDir) -> JsonlOptions {
    JsonlOptions {
        segment_bytes: 16 * 1024,
        gather: Duration::from_millis(5),
        idle: Duration::ZERO,
        ..JsonlOptions::new(dir.path().join("state"))
    }
}

fn open(options: &JsonlOptions) -> Arc<dyn Log> {
    JsonlLog::open(options.clone()).unwrap().0
}

fn subject(change: impl Fn(JsonlOptions) -> JsonlOptions) -> Subject {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let options = change(small(&dir));
    let log = open(&options);
    let reopen = Box::new(move || -> BoxFuture<'static, Arc<dyn Log>> {
        let (options, dir) = (options.clone(), dir.clone());
        Box::pin(async move {
            let log = open(&options);
            drop(dir);
            log
        })
    });
    Subject {
        log,
        reopen: Some(reopen),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::run(|| async { subject(|options| options) }).await;
}

#[tokio::test]
async fn conforms_with_records_from_memory_only() {
    let lazy = |options| JsonlOptions {
        gather: Duration::from_secs(60),
        ..options
    };
    conformance::run(|| async { subject(lazy) }).await;
}

#[tokio::test]
async fn conforms_without_syncs() {
    let lax = |options| JsonlOptions {
        sync: SyncPolicy::Never,
        ..options
    };
    conformance::run(|| async { subject(lax) }).await;
}

mod damage;
mod faults;
mod fixture;
mod life;
mod look;
mod notes;
mod powercut;
mod recovery;
mod streams;
