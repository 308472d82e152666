//! What a segment tells: good, torn, rotten, and changed at random.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::record::{NewRecord, Timestamp};

/// Three batches of two records, each begun by a barrier.
fn segment() -> Vec<u8> {
    let key = StreamKey::parse("session/a/s").unwrap();
    let (mut bytes, mut prev) = (Vec::new(), 0);
    for seq in 1..=6 {
        if seq % 2 == 1 {
            bytes.extend_from_slice(BARRIER);
        }
        let new = NewRecord::new(Timestamp::default(), 1, Bytes::from_static(b"{\"x\":1}"));
        let record = Record::encode(&key, seq, &new, prev);
        prev = record.crc;
        bytes.extend_from_slice(record.raw());
    }
    bytes
}

fn line(bytes: &[u8], seq: usize) -> usize {
    let mut starts = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"{\"v\":1"));
    starts.nth(seq - 1).unwrap()
}

fn seqs(scan: &Scan) -> Vec<Seq> {
    scan.records.iter().map(|record| record.seq).collect()
}

#[test]
fn a_good_segment_is_read_whole() {
    let scan = scan(&segment().into(), true).unwrap();
    assert_eq!(
        (seqs(&scan), scan.bad, scan.torn_from),
        ((1..=6).collect(), vec![], None)
    );
}

#[test]
fn bad_bytes_in_the_last_batch_are_a_torn_tail() {
    let good = segment();
    for cut in line(&good, 5) + 1..good.len() {
        let scan = scan(&good[..cut].to_vec().into(), true).unwrap();
        let torn = if cut >= line(&good, 6) { 6 } else { 5 };
        let whole = cut == line(&good, torn);
        assert_eq!(
            seqs(&scan),
            (1..torn as u64).collect::<Vec<_>>(),
            "cut at {cut}"
        );
        assert_eq!(
            scan.torn_from,
            (!whole).then_some(line(&good, torn)),
            "cut at {cut}"
        );
    }
    // A hole: the second record of the batch made it to the disk, the first did not.
    let mut holed = good.clone();
    holed[line(&good, 5) + 3] = 0;
    let scan = scan(&holed.into(), true).unwrap();
    assert_eq!(
        (seqs(&scan), scan.torn_from),
        (vec![1, 2, 3, 4], Some(line(&good, 5)))
    );
}

#[test]
fn bad_bytes_before_an_acknowledged_batch_are_rot() {
    let mut rotten = segment();
    let at = line(&rotten, 3);
    rotten[at + 20] ^= 1;
    let bytes: Bytes = rotten.into();
    let found = scan(&bytes, true).unwrap();
    assert_eq!((seqs(&found), found.torn_from), (vec![1, 2, 4, 5, 6], None));
    assert_eq!(found.bad.len(), 1);
    let traces = traces(&bytes[found.bad[0].clone()]);
    assert_eq!((traces.heads.len(), traces.prevs.len()), (1, 1));
}

/// A byte that became a newline makes two bad lines of one record: one stretch, which its head names.
#[test]
fn bad_lines_that_touch_are_one_stretch() {
    let mut rotten = segment();
    let (at, next) = (line(&rotten, 3), line(&rotten, 4));
    rotten[at + 20] = b'\n';
    let found = scan(&rotten.into(), true).unwrap();
    let stretches: Vec<_> = found.bad.iter().map(|bad| (bad.start, bad.end)).collect();
    assert_eq!((stretches, found.torn_from), (vec![(at, next)], None));
}

#[test]
fn a_segment_that_is_not_the_last_cannot_be_torn() {
    let good = segment();
    let found = scan(&good[..good.len() - 3].to_vec().into(), false).unwrap();
    assert_eq!((found.torn_from, found.bad.len()), (None, 1));
}

#[test]
fn a_newer_version_is_refused() {
    let covered = "{\"v\":3,\"prev\":\"00000000\"";
    let line = format!(
        "\n{covered},\"crc\":\"{:08x}\"}}\n",
        crc32c::crc32c(covered.as_bytes())
    );
    assert_eq!(scan(&line.into(), true).unwrap_err(), 3);
}

/// One change to the bytes of a segment.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Delete(Index, usize),
    Insert(Index, Vec<u8>),
    Double(Index, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = |index: &Index| index.index(bytes.len());
        match self {
            Change::Flip(index, bit) => {
                let at = at(index);
                bytes[at] ^= 1 << (bit % 8);
            }
            Change::Cut(index) => bytes.truncate(at(index)),
            Change::Delete(index, len) => {
                let at = at(index);
                let end = bytes.len().min(at + len);
                bytes.drain(at..end);
            }
            Change::Insert(index, new) => {
                let at = at(index);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Double(index, len) => {
                let at = at(index);
                let part = bytes[at..bytes.len().min(at + len)].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => index().prop_map(Change::Cut),
        2 => (index(), 1..400_usize).prop_map(|(at, len)| Change::Delete(at, len)),
        2 => (index(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, new)| Change::Insert(at, new)),
        1 => (index(), 1..400_usize).prop_map(|(at, len)| Change::Double(at, len)),
    ]
}

proptest! {
    /// Whatever happens to a segment: what is handed out was written, in the order of the bytes,
    /// and every byte that is not is accounted for.
    #[test]
    fn a_changed_segment_hands_out_only_what_was_written(
        changes in prop::collection::vec(change(), 0..4),
        is_last in any::<bool>(),
    ) {
        let good = segment();
        let written: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
        let mut bytes = good.clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        let bytes = Bytes::from(bytes);
        let found = scan(&bytes, is_last).unwrap();
        let end = found.torn_from.unwrap_or(bytes.len());
        prop_assert!(end <= bytes.len());
        prop_assert!(is_last || found.torn_from.is_none());
        let mut at = 0;
        let mut bad = found.bad.iter().peekable();
        let mut records = found.records.iter();
        while at < end {
            if let Some(range) = bad.next_if(|range| range.start == at) {
                prop_assert!(range.end > at && range.end <= end);
                at = range.end;
            } else if bytes[at] == b'\n' {
                at += 1;
            } else {
                let record = records.next().expect("a record begins here");
                prop_assert!(bytes[at..].starts_with(record.raw()));
                prop_assert!(written.contains(&record.raw()));
                at += record.raw().len();
            }
        }
        prop_assert!(bad.next().is_none() && records.next().is_none());
        if changes.is_empty() {
            prop_assert_eq!((seqs(&found), found.torn_from), ((1..=6).collect(), None));
        }
    }
}
