//! One fault at a time, at every place that it can hit: syncs, room, power, another writer.

use super::fixture::*;
use super::*;
use crate::disk::sim::{Dice, Plan, SimDisk};

/// What a life does that is to survive any fault: appends, filing, a blob, a removal, a checkpoint.
struct Scene {
    disk: SimDisk,
    /// Appends to "stays" that were acknowledged.
    acked: u64,
    /// What the removal of "goes" was answered, if it was.
    removed: Option<Result<bool, LogError>>,
    blob: Option<BlobRef>,
    failed: bool,
}

fn scene(plan: Plan) -> Scene {
    let disk = filed(&["stays", "goes", "goes"]);
    disk.plan(plan);
    let mut scene = Scene {
        acked: 1,
        removed: None,
        blob: None,
        failed: false,
        disk,
    };
    if let Ok(parts) = start(&scene.disk) {
        scene.play(parts);
    }
    scene
}

impl Scene {
    fn play(&mut self, mut parts: Parts) {
        for round in 0..3 {
            self.append(&mut parts);
            parts.engine.file_pass(&mut parts.filer);
            if round == 1 {
                let payload = Bytes::from_static(b"a payload");
                self.blob = parts.engine.put_blob(&key("stays"), payload).ok();
                self.remove(&mut parts);
            }
        }
        let last = parts.writer.segment().number;
        parts.engine.filing.push_segment(last);
        parts.engine.file_pass(&mut parts.filer);
        self.failed = parts.engine.failed().is_some();
        if self.failed {
            let before = self.acked;
            self.append(&mut parts);
            assert_eq!(self.acked, before, "acknowledged after a failure");
        }
    }

    fn append(&mut self, parts: &mut Parts) {
        let stream = parts.engine.stream(&key("stays"));
        if parts.engine.load(&stream).is_ok() && append(parts, "stays").is_ok() {
            self.acked += 1;
        }
    }

    fn remove(&mut self, parts: &mut Parts) {
        let stream = parts.engine.stream(&key("goes"));
        if parts.engine.load(&stream).is_err() {
            return;
        }
        let (done, mut answer) = oneshot::channel();
        let removal = Removal { stream, done };
        let (writer, filer) = (&mut parts.writer, &mut parts.filer);
        parts.engine.write_tombstones(writer, vec![removal]);
        parts.engine.file_pass(filer);
        self.removed = answer.try_recv().ok();
    }

    /// What a start without faults finds.
    fn check(&self, what: &str) {
        let parts = start(&self.disk).unwrap();
        assert_eq!(parts.report.corrupt, [], "{what}");
        let stays = seqs(&self.disk, "stays").len() as u64;
        assert!(stays >= self.acked, "{what}: {stays} of {}", self.acked);
        let goes = seqs(&self.disk, "goes").len();
        let gone = self.removed == Some(Ok(true));
        assert!(goes == 0 || goes == 2 && !gone, "{what}: {goes} are left");
        if let Some(blob) = &self.blob {
            let found = parts.engine.get_blob(&key("stays"), blob);
            assert_eq!(found, Ok(Bytes::from_static(b"a payload")), "{what}");
        }
    }
}

#[test]
fn a_sync_that_fails_anywhere_is_the_end() {
    let (mut n, mut failures) = (0, 0);
    loop {
        n += 1;
        let failing_sync = Some(n);
        let scene = scene(Plan {
            failing_sync,
            ..Plan::default()
        });
        if scene.removed == Some(Ok(true)) && !scene.failed {
            assert_eq!(scene.acked, 4, "sync {n}");
            break;
        }
        failures += u64::from(scene.failed);
        assert!(
            scene.failed || scene.acked == 1,
            "sync {n} failed, and the log goes on"
        );
        scene.disk.power_cycle(&mut Dice::new(n));
        scene.check(&format!("sync {n}"));
    }
    assert!(failures > 15, "{failures}");
}

#[test]
fn the_power_may_go_at_any_operation() {
    let mut cuts = 0;
    for cut in 1.. {
        for dice in 0..4 {
            let power_cut_at = Some(cut);
            let scene = scene(Plan {
                power_cut_at,
                ..Plan::default()
            });
            let over = scene.disk.operations() < cut;
            scene.disk.power_cycle(&mut Dice::new(dice));
            scene.check(&format!("operation {cut}, dice {dice}"));
            if over {
                assert!(cuts > 300, "{cuts}");
                return;
            }
            cuts += 1;
        }
    }
}

#[test]
fn a_disk_may_fill_up_at_any_byte() {
    let used: usize = {
        let disk = filed(&["stays", "goes", "goes"]);
        let paths = disk.paths();
        paths
            .iter()
            .filter_map(|p| Some(disk.content(p)?.len()))
            .sum()
    };
    let mut refused = 0;
    for capacity in (used as u64..used as u64 + 5000).step_by(if full() { 1 } else { 23 }) {
        let scene = scene(Plan {
            capacity: Some(capacity),
            ..Plan::default()
        });
        assert!(!scene.failed, "{capacity}: a full disk is not the end");
        refused += u64::from(scene.acked < 4);
        scene.disk.kill();
        scene.check(&format!("{capacity} bytes"));
        let mut parts = start(&scene.disk).map(Some).unwrap_or_default();
        if let Some(parts) = &mut parts {
            append(parts, "stays").unwrap();
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_journal_that_something_else_writes_to_stops_the_log() {
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [(&str, Spoil); 3] = [
        ("longer", |content| content.push(b'\n')),
        ("shorter", |content| content.truncate(content.len() - 5)),
        ("not a whole line", |content| {
            let last = content.len() - 1;
            content[last] = b'x';
        }),
    ];
    for (name, change) in spoils {
        let disk = SimDisk::default();
        let mut parts = start(&disk).unwrap();
        append(&mut parts, "s1").unwrap();
        let mut content = disk.content(&segment()).unwrap();
        change(&mut content);
        let file = parts.writer.segment().file.clone();
        file.cut(0).unwrap();
        crate::disk::append_all(&*file, &[&content]).unwrap();
        let refused = append(&mut parts, "s1").unwrap_err();
        assert!(
            refused.to_string().contains("something else"),
            "{name}: {refused}"
        );
        assert!(parts.engine.failed().is_some(), "{name}");
    }
}

#[test]
fn starts_that_get_no_further_do_not_pile_up_segments() {
    let disk = SimDisk::default();
    let layout = path::Layout::new("/state".into());
    let mut most = 0;
    for n in 1..=40 {
        let mut parts = start(&disk).unwrap();
        assert_eq!(append(&mut parts, "s1"), Ok(n));
        most = most.max(layout.segments(&disk).unwrap().len());
        drop(parts);
        disk.kill();
    }
    assert!((5..=10).contains(&most), "{most}");
}
