//! The n-th sync of the real server fails, as a disk's does: what it was to make durable is gone, and
//! later syncs answer as if nothing had been.
//!
//! A small library, compiled here and preloaded, fails the call and notes all of them; after the server's
//! end the power goes: the rig takes from each file what no good sync has kept. Nothing acknowledged may
//! be missing then, not even what was acknowledged after the failure, for nothing may be.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_tests::{
    kit::{Options, Server},
    rig::{
        self, Chance, Outcome,
        clients::{self as life, Clients, PATIENCE},
    },
    scene,
};

/// Loops that run while syncs fail, and the bytes of their messages: with segments of 64 KiB, more
/// than one checkpoint.
const LOOPS: usize = 8;
const BYTES: usize = 14_000;
/// In CI, all of the first syncs fail, and so many of the later ones.
const FIRST: u64 = 10;
const LATER: usize = 14;
/// How late an answer may come that was given before the failure.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What every run has in common.
#[derive(Clone, Debug)]
pub(super) struct Shim {
    library: PathBuf,
    options: Options,
    /// The sync that fails says that it did not; then the server is killed, before others make good
    /// what it has lost.
    lies: bool,
}

/// One call that the library noted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Noted {
    call: u64,
    at: SystemTime,
    inode: u64,
    /// Bytes of the file; none for a directory.
    bytes: Option<u64>,
    is_good: bool,
    path: String,
}

impl Shim {
    /// Compiles the library.
    pub(super) fn build(dir: &Path) -> Result<Self> {
        let (source, library) = (dir.join("eio.c"), dir.join("eio.so"));
        fs::write(&source, include_str!("eio.c"))?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let built = cc
            .arg(&library)
            .arg(&source)
            .args(["-ldl", "-lpthread"])
            .output();
        let built = built.context("a C compiler, `cc`, is needed")?;
        ensure!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        Ok(Self {
            library,
            options: life::options(dir)?,
            lies: false,
        })
    }

    /// The same, but the sync that fails says that it did not.
    pub(super) fn lying(mut self) -> Self {
        self.lies = true;
        // No checkpoint, which would make good what the journal has lost.
        self.options = self.options.set("session_log.segment_bytes", "64MiB");
        self
    }

    /// A sync of the journal in the midst of a run.
    pub(super) async fn call_of_journal(&self, outcome: &mut Outcome) -> Result<u64> {
        let all = self.run(0, outcome).await?;
        let mut of_journal = all.iter().filter(|noted| {
            noted.path.contains("/journal/") && noted.bytes.is_some_and(|bytes| bytes > 0)
        });
        let noted = of_journal.nth(5).context("no sync of the journal")?;
        Ok(noted.call)
    }

    /// Which syncs are to fail: those that a run makes in which none does.
    pub(super) async fn calls(&self, seed: u64) -> Result<Vec<u64>> {
        let mut outcome = Outcome::new("torture", seed);
        let all = self.run(0, &mut outcome).await?;
        ensure!(outcome.is_ok(), "without a failure: {:?}", outcome.wrongs());
        let calls = all.iter().map(|noted| noted.call).max().unwrap_or(0);
        let places = ["journal", "session/", "checkpoint"];
        for place in places {
            ensure!(
                all.iter().any(|noted| noted.path.contains(place)),
                "nothing of the {place} is synced: {all:?}"
            );
        }
        if rig::is_full() {
            return Ok((1..=calls).collect());
        }
        let mut chance = Chance::new(seed, 101);
        let first = 1..=FIRST.min(calls);
        let later = calls.saturating_sub(FIRST).max(1);
        Ok(first
            .chain((0..LATER).map(|_| FIRST + 1 + chance.below(later)))
            .collect())
    }

    /// One life in which this sync fails, 0 for none; all syncs that were made.
    async fn run(&self, failing: u64, outcome: &mut Outcome) -> Result<Vec<Noted>> {
        let temp = tempfile::tempdir()?;
        let dir = temp.path();
        // A journal that was not filed, so that a start has something to recover.
        let mut server = life::start(&self.options, dir).await?;
        let mut clients = Clients::of(&server)?;
        for _ in 0..2 {
            clients.start(BYTES).await?;
        }
        // Watchers have seen it all: later, they are waited for again.
        scene::eventually("every loop is shown to end", || async {
            Ok(clients.open().is_empty())
        })
        .await?;
        server.kill()?;
        drop(server);

        // What was there before is taken to be on the disk.
        let mut durable = BTreeMap::new();
        each_file(&dir.join("log"), &mut |path| {
            let known = fs::metadata(path)?;
            durable.insert(known.ino(), known.len());
            Ok(())
        })?;

        let note = dir.join("syncs");
        let mut options = self.options.clone();
        options.env.extend(self.told(failing, dir, &note));
        if self.lies {
            options
                .env
                .insert("RIG_EIO_LIES".to_owned(), "1".to_owned());
        }
        let (code, words) = match life::start(&options, dir).await {
            Ok(server) => live(server, &mut clients, &note, self.lies).await?,
            Err(error) => (-1, format!("{error:#}")),
        };
        let notes = read_notes(&note)?;
        if let Some(failed) = notes.iter().find(|noted| !noted.is_good) {
            let place = format!("sync {failing} of {}", failed.path);
            judge_end(&place, failed, (code, &words), &clients, outcome);
            // Of the file that was hit, nothing that comes later counts: there is a hole before it.
            let counts = |noted: &&Noted| {
                noted.is_good && (noted.inode != failed.inode || noted.call < failed.call)
            };
            for noted in notes.iter().filter(counts) {
                durable.extend(noted.bytes.map(|bytes| (noted.inode, bytes)));
            }
            lose_power(&dir.join("log"), &durable)?;
        } else {
            outcome.expect(code == 0, || format!("nothing failed, {code}: {words}"));
        }
        let server = life::start(&self.options, dir)
            .await
            .context("the start after it")?;
        clients.moved(&server)?;
        clients.judge(outcome).await?;
        let (code, words) = life::terminate(server).await?;
        outcome.expect(code == 0, || {
            format!("the start after it ended with {code}: {words}")
        });
        Ok(notes)
    }

