//! The index's file: that it spares folds, that it is believed only as of its log, and that
//! whatever is wrong with it costs nothing but time.

use std::path::PathBuf;

use super::*;

/// A log in memory with two namespaces, and a file for its index.
struct Disk {
    bench: Bench,
    dir: tempfile::TempDir,
}

impl Disk {
    async fn new() -> Self {
        let bench = Bench::new();
        for id in ["s1", "s2", "s3"] {
            bench.append(&key(id), session(id)).await;
        }
        let other = StreamKey::parse("session/other/s1").unwrap();
        bench.append(&other, session("s1")).await;
        let dir = tempfile::tempdir().unwrap();
        Self { bench, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("index.redb")
    }

    /// A start of the server: an index over the same log.
    async fn index(&self) -> Arc<Index> {
        Index::open(self.bench.log.clone(), &self.path()).await
    }
}

/// What a list shows: every brief of the namespace.
async fn list(index: &Index) -> Vec<(String, Brief)> {
    let scope = Scope::Namespace(namespace());
    let pick = |key: &StreamKey, brief: &Brief| vec![(key.id().to_owned(), brief.clone())];
    let mut seen = index.scan(scope, pick).await.unwrap();
    seen.sort_by(|one, other| one.0.cmp(&other.0));
    seen
}

#[tokio::test]
async fn a_list_after_a_restart_folds_no_log_that_has_not_moved() {
    let disk = Disk::new().await;
    let first = disk.index().await;
    let folded = list(&first).await;
    assert_eq!(first.folds(), 3);
    first.close().await;

    disk.bench.append(&key("s2"), vec![attached()]).await;
    let second = disk.index().await;
    let seen = list(&second).await;
    assert_eq!(second.folds(), 1, "s2 alone has moved");
    assert_eq!((&seen[0], &seen[2]), (&folded[0], &folded[2]));
    assert_eq!(seen[1].1.seq, folded[1].1.seq + 1);
    assert_eq!(seen, list(&Index::new(disk.bench.log.clone())).await);
    assert_eq!(second.brief(&key("s1")).await.unwrap().unwrap(), seen[0].1);
    assert_eq!(second.folds(), 1);
    second.close().await;

    let third = disk.index().await;
    assert_eq!(list(&third).await, seen);
    assert_eq!(third.folds(), 0, "what the second found was kept");
}

#[tokio::test]
async fn a_session_that_was_removed_and_made_anew_is_not_taken_for_the_old_one() {
    let disk = Disk::new().await;
    let first = disk.index().await;
    list(&first).await;
    first.digest(&key("s1")).await.unwrap();
    assert!(disk.bench.log.remove(&key("s1")).await.unwrap());
    first.forget(&key("s1"));
    assert!(first.digest(&key("s1")).await.unwrap().is_none());
    assert!(first.brief(&key("s1")).await.unwrap().is_none());
    let mut anew = session("s1");
    anew[2] = started(1, T0, "look b");
    disk.bench.append(&key("s1"), anew).await;
    first.close().await;
    let second = disk.index().await;
    let (seen, truth) = (list(&second).await, Index::new(disk.bench.log.clone()));
    assert_eq!(seen, list(&truth).await);
    assert_eq!(seen[0].1.title, "look b");
}

#[tokio::test]
async fn what_a_driver_left_behind_is_kept_and_its_digest_let_go_of() {
    let disk = Disk::new().await;
    let first = disk.index().await;
    for id in ["s1", "s2", "s3"] {
        first.digest(&key(id)).await.unwrap();
        first.refresh(&key(id));
    }
    let open = key("open");
    disk.bench
        .append(&open, session("open")[..4].to_vec())
        .await;
    first.refresh(&open);
    first.close().await;
    assert_eq!(first.digests(), 1, "the open one's");
    let second = disk.index().await;
    let survey = second.survey().await.unwrap();
    assert_eq!(survey.sessions, 5);
    assert_eq!(
        survey.unknown,
        [StreamKey::parse("session/other/s1").unwrap()]
    );
    let [(found, standing)] = &*survey.known else {
        panic!("{survey:?}")
    };
    assert_eq!(
        (found, standing.open, standing.runnable),
        (&open, true, true)
    );
    assert_eq!(second.catch_up(survey.unknown).await, []);
    second.close().await;
    let third = disk.index().await;
    assert_eq!(third.survey().await.unwrap().unknown, []);
    assert_eq!(second.folds() + third.folds(), 1);
}

#[tokio::test]
async fn a_file_that_is_not_an_index_is_made_anew() {
    let disk = Disk::new().await;
    let truth = list(&Index::new(disk.bench.log.clone())).await;
    let first = disk.index().await;
    list(&first).await;
    first.close().await;
    let good = std::fs::read(disk.path()).unwrap();
    let mut bad: Vec<Vec<u8>> = vec![
        b"not a database".to_vec(),
        vec![0; 10_000],
        good[..good.len() / 2].to_vec(),
        good[..3].to_vec(),
    ];
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut flipped = good.clone();
        flipped[at..]
            .iter_mut()
            .take(8)
            .for_each(|byte| *byte ^= 0x5a);
        bad.push(flipped);
    }
    for (n, content) in bad.into_iter().enumerate() {
        std::fs::write(disk.path(), content).unwrap();
        let index = disk.index().await;
        assert_eq!(list(&index).await, truth, "case {n}");
        index.close().await;
    }
}

#[tokio::test]
async fn an_index_of_another_version_is_made_anew() {
    let disk = Disk::new().await;
    let database = redb::Database::create(disk.path()).unwrap();
    let about = redb::TableDefinition::<&str, u64>::new("about");
    let writing = database.begin_write().unwrap();
    writing
        .open_table(about)
        .unwrap()
        .insert("version", 999)
        .unwrap();
    writing.commit().unwrap();
    drop(database);
    for folds in [3, 0] {
        let index = disk.index().await;
        assert_eq!(list(&index).await.len(), 3);
        assert_eq!(index.folds(), folds);
        index.close().await;
    }
}

#[tokio::test]
async fn without_a_place_for_its_file_the_index_works() {
    let disk = Disk::new().await;
    let path = disk.dir.path().join("no/such/folder/index.redb");
    let index = Index::open(disk.bench.log.clone(), &path).await;
    assert_eq!(list(&index).await.len(), 3);
    assert_eq!(index.survey().await.unwrap().unknown.len(), 4);
    index.close().await;
}
