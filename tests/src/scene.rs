//! A server with scripted models, and what black-box tests ask of it.
//!
//! Boundary: the public client and the real binary. Invariant: whatever waits here waits for an entry
//! or a condition, and gives up after [`PATIENCE`].

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_client::{Client, ClientOptions, Error, Rejection, WatchEvent, WatchOptions};
use loopwright_proto::v1::{
    Agent, Entry, LoopEnded, ReadEntriesRequest, StartLoopRequest, UnknownPolicy,
    UnknownResolution, event::Kind, start_loop_request::Input,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::kit::{self, Options, Server};

/// How long anything may take that is to happen at once, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server with scripted models, and a client of it.
#[derive(Debug)]
pub struct Scene {
    /// The server.
    pub server: Server,
    /// A client that tries nothing again.
    pub client: Client,
    _scripts: tempfile::TempDir,
}

/// What a server is started with: models by alias, and other keys.
#[derive(Debug)]
pub struct Stage {
    /// Everything but the data directory.
    pub options: Options,
    scripts: tempfile::TempDir,
}

impl Stage {
    /// Models by alias, each with its script; the first one is `loop.model`. Scripts say the same again
    /// and again: that this brings nothing new ends no loop here, unless a test sets it.
    ///
    /// # Errors
    /// Where the scripts cannot be written.
    pub fn new(models: &[(&str, &str)]) -> Result<Self> {
        let scripts = tempfile::tempdir()?;
        let mut options = Options::default().set("loop.no_progress_limit", "0");
        for (alias, script) in models {
            let path = scripts.path().join(format!("{alias}.yaml"));
            fs::write(&path, script)?;
            options = options
                .set(&format!("models.{alias}.provider"), "scripted")
                .set(
                    &format!("models.{alias}.script"),
                    path.display().to_string(),
                );
        }
        if let Some((first, _)) = models.first() {
            options = options.set("loop.model", *first);
        }
        Ok(Self { options, scripts })
    }

    /// Sets one key.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        self.options = self.options.set(key, value);
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// Where it does not come up; with what it said.
    pub fn start(self) -> Result<Scene> {
        let server = self.options.start()?;
        Ok(Scene {
            client: client(&server.url, None)?,
            server,
            _scripts: self.scripts,
        })
    }
}

impl Scene {
    /// Runs one loop to its end: all entries of its session.
    ///
    /// # Errors
    /// Where it is refused, does not end, or answers a tool call not exactly once.
    pub async fn run(&self, request: StartLoopRequest) -> Result<Vec<Entry>> {
        let started = self.client.start_loop(request).await?;
        to_end(&self.client, &started.session_id, &started.loop_id).await
    }

    /// The value of a gauge without labels on `/metrics`.
    ///
    /// # Errors
    /// Where there is no answer, or none of that name in it.
    pub async fn gauge(&self, name: &str) -> Result<f64> {
        let address = self.server.url.trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).await?;
        let request = "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        socket.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        socket.read_to_string(&mut page).await?;
        let line = page.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let value = line.and_then(|line| line.rsplit(' ').next());
        Ok(value
            .with_context(|| format!("no {name} in {page}"))?
            .parse()?)
    }
}

/// A client that tries nothing again.
///
/// # Errors
/// Where the address or the token cannot be used.
pub fn client(url: &str, token: Option<&str>) -> Result<Client> {
    Ok(Client::connect(ClientOptions {
        retries: 0,
        token: token.map(str::to_owned),
        ..ClientOptions::at(url)
    })?)
}

/// Asks a model something, in a session of its own.
#[must_use]
pub fn ask(model: &str) -> StartLoopRequest {
    StartLoopRequest {
        agent: Some(Agent {
            model: model.to_owned(),
            ..Agent::default()
        }),
        input: Some(Input::Text("work".to_owned())),
        ..StartLoopRequest::default()
    }
}

/// Waits for a loop to end: all entries of its session so far.
///
/// # Errors
/// Where it does not end, or a tool call has not exactly one answer.
pub async fn to_end(client: &Client, session: &str, of: &str) -> Result<Vec<Entry>> {
    let ends = |entry: &Entry| {
        ended(std::slice::from_ref(entry)).is_some_and(|end| of.is_empty() || end.loop_id == of)
    };
    let entries = until(client, session, ends).await?;
    one_answer_each(&entries)?;
    Ok(entries)
}