    /// What the library is told by the environment.
    fn told(&self, failing: u64, dir: &Path, note: &Path) -> [(String, String); 4] {
        let told = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("RIG_EIO_DIR", dir.join("log").display().to_string()),
            ("RIG_EIO_AT", failing.to_string()),
            ("RIG_EIO_NOTE", note.display().to_string()),
        ];
        told.map(|(name, value)| (name.to_owned(), value))
    }

    /// One life in which this sync fails.
    pub(super) async fn fail(&self, failing: u64, outcome: &mut Outcome) {
        let done = self.run(failing, outcome).await;
        outcome.take(&format!("sync {failing}"), done.map(drop));
    }
}

/// Runs loops until all have ended or the server has; its exit code, and what it said.
async fn live(
    mut server: Server,
    clients: &mut Clients,
    note: &Path,
    lies: bool,
) -> Result<(i32, String)> {
    clients.moved(&server)?;
    for _ in 0..LOOPS {
        if clients.start(BYTES).await.is_err() {
            break;
        }
    }
    let ended = async {
        loop {
            if let Some(status) = server.ended()? {
                let code = status.code().context("ended by a signal")?;
                return Ok((code, server.stderr()));
            }
            let has_failed = read_notes(note)?.iter().any(|noted| !noted.is_good);
            if lies && clients.open().is_empty() {
                server.kill()?;
                return Ok((-1, "Input/output error".to_owned()));
            }
            if has_failed && !lies {
                // It is to end; until then, it must not acknowledge anything.
                let _ = clients.start(10).await;
            } else if clients.open().is_empty() {
                return life::terminate(server).await;
            }
            // Between two looks at a process and a file, neither of which calls.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, ended).await {
        Ok(ended) => ended,
        Err(_) => {
            let said = fs::read_to_string(note.with_file_name("stderr.log"))?;
            let open = clients.open();
            bail!("the server neither ended nor did its work: {open:?}: {said}")
        }
    }
}

fn read_notes(path: &Path) -> Result<Vec<Noted>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(Noted::parse).collect()
}

impl Noted {
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let [call, at, inode, bytes, verdict, path] = words[..] else {
            bail!("`{line}` is no note");
        };
        Ok(Self {
            call: call.parse()?,
            at: UNIX_EPOCH + Duration::from_nanos(at.parse()?),
            inode: inode.parse()?,
            bytes: bytes.parse().ok(),
            is_good: verdict == "ok",
            path: path.to_owned(),
        })
    }
}

/// The power goes: of each file there stays what the last good sync has kept.
fn lose_power(dir: &Path, durable: &BTreeMap<u64, u64>) -> Result<()> {
    each_file(dir, &mut |path| {
        let known = fs::metadata(path)?;
        let kept = durable.get(&known.ino()).copied().unwrap_or(0);
        let file = fs::File::options().write(true).open(path)?;
        Ok(file.set_len(kept.min(known.len()))?)
    })
}

fn each_file(dir: &Path, what: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            each_file(&path, what)?;
        } else {
            what(&path)?;
        }
    }
    Ok(())
}

/// A failed sync is the end, in words, and nothing is acknowledged after it.
fn judge_end(
    place: &str,
    failed: &Noted,
    (code, words): (i32, &str),
    clients: &Clients,
    outcome: &mut Outcome,
) {
    outcome.count("failed_syncs", 1);
    outcome.expect(code != 0, || format!("{place}: the server ended with 0"));
    outcome.expect(words.contains("Input/output error"), || {
        format!("{place}: nothing was said of it: {words}")
    });
    let late = failed.at + UNDER_WAY;
    outcome.expect(clients.last_ack.is_none_or(|last| last < late), || {
        format!("{place}: commands were acknowledged afterwards")
    });
}
