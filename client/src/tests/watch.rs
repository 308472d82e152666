use std::collections::BTreeMap;

use loopwright_proto::v1::{GoodbyeReason, Heartbeat, delta::Content};
use tonic::{Code, Status};

use super::fake::{Cut, Fake, status};
use super::session::{Step, TEXTS, entry, sample};
use crate::reader::{Item, Reader};
use crate::{Client, EntryMark, Error, Watch, WatchEvent, WatchOptions};

/// What a watcher has in its hands at the end.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) seqs: Vec<u64>,
    /// Text by call and attempt, put together from the deltas without a look at offsets.
    pub(super) texts: BTreeMap<(String, u32), String>,
    pub(super) interruptions: usize,
}

impl Seen {
    pub(super) fn take(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::Entry(entry) => self.seqs.push(entry.seq),
            WatchEvent::Delta(delta) => {
                if let Some(Content::Text(text)) = &delta.content {
                    let key = (delta.call.clone(), delta.attempt);
                    let shown = self.texts.entry(key).or_default();
                    assert_eq!(delta.offset, shown.len() as u64, "a hole or an overlap");
                    shown.push_str(text);
                }
            }
            WatchEvent::Interrupted { .. } => self.interruptions += 1,
            WatchEvent::Heartbeat { .. } => {}
        }
    }

    pub(super) fn assert_whole(&self, how: &str) {
        assert_eq!(self.seqs, (1..=9).collect::<Vec<_>>(), "{how}");
        for (call, attempt, text) in TEXTS {
            let shown = &self.texts[&(call.to_owned(), attempt)];
            assert_eq!(shown, text, "{call} attempt {attempt}, {how}");
        }
    }
}

async fn watched(client: &Client) -> Result<Seen, (Seen, Error)> {
    let options = WatchOptions {
        loop_id: "l1".into(),
        ..WatchOptions::default()
    };
    drain(client.watch_with("s1", options)).await
}

async fn drain(mut watch: Watch) -> Result<Seen, (Seen, Error)> {
    let mut seen = Seen::default();
    while let Some(event) = watch.next().await {
        match event {
            Ok(event) => seen.take(&event),
            Err(error) => {
                assert!(watch.next().await.is_none(), "an error is the last item");
                return Err((seen, error));
            }
        }
    }
    Ok(seen)
}