/// Reads a session from its beginning until an entry is as wanted, that one included.
///
/// # Errors
/// Where none is within [`PATIENCE`].
pub async fn until(
    client: &Client,
    session: &str,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Vec<Entry>> {
    let options = WatchOptions {
        deltas: false,
        ..WatchOptions::default()
    };
    let mut watch = client.watch_with(session, options);
    let mut seen = Vec::new();
    let reading = async {
        loop {
            let event = watch.next().await.context("the watch ended")??;
            if let WatchEvent::Entry(entry) = event {
                let found = wanted(&entry);
                seen.push(entry);
                if found {
                    return anyhow::Ok(());
                }
            }
        }
    };
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(done) => done.map(|()| seen),
        Err(_) => bail!("{session} does not get there: {seen:#?}"),
    }
}

/// Everything that the log of a session holds.
///
/// # Errors
/// Where it cannot be read.
pub async fn log(client: &Client, session: &str) -> Result<Vec<Entry>> {
    let mut all = client.read_entries(ReadEntriesRequest {
        session_id: session.to_owned(),
        ..ReadEntriesRequest::default()
    });
    let mut entries = Vec::new();
    while let Some(entry) = all.next().await {
        entries.push(entry?);
    }
    Ok(entries)
}

/// The events of these entries, in order.
pub fn kinds(entries: &[Entry]) -> impl Iterator<Item = &Kind> {
    let events = entries.iter().flat_map(|entry| &entry.events);
    events.filter_map(|event| event.kind.as_ref())
}

/// Whether one of the entry's events is as wanted.
pub fn has(entry: &Entry, wanted: impl Fn(&Kind) -> bool) -> bool {
    kinds(std::slice::from_ref(entry)).any(wanted)
}

/// How the last loop ended that did.
#[must_use]
pub fn ended(entries: &[Entry]) -> Option<&LoopEnded> {
    let ends = kinds(entries).filter_map(|kind| match kind {
        Kind::LoopEnded(end) => Some(end),
        _ => None,
    });
    ends.last()
}

/// How the loop ended that these entries end with.
///
/// # Errors
/// Where none did.
pub fn end_of(entries: &[Entry]) -> Result<&LoopEnded> {
    ended(entries).with_context(|| format!("no loop ended in {entries:#?}"))
}

/// The refusal in a result.
///
/// # Errors
/// Where it is none.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Result<Rejection> {
    match result {
        Err(Error::Rejected(rejection)) => Ok(*rejection),
        other => bail!("not refused: {other:?}"),
    }
}

/// Waits until a condition holds.
///
/// # Errors
/// Where it does not within [`PATIENCE`], or asking fails.
pub async fn eventually<Asked: Future<Output = Result<bool>>>(
    what: &str,
    ask: impl Fn() -> Asked,
) -> Result<()> {
    let asking = async {
        while !ask().await? {
            // Between two looks at something that tells nobody when it changes.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let asked = tokio::time::timeout(PATIENCE, asking).await;
    asked.with_context(|| format!("never: {what}"))?
}

/// `loopwright` with these arguments, with nothing of this process's configuration.
///
/// # Errors
/// Where the binary cannot be built.
pub fn loopwright(dir: &Path, args: &[&str]) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(kit::binary(kit::Build::Debug)?);
    kit::without_loopwright(&mut command);
    command
        .env("XDG_CONFIG_HOME", dir)
        .env("XDG_DATA_HOME", dir)
        .args(args)
        .current_dir(dir)
        .stdin(std::process::Stdio::null());
    Ok(command)
}

/// Every requested call is answered once: the law that no provider forgives breaking.
fn one_answer_each(entries: &[Entry]) -> Result<()> {
    let mut answers: BTreeMap<&str, u32> = BTreeMap::new();
    for kind in kinds(entries) {
        let answered = match kind {
            Kind::ToolCallRequested(requested) => {
                answers.insert(&requested.call, 0);
                continue;
            }
            Kind::ToolCallCompleted(done) => &done.call,
            Kind::ToolCallFailed(failed) if failed.retry_at.is_none() => &failed.call,
            Kind::ToolCallRejected(rejected) => &rejected.call,
            Kind::ToolCallCancelled(cancelled) => &cancelled.call,
            Kind::ToolCallUnknown(unknown) if unknown.policy() != UnknownPolicy::Ask => {
                &unknown.call
            }
            Kind::UnknownResolved(resolved) if is_end(resolved.resolution()) => &resolved.call,
            _ => continue,
        };
        *answers
            .get_mut(answered.as_str())
            .context("an answer to nothing")? += 1;
    }
    ensure!(answers.values().all(|n| *n == 1), "answers: {answers:?}");
    Ok(())
}

/// Whether a call ends with that: a new attempt, and a cancel, are followed by an end of their own.
fn is_end(resolution: UnknownResolution) -> bool {
    !matches!(
        resolution,
        UnknownResolution::RunAgain | UnknownResolution::Cancelled
    )
}
