//! One stream: what it does not take, and when its state may leave memory.

use super::fixture::*;
use super::*;
use crate::disk::sim::SimDisk;
use crate::error::BlobError;
use crate::record::{Record, Timestamp};

#[test]
fn a_stream_takes_a_record_that_fits_to_the_byte() {
    let size = {
        let mut parts = start(&SimDisk::default()).unwrap();
        append(&mut parts, "s").unwrap();
        append(&mut parts, "s").unwrap();
        parts.engine.stream(&key("s")).acked().bytes
    };
    for (limit, fits) in [(size, true), (size - 1, false)] {
        let options = JsonlOptions {
            session_bytes: limit,
            ..options()
        };
        let mut parts = Parts::open(Arc::new(SimDisk::default()), options).unwrap();
        append(&mut parts, "s").unwrap();
        let expected = match fits {
            true => Ok(2),
            false => Err(AppendError::TooLarge { size, limit }),
        };
        assert_eq!(append(&mut parts, "s"), expected, "limit {limit} of {size}");
    }
}

#[test]
fn nothing_is_written_under_a_name_that_is_being_removed() {
    let disk = SimDisk::default();
    let mut parts = start(&disk).unwrap();
    append(&mut parts, "s").unwrap();
    append(&mut parts, "s").unwrap();
    let stream = parts.engine.stream(&key("s"));
    let (done, mut removed) = oneshot::channel();
    let removal = vec![Removal { stream, done }];
    parts.engine.write_tombstones(&mut parts.writer, removal);

    let journal = disk.content(&segment()).unwrap();
    let lines = journal.split_inclusive(|byte| *byte == b'\n');
    let records: Vec<Record> = lines
        .filter_map(|line| Record::decode(Bytes::copy_from_slice(line)).ok())
        .collect();
    let [_, last, tombstone] = &records[..] else {
        panic!("{records:?}")
    };
    assert!(tombstone.is_tombstone());
    assert_eq!(tombstone.follows(last.seq, last.crc), Ok(()));

    // Who had it open has lost it; who comes anew is to come again.
    let lost = append_after(&mut parts, "s", 2);
    assert_eq!(lost, Err(AppendError::Conflict { tail: 0 }));
    let anew = append_after(&mut parts, "s", 0);
    assert!(
        matches!(anew, Err(AppendError::Unavailable { .. })),
        "{anew:?}"
    );
    let blob = parts.engine.put_blob(&key("s"), "payload".into());
    assert!(
        matches!(blob, Err(BlobError::Unavailable { .. })),
        "{blob:?}"
    );

    assert!(parts.engine.stats().unfiled_bytes > 0);
    parts.engine.file_pass(&mut parts.filer);
    assert_eq!(removed.try_recv().unwrap(), Ok(true));
    assert_eq!(parts.engine.stats().unfiled_bytes, 0);
    assert_eq!(append(&mut parts, "s"), Ok(1));
}

#[test]
fn what_is_not_in_the_file_yet_stays_in_memory() {
    let stream = stream::Stream::new(key("s"));
    stream.load(stream::Mark::default(), 0);
    assert!(stream.is_idle(0, 0));
    let new = NewRecord::new(Timestamp::default(), 1, Bytes::from_static(b"{}"));
    let (record, mark) = stream.admit(0, &new, u64::MAX).unwrap();
    assert!(!stream.is_idle(0, 0), "on its way to the journal");
    stream.acknowledge(record, mark, &[]);
    assert!(!stream.is_idle(0, 0), "queued for filing");
    stream.begin_filing();
    assert!(!stream.is_idle(0, 0), "being filed");
    stream.set_filed(mark);
    assert!(!stream.is_idle(9, 10), "asked for lately");
    assert!(stream.is_idle(10, 10));
}
