//! Whatever stands in a session's file: verification ends, a repair keeps what it vouched for, and
//! then nothing is wrong.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use loopwright_log::disk::Disk as _;
use loopwright_log::disk::sim::SimDisk;
use loopwright_log::{Fault, StreamKey, repair_stream, verify_stream};

const DIRS: [&str; 5] = [
    "/state",
    "/state/journal",
    "/state/acme",
    "/state/acme/session",
    "/state/acme/session/golden-1",
];

fuzz_target!(|content: &[u8]| {
    let disk = SimDisk::default();
    for dir in DIRS {
        disk.create_dir(Path::new(dir)).expect("a new directory");
    }
    let path = Path::new("/state/acme/session/golden-1/log.jsonl");
    disk.put(path, content);
    let key = StreamKey::parse("session/acme/golden-1").expect("a good key");
    let verdict = verify_stream(&disk, Path::new("/state"), &key).expect("it answers");
    assert_eq!(disk.content(path).as_deref(), Some(content));
    let newer = verdict.fault.as_ref().map(|found| &found.fault);
    if matches!(newer, Some(Fault::Version { .. })) {
        return;
    }
    let repaired = repair_stream(&disk, Path::new("/state"), &key).expect("it repairs");
    assert_eq!(repaired.tail, verdict.good_through);
    let good = usize::try_from(verdict.good_bytes).expect("small");
    assert_eq!(disk.content(path).as_deref(), Some(&content[..good]));
    let again = verify_stream(&disk, Path::new("/state"), &key).expect("it answers");
    assert!(again.is_good(), "{again}");
});
