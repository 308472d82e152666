//! Whatever stands in the journal: a look changes nothing, a start answers, and after it a second
//! start finds nothing to complain of.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use loopwright_log::disk::Disk as _;
use loopwright_log::disk::sim::SimDisk;
use loopwright_log::{JsonlLog, JsonlOptions, OpenError, RecoveryReport};

fuzz_target!(|segment: &[u8]| {
    let disk = SimDisk::default();
    for dir in ["/state", "/state/journal"] {
        disk.create_dir(Path::new(dir)).expect("a new directory");
    }
    let path = Path::new("/state/journal/0000000001.jsonl");
    disk.put(path, segment);
    let looked = JsonlLog::open_read_only_on(Arc::new(disk.clone()), Path::new("/state"));
    assert_eq!(disk.content(path).as_deref(), Some(segment));
    let first = start(&disk, true);
    match (&looked, &first) {
        (Ok((_, looked)), Ok(first)) => assert_eq!(looked.corrupt, first.corrupt),
        (Err(OpenError::NewerVersion { .. }), Err(OpenError::NewerVersion { .. })) => return,
        (looked, first) => panic!("{:?} {first:?}", looked.as_ref().map(|(_, report)| report)),
    }
    let second = start(&disk, false).expect("what one start leaves, the next one opens");
    assert!(second.is_clean(), "{second:?}");
});

fn start(disk: &SimDisk, accept_damage: bool) -> Result<RecoveryReport, OpenError> {
    let options = JsonlOptions {
        accept_damage,
        ..JsonlOptions::new("/state")
    };
    let (log, report) = JsonlLog::open_on(Arc::new(disk.clone()), options)?;
    drop(log);
    Ok(report)
}
