//! The two threads of an open log, from the lock to the last checkpoint.
//!
//! Invariant: the lock is taken before anything is touched and freed after both threads have ended.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::engine::Engine;
use super::filer::Filer;
use super::journal::{Segment, Writer};
use super::path::Layout;
use super::queue::{Stop, Turn};
use super::recover;
use super::report::{OpenError, RecoveryReport};
use super::{JsonlOptions, SyncPolicy};
use crate::disk::{Disk, Lock, LockError, Overlay};

/// What ends with the log.
pub(super) struct Held {
    writer: Option<JoinHandle<u64>>,
    filer: Option<JoinHandle<()>>,
    lock: Option<Lock>,
}

/// The parts of an open log before its threads start.
pub(super) struct Parts {
    pub(super) engine: Arc<Engine>,
    pub(super) writer: Writer,
    pub(super) filer: Filer,
    pub(super) lock: Lock,
    pub(super) report: RecoveryReport,
}

/// Turns a panic of a thread into the end of the log.
struct Watchdog(Arc<Engine>);

impl Parts {
    /// As [`Parts::open`], with every change in memory, no lock taken, and damage no reason to stop.
    pub(super) fn look(below: Arc<dyn Disk>, options: JsonlOptions) -> Result<Parts, OpenError> {
        let options = JsonlOptions {
            accept_damage: true,
            ..options
        };
        Parts::open(Arc::new(Overlay::new(below)), options)
    }

    /// Locks, recovers, and makes the first segment.
    pub(super) fn open(disk: Arc<dyn Disk>, options: JsonlOptions) -> Result<Parts, OpenError> {
        let engine = Arc::new(Engine::new(disk, options));
        let (disk, layout) = (&*engine.disk, &engine.layout);
        let failed = |error| OpenError::io(layout.root(), error);
        recover::make_root(disk, layout).map_err(failed)?;
        let lock = take_lock(disk, layout)?;
        let recovered = recover::recover(disk, layout, engine.options.accept_damage, false)?;
        let segment = Segment::create(disk, layout, recovered.next_segment);
        let segment = segment.map_err(|unkept| failed(unkept.into()))?;
        engine.set_journal(segment.file.clone());
        let report = recovered.report.clone();
        let (writer, filer) = (Writer::new(segment), Filer::new(recovered));
        Ok(Parts {
            engine: engine.clone(),
            writer,
            filer,
            lock,
            report,
        })
    }

    /// Starts the threads.
    pub(super) fn start(self) -> Result<(Arc<Engine>, Held, RecoveryReport), OpenError> {
        let Parts {
            engine,
            writer,
            filer,
            lock,
            report,
        } = self;
        let failed = |error| OpenError::io(engine.layout.root(), error);
        let writer = spawn("log-writer", &engine, |engine| write_on(engine, writer));
        let writer = writer.map_err(failed)?;
        let filer = spawn("log-filer", &engine, |engine| file_on(engine, filer));
        let filer = filer
            .inspect_err(|_| engine.queue.close())
            .map_err(failed)?;
        let held = Held {
            writer: Some(writer),
            filer: Some(filer),
            lock: Some(lock),
        };
        Ok((engine, held, report))
    }
}

impl Held {
    /// Ends the threads in order, then frees the lock.
    pub(super) fn end(&mut self, engine: &Engine, how: Stop) {
        engine.queue.close();
        if let Some(writer) = self.writer.take() {
            if let Ok(last_segment) = writer.join()
                && how == Stop::Clean
            {
                engine.filing.push_segment(last_segment);
            }
            engine.filing.stop(how);
        }
        if let Some(filer) = self.filer.take() {
            // A panic there has been told by the watchdog.
            drop(filer.join());
        }
        self.lock = None;
    }
}

/// Takes the data directory for this process.
pub(super) fn take_lock(disk: &dyn Disk, layout: &Layout) -> Result<Lock, OpenError> {
    disk.lock(&layout.lock()).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked {
            dir: layout.root().into(),
            pid,
        },
        LockError::Io(source) => OpenError::io(&layout.lock(), source),
    })
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = thread::current().name().unwrap_or("unnamed").to_owned();
            self.0.fail(format!("the thread {name} panicked"));
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    engine: &Arc<Engine>,
    work: impl FnOnce(&Arc<Engine>) -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let watchdog = Watchdog(engine.clone());
    thread::Builder::new()
        .name(name.into())
        .spawn(move || work(&watchdog.0))
}

/// The writer's thread: answers the number of the last segment.
fn write_on(engine: &Arc<Engine>, mut writer: Writer) -> u64 {
    while let Some(Turn { batch, removals }) = engine.queue.take() {
        engine.wait_for_room();
        engine.write_batch(&mut writer, batch);
        engine.write_tombstones(&mut writer, removals);
    }
    writer.segment().number
}

fn file_on(engine: &Arc<Engine>, mut filer: Filer) {
    // How often streams are looked over while nothing happens.
    let idle = engine
        .options
        .idle
        .clamp(Duration::from_millis(20), Duration::from_secs(5));
    let gather = match engine.options.sync {
        SyncPolicy::Interval(interval) => interval.min(engine.options.gather),
        SyncPolicy::Always | SyncPolicy::Never => engine.options.gather,
    };
    loop {
        match engine.filing.wait(gather, idle) {
            Some(Stop::AtOnce) => return,
            Some(Stop::Clean) => return engine.file_pass(&mut filer),
            None => {
                engine.file_pass(&mut filer);
                engine.evict();
            }
        }
    }
}
