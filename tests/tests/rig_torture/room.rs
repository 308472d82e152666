//! No room: the real server on a tmpfs of a few pages, one page more each time, so that every write
//! that needs one meets the end of it.
//!
//! A refused command says so in words, nothing acknowledged is lost, and once there is room the server
//! goes on, or, where it could not start, starts.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use loopwright_client::Error;
use loopwright_tests::{
    kit::{Options, Server},
    rig::{
        self, Outcome,
        clients::{self as life, Clients, PATIENCE},
        mount::Mount,
    },
};

/// Loops that are tried, and the bytes of their messages.
const LOOPS: usize = 6;
const BYTES: usize = 6_000;
/// Room of the first start, in pages, and room beyond what a killed server has left.
const PAGES: [u64; 2] = [26, 8];
const PAGE: u64 = 4096;
/// The words of the system for a full disk.
const NO_ROOM: &str = "No space left on device";

/// The room of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// So many pages in all.
    Pages(u64),
    /// So many pages more than the journal takes that a killed server has left.
    Beyond(u64),
    /// So many files and directories in all.
    Files(u64),
}

/// Why there can be no file system here, if so.
pub(super) fn refused() -> Option<String> {
    let dir = tempfile::tempdir().ok()?;
    Mount::tmpfs(dir.path(), "size=4k")
        .err()
        .map(|error| format!("{error:#}"))
}

/// All sizes that are tried.
pub(super) fn rooms() -> Vec<Room> {
    let [first, beyond] = PAGES.map(|pages| if rig::is_full() { pages * 3 } else { pages });
    let pages = (1..=first).map(Room::Pages);
    let files = (2..=first).step_by(2).map(Room::Files);
    pages
        .chain(files)
        .chain((0..=beyond).map(Room::Beyond))
        .collect()
}

/// One life in so much room.
pub(super) async fn run(room: Room, options: &Options, outcome: &mut Outcome) {
    outcome.count("rooms", 1);
    let done = live(room, options, outcome).await;
    outcome.take(&format!("{room:?}"), done);
}

async fn live(room: Room, options: &Options, outcome: &mut Outcome) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path();
    let log = dir.join("log");
    std::fs::create_dir(&log)?;
    let mount = Mount::tmpfs(&log, "size=16m")?;
    let mut clients = None;
    let limit = match room {
        Room::Pages(pages) => format!("size={}", pages * PAGE),
        Room::Files(files) => format!("nr_inodes={files}"),
        Room::Beyond(pages) => {
            clients = Some(killed(options, dir).await?);
            format!("size={}", used(&log)? + pages * PAGE)
        }
    };
    mount.again(&limit)?;
    let server = match life::start(options, dir).await {
        Ok(server) => server,
        Err(error) => {
            let words = format!("{error:#}");
            outcome.count("starts_refused", 1);
            outcome.expect(words.contains(NO_ROOM), || {
                format!("{room:?}: the start does not say why it failed: {words}")
            });
            mount.again("size=16m,nr_inodes=10000")?;
            life::start(options, dir)
                .await
                .context("the start with room")?
        }
    };
    let mut clients = match clients {
        Some(clients) => clients,
        None => Clients::of(&server)?,
    };
    clients.moved(&server)?;
    let server = meet_the_end(server, &mut clients, &mount, room, outcome).await?;
    clients.judge(outcome).await?;
    let (code, words) = life::terminate(server).await?;
    outcome.expect(code == 0, || {
        format!("{room:?}: ended with {code}: {words}")
    });
    // Once more from the disk alone.
    let server = life::start(options, dir).await?;
    clients.moved(&server)?;
    clients.judge(outcome).await?;
    life::terminate(server).await?;
    Ok(())
}

/// Runs loops until there is no room for more, makes room, and sees the server go on.
async fn meet_the_end(
    mut server: Server,
    clients: &mut Clients,
    mount: &Mount,
    room: Room,
    outcome: &mut Outcome,
) -> Result<Server> {
    for _ in 0..LOOPS {
        if let Err(error) = clients.start(BYTES).await {
            outcome.count("commands_refused", 1);
            outcome.take(&format!("{room:?}"), in_words(&error));
        }
    }
    mount.again("size=16m,nr_inodes=10000")?;
    let goes_on = async {
        while let Err(error) = clients.start(BYTES).await {
            ensure!(
                server.ended()?.is_none(),
                "the server ended over a full disk: {}",
                server.stderr()
            );
            ensure!(error.is_transient(), "with room, it says {error}");
            // Between two tries of what a full disk has refused.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, goes_on)
        .await
        .context("with room, no command is taken")??;
    Ok(server)
}

/// A refusal names the log and what is wrong with it, and is one to be tried again.
fn in_words(error: &Error) -> Result<()> {
    let words = error.to_string();
    ensure!(
        error.reason() == Some("LOG_UNAVAILABLE") && words.contains(NO_ROOM),
        "a command is refused with: {error:?}"
    );
    ensure!(
        error.is_transient(),
        "the refusal does not say to try again: {error:?}"
    );
    Ok(())
}

/// What a server that is killed while a loop runs leaves behind.
async fn killed(options: &Options, dir: &Path) -> Result<Clients> {
    let mut server = life::start(options, dir).await?;
    let mut clients = Clients::of(&server)?;
    for _ in 0..2 {
        clients.start(BYTES).await?;
    }
    clients.until_ended().await?;
    server.kill()?;
    Ok(clients)
}

/// Bytes that the files of a file system take.
fn used(dir: &Path) -> Result<u64> {
    let known = rustix::fs::statvfs(dir)?;
    Ok((known.f_blocks - known.f_bfree) * known.f_frsize)
}
