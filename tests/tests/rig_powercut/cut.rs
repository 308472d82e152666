//! One image, the server on it, and what a copy of it is worth.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::{
    kit::{Options, Server},
    rig::{
        Chance, Outcome,
        clients::{self, Clients},
        mount::{self, Mount},
    },
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Size of the image.
const IMAGE: u64 = 64 << 20;
/// No commit of the file system but those that a sync asks for: what is copied is one moment's.
const QUIET: &str = "commit=600";
/// Time that clients have until a cut, milliseconds.
const LONGEST_MS: u64 = 1_200;
/// Largest message.
const LARGEST: u64 = 12_000;

/// A server on an ext4 of its own.
pub(super) struct World {
    clients: Clients,
    server: Server,
    options: Options,
    // Dropped after the server.
    _mount: Mount,
    temp: tempfile::TempDir,
}

impl World {
    /// Whether there can be one here; or why not.
    pub(super) fn can_be() -> Result<()> {
        let temp = tempfile::tempdir()?;
        image(&temp.path().join("image"))?;
        let dir = temp.path().join("log");
        fs::create_dir(&dir)?;
        Mount::image(&temp.path().join("image"), &dir, QUIET).map(drop)
    }

    /// Makes the image and starts the server, with this policy of syncs.
    pub(super) async fn start(sync: &str) -> Result<Self> {
        let temp = tempfile::tempdir()?;
        let image_path = temp.path().join("image");
        image(&image_path)?;
        let dir = temp.path().join("first");
        fs::create_dir_all(dir.join("log"))?;
        let mount = Mount::image(&image_path, &dir.join("log"), QUIET)?;
        let options = clients::options(temp.path())?.set("session_log.sync", sync);
        let server = clients::start(&options, &dir).await?;
        Ok(Self {
            clients: Clients::of(&server)?,
            server,
            options,
            _mount: mount,
            temp,
        })
    }

    /// Stops the server at a random moment, and holds what clients were told against a copy.
    pub(super) async fn cut(&mut self, chance: &mut Chance, outcome: &mut Outcome) -> Result<()> {
        let moment = Duration::from_millis(chance.below(LONGEST_MS));
        let talk = async {
            loop {
                let bytes = usize::try_from(chance.below(LARGEST)).unwrap_or(0);
                if let Err(error) = self.clients.start(bytes).await {
                    return error;
                }
            }
        };
        // A command that is on its way then was not answered, and counts for nothing.
        if let Ok(error) = tokio::time::timeout(moment, talk).await {
            return Err(error).context("a command is refused");
        }
        stop(&self.server).await?;
        let copied = self.judge_copy(outcome).await;
        signal(&self.server, Signal::CONT)?;
        self.clients.moved(&self.server)?;
        copied
    }

    /// The server on the image itself ends in order, and nothing is missing there either.
    pub(super) async fn end(mut self, outcome: &mut Outcome) -> Result<()> {
        self.clients.judge(outcome).await?;
        let (code, words) = clients::terminate(self.server).await?;
        outcome.expect(code == 0, || format!("ended with {code}: {words}"));
        Ok(())
    }

    async fn judge_copy(&mut self, outcome: &mut Outcome) -> Result<()> {
        let image = self.temp.path().join("copy");
        // What the loop device has been given, and not what the file system still keeps to itself.
        fs::copy(self.temp.path().join("image"), &image)?;
        let dir = self.temp.path().join("second");
        fs::create_dir_all(dir.join("log"))?;
        let mount = Mount::image(&image, &dir.join("log"), QUIET)?;
        let server = clients::start(&self.options, &dir)
            .await
            .context("on the copy")?;
        self.clients.moved(&server)?;
        self.clients.judge(outcome).await.context("on the copy")?;
        let (code, words) = clients::terminate(server).await?;
        outcome.expect(code == 0, || {
            format!("on the copy: ended with {code}: {words}")
        });
        drop(mount);
        fs::remove_file(&image)?;
        Ok(())
    }
}

/// An empty ext4.
fn image(path: &Path) -> Result<()> {
    File::create(path)?.set_len(IMAGE)?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]);
    mount::done(mkfs.arg(path))
}

/// Returns once none of its threads runs: a signal is taken when a thread gets to it, and one that is in a
/// sync ends that first, so an image that is copied meanwhile would be of many moments.
async fn stop(server: &Server) -> Result<()> {
    signal(server, Signal::STOP)?;
    let of = WaitId::Pid(pid(server)?);
    // What is seen is left for whoever waits for the process.
    let seen = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let state = tokio::task::spawn_blocking(move || waitid(of, seen)).await??;
    let stopped = state.is_some_and(|state| state.stopped());
    ensure!(stopped, "the server has ended by itself");
    Ok(())
}

fn signal(server: &Server, signal: Signal) -> Result<()> {
    Ok(kill_process(pid(server)?, signal)?)
}

fn pid(server: &Server) -> Result<Pid> {
    let pid = i32::try_from(server.pid())?;
    Pid::from_raw(pid).context("a process has an id")
}
