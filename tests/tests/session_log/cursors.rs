use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_client::{
    Client, ClientOptions, Conversation, ConverseEvent, EntryMark, Error, Opening, Rejection,
    Watch, WatchEvent, WatchOptions,
};
use loopwright_proto::v1::{EndReason, Entry, ReadDirection, ReadEntriesRequest};
use loopwright_tests::scene;
use serde_json::Value;

use super::stage::{Recorded, goes_on, is_idle, summary};

/// Entries that are lost of a session of one epoch.
const LOST: u64 = 2;

/// A watcher that comes back by itself, and what it has in its hands.
struct Watcher {
    watch: Watch,
    seen: Vec<Entry>,
}

impl Watcher {
    /// One that has read all that there is.
    async fn caught_up(recorded: &Recorded) -> Result<Self> {
        let client = Client::connect(ClientOptions::at(&recorded.scene.server.url))?;
        let mut watch = client.watch("s1", 0);
        let mut seen = Vec::new();
        loop {
            match watch.next().await.context("the watch ended")?? {
                WatchEvent::Entry(entry) => seen.push(entry),
                WatchEvent::Heartbeat { .. } => return Ok(Self { watch, seen }),
                _ => {}
            }
        }
    }

    fn last(&self) -> Result<&Entry> {
        self.seen.last().context("entries")
    }

    /// What it is told when it comes back; an entry would be a silent skip.
    async fn refused(&mut self) -> Result<Rejection> {
        loop {
            match self.watch.next().await.context("the watch ended")? {
                Ok(WatchEvent::Entry(entry)) => bail!("it goes on with {}", entry.seq),
                Ok(_) => {}
                Err(Error::Rejected(rejection)) => return Ok(*rejection),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Takes the last entries of `s1` off the disk, from above `kept` on, as if they had never been written: whole
/// lines at the end of the journal's last segment, and of the session's file as far as they are there.
fn lose(dir: &Path, kept: u64) -> Result<()> {
    let segments = fs::read_dir(dir.join("log/journal"))?;
    let segments: Vec<_> = segments
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    let last = segments.into_iter().max().context("a segment")?;
    let file = dir.join("log/default/session/s1/log.jsonl");
    ensure!(cut(&last, kept)? >= LOST, "they were not in {last:?}");
    if file.exists() {
        cut(&file, kept)?;
    }
    Ok(())
}

/// How many lines were taken out.
fn cut(path: &Path, kept: u64) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let (mut left, mut lost) = (String::new(), 0);
    for line in text.split_inclusive('\n') {
        // The journal has empty lines between batches.
        let record = match line.trim() {
            "" => Value::Null,
            line => serde_json::from_str(line)?,
        };
        let seq = record["seq"].as_u64();
        if record["stream"] == "session/default/s1" && seq.is_some_and(|seq| seq > kept) {
            lost += 1;
        } else {
            left.push_str(line);
        }
    }
    fs::write(path, left)?;
    Ok(lost)
}

/// Kills the server, loses what is above `kept`, and has the session go on past `seen`.
async fn lose_and_go_on(recorded: &mut Recorded, kept: u64, seen: u64) -> Result<()> {
    recorded.scene.server.kill()?;
    lose(recorded.scene.server.dir(), kept)?;
    recorded.scene.server.restart()?;
    recorded.scene.client = scene::client(&recorded.scene.server.url, None)?;
    let client = &recorded.scene.client;
    // One whose end was lost goes on as soon as the server is back.
    scene::eventually("it is idle", || is_idle(client, "s1")).await?;
    while summary(client, "s1").await?.tail_seq <= seen {
        ensure!(goes_on(client, "s1").await? == EndReason::Completed);
    }
    Ok(())
}

fn check(refused: &Rejection, agrees: u64) -> Result<()> {
    ensure!(refused.reason == "CURSOR_DIVERGED", "{refused:?}");
    ensure!(refused.code == tonic::Code::DataLoss, "{refused:?}");
    let named = refused.metadata.get("agrees_through");
    ensure!(
        named.is_some_and(|seq| *seq == agrees.to_string()),
        "{refused:?}"
    );
    let words = format!("read again after {agrees}");
    ensure!(refused.message.contains(&words), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn whose_entries_were_lost_and_replaced_is_told_on_every_stream() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let mut watcher = Watcher::caught_up(&recorded).await?;
    let last = watcher.last()?.clone();
    let kept = last.seq - LOST;
    lose_and_go_on(&mut recorded, kept, last.seq).await?;

    check(&watcher.refused().await?, kept)?;
    let client = &recorded.scene.client;
    for direction in [ReadDirection::Forward, ReadDirection::Backward] {
        let request = ReadEntriesRequest {
            session_id: "s1".to_owned(),
            direction: direction.into(),
            after_seq: last.seq,
            after_epoch: Some(last.epoch),
            ..ReadEntriesRequest::default()
        };
        let first = client.read_entries(request).next().await;
        check(&scene::refusal(first.context("a word")?)?, kept)?;
    }
    let talk = client.converse(Opening::Attach {
        session_id: "s1".to_owned(),
        after_seq: last.seq,
        after_mark: Some(EntryMark::from(&last)),
    });
    check(&refused_talk(talk).await?, kept)?;

    // A seq alone is led past what was replaced: it does not say what its client saw.
    let mut bare = client.watch("s1", last.seq);
    let first = bare.next().await.context("an item")??;
    ensure!(
        matches!(&first, WatchEvent::Entry(entry) if entry.seq == last.seq + 1),
        "{first:?}"
    );

    // The way out that the words name: what is left is the same, and what replaced the rest comes.
    let agreed = &watcher.seen[usize::try_from(kept)? - 1];
    let mut again = client.watch_with(
        "s1",
        WatchOptions {
            after_seq: kept,
            after_mark: Some(EntryMark::from(agreed)),
            deltas: false,
            ..WatchOptions::default()
        },
    );
    let WatchEvent::Entry(next) = again.next().await.context("an entry")?? else {
        bail!("an entry comes first");
    };
    ensure!(
        (next.seq, next.epoch) == (kept + 1, last.epoch + 1),
        "{next:?}"
    );
    Ok(())
}

async fn refused_talk(mut talk: Conversation) -> Result<Rejection> {
    loop {
        match talk.next().await.context("a word")? {
            Ok(ConverseEvent::Watch(WatchEvent::Entry(entry))) => {
                bail!("it goes on with {}", entry.seq)
            }
            Ok(_) => {}
            Err(Error::Rejected(rejection)) => return Ok(*rejection),
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::test]
async fn an_attach_that_was_lost_too_gives_its_epoch_to_nobody_unseen() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    recorded.crash().await?;
    ensure!(goes_on(&recorded.scene.client, "s1").await? == EndReason::Completed);
    let mut watcher = Watcher::caught_up(&recorded).await?;
    let last = watcher.last()?.clone();
    let first = watcher
        .seen
        .iter()
        .find(|entry| entry.epoch == last.epoch)
        .context("an attach")?;
    let kept = first.seq - 1;
    lose_and_go_on(&mut recorded, kept, last.seq).await?;

    let log = scene::log(&recorded.scene.client, "s1").await?;
    let there = &log[usize::try_from(last.seq)? - 1];
    ensure!(
        there.epoch == last.epoch && there != &last,
        "another entry of the same epoch: {there:?}"
    );
    check(&watcher.refused().await?, kept)
}
