//! The floor's journal: one writer, group commit, one write and one fdatasync a batch.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
};

use anyhow::Result;
use tokio::sync::oneshot;

/// A journal that acknowledges what is on disk.
#[derive(Clone, Debug)]
pub struct Journal(Sender<(Vec<u8>, oneshot::Sender<()>)>);

impl Journal {
    /// Opens a journal in a file of its own.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(path: &Path, sync: bool) -> Result<Self> {
        let file = File::create(path)?;
        let (sender, receiver) = channel();
        std::thread::spawn(move || write(file, &receiver, sync));
        Ok(Self(sender))
    }

    /// Appends one line; returns once it is durable.
    ///
    /// # Panics
    /// Where the writer has gone: the bench is void.
    pub async fn append(&self, line: Vec<u8>) {
        let (done, wait) = oneshot::channel();
        self.0
            .send((line, done))
            .expect("the journal's writer is there");
        wait.await.expect("the journal's writer acknowledges");
    }
}

fn write(mut file: File, lines: &Receiver<(Vec<u8>, oneshot::Sender<()>)>, sync: bool) {
    let mut batch = Vec::new();
    let mut waiting = Vec::new();
    while let Ok((line, done)) = lines.recv() {
        batch.clear();
        batch.extend_from_slice(&line);
        waiting.push(done);
        while let Ok((line, done)) = lines.try_recv() {
            batch.extend_from_slice(&line);
            waiting.push(done);
        }
        file.write_all(&batch)
            .expect("the floor's disk takes a batch");
        if sync {
            file.sync_data().expect("the floor's disk syncs a batch");
        }
        for done in waiting.drain(..) {
            // A loop that has gone needs no word.
            let _ = done.send(());
        }
    }
}