#[tokio::test]
async fn every_single_cut_loses_and_doubles_nothing() {
    for at in 0..sample().len() {
        for kind in 0..3 {
            let (fake, client) = Fake::serve(sample()).await;
            fake.state().cuts.push_back(match kind {
                0 => Cut::Status(at, Status::unavailable("cut")),
                1 => Cut::End(at),
                _ => Cut::Goodbye(at, GoodbyeReason::Draining),
            });

            let seen = watched(&client).await.unwrap();

            seen.assert_whole(&format!("cut {kind} after {at} items"));
            assert_eq!(seen.interruptions, 1);
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_again_and_again_loses_and_doubles_nothing() {
    for every in 2..6 {
        let (fake, client) = Fake::serve(sample()).await;
        let cuts = (0..40).map(|_| Cut::Status(every, Status::unknown("h2 protocol error")));
        fake.state().cuts.extend(cuts);

        let seen = watched(&client).await.unwrap();

        seen.assert_whole(&format!("cut after every {every} items"));
        assert!(seen.interruptions > 2);
    }
}

#[tokio::test]
async fn silence_without_a_heartbeat_is_a_broken_connection() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state().cuts.extend([Cut::Hang(9), Cut::Hang(0)]);

    let seen = watched(&client).await.unwrap();

    seen.assert_whole("hung twice");
    assert_eq!(seen.interruptions, 2);
    assert_eq!(fake.state().cursors, [0, 5, 5]);
    let fifth = (Some(1), Some(50_000_000));
    assert_eq!(fake.state().marks, [(None, None), fifth, fifth]);
}

#[test]
fn a_heartbeat_says_what_stands_at_the_cursor_that_it_moves() {
    let beat = |complete_through, epoch| {
        Item::Heartbeat(Heartbeat {
            complete_through,
            epoch,
            committed_at: None,
        })
    };
    let mut filtered = Reader::new("", "s1", Some(0), false);
    filtered.take(beat(4, Some(2)));
    assert_eq!((filtered.cursor(), filtered.mark().0), (Some(4), Some(2)));
    filtered.take(beat(6, None));
    assert_eq!((filtered.cursor(), filtered.mark().0), (Some(6), None));

    let mut bare = Reader::new("", "s1", Some(5), true);
    bare.take(beat(5, Some(3)));
    assert_eq!(bare.mark().0, Some(3), "who came with a seq alone");
    bare.take(beat(5, Some(4)));
    assert_eq!(bare.mark().0, Some(3), "who knows is not told otherwise");
}

#[tokio::test]
async fn what_the_server_says_of_the_cursor_is_final() {
    let reasons = [
        (Code::DataLoss, "CURSOR_PAST_TAIL"),
        (Code::DataLoss, "CURSOR_DIVERGED"),
        (Code::OutOfRange, "CURSOR_TRIMMED"),
        (Code::NotFound, "SESSION_NOT_FOUND"),
    ];
    for (code, reason) in reasons {
        let (fake, client) = Fake::serve(sample()).await;
        fake.state()
            .cuts
            .push_back(Cut::Status(2, status(code, reason)));

        let (seen, error) = watched(&client).await.unwrap_err();

        assert_eq!(seen.seqs, [1, 2]);
        assert_eq!((error.code(), error.reason()), (Some(code), Some(reason)));
        let Error::Rejected(rejection) = error else {
            panic!("{error:?}");
        };
        assert_eq!(rejection.metadata["tail_seq"], "7");
        assert_eq!(fake.state().cursors.len(), 1);
    }
}

#[tokio::test]
async fn a_hole_between_entries_is_read_again_and_never_skipped() {
    let mut steps = sample();
    steps.retain(|step| !matches!(step, Step::Entry(entry) if entry.seq == 6));
    let (fake, client) = Fake::serve(steps).await;

    let (seen, error) = watched(&client).await.unwrap_err();

    assert_eq!(seen.seqs, [1, 2, 3, 4, 5]);
    assert!(
        matches!(
            error,
            Error::Gap {
                after: 5,
                got: 7,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(fake.state().cursors, [0, 5, 5]);
}

#[tokio::test]
async fn a_deleted_session_ends_the_watch() {
    let (fake, client) = Fake::serve(sample()).await;
    let cut = Cut::Goodbye(3, GoodbyeReason::SessionDeleted);
    fake.state().cuts.push_back(cut);

    let (seen, error) = watched(&client).await.unwrap_err();

    assert_eq!(seen.seqs, [1, 2, 3]);
    assert!(matches!(error, Error::SessionDeleted { .. }));
}

#[tokio::test]
async fn a_watch_that_begins_in_mid_call_has_the_text_from_its_start() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state().cuts.push_back(Cut::End(2));
    let known = EntryMark {
        epoch: 7,
        committed_at: None,
    };
    let options = WatchOptions {
        after_seq: 5,
        after_mark: Some(known),
        loop_id: "l1".into(),
        ..WatchOptions::default()
    };

    let seen = drain(client.watch_with("s1", options)).await.unwrap();

    assert_eq!(seen.seqs, [6, 7, 8, 9]);
    assert_eq!(seen.texts[&("c1".to_owned(), 2)], "Good morning");
    assert_eq!(fake.state().marks[0], (Some(7), None));
}

#[tokio::test]
async fn a_watch_without_a_loop_outlives_its_loop() {
    let (fake, client) = Fake::serve(sample()).await;
    let mut watch = client.watch("s1", 0);
    let mut last = None;
    while !matches!(
        last,
        Some(WatchEvent::Heartbeat {
            complete_through: 9
        })
    ) {
        last = Some(watch.next().await.unwrap().unwrap());
    }

    fake.state().steps.push(entry(10, vec![]));
    let next = loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Entry(entry) => break entry.seq,
            _ => continue,
        }
    };

    assert_eq!((next, watch.cursor()), (10, 10));
}
