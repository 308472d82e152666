//! Clients of a real server in trouble: what they are told, and the log that it must be in.
//!
//! Boundary: the public client. Invariant: what was answered or shown is kept as it came, whatever
//! becomes of the server.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use loopwright_client::{Client, Error, WatchEvent, WatchOptions};
use loopwright_proto::v1::{Entry, StartLoopRequest, start_loop_request::Input};
use tokio::task::AbortHandle;

use crate::{
    kit::{Options, Server},
    rig::{
        Outcome,
        history::{self, Ack, History, Watched},
    },
    scene,
};

/// How long anything may take that is to happen at once, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Every client of one server.
#[derive(Debug)]
pub struct Clients {
    client: Client,
    sessions: Vec<Session>,
    asked: usize,
    /// When the last command was answered.
    pub last_ack: Option<SystemTime>,
}

/// A session whose loop was acknowledged.
#[derive(Debug)]
struct Session {
    history: History,
    loop_id: String,
    shown: Arc<Mutex<Shown>>,
    watch: AbortHandle,
}

/// What a watcher of one session was shown.
#[derive(Debug, Default)]
struct Shown {
    entries: Vec<Entry>,
    /// It is shown no more.
    is_broken: bool,
}

/// A server's settings here: a scripted model of three replies, and journal segments of the smallest
/// size, so that checkpoints come.
///
/// # Errors
/// Where the script cannot be written.
pub fn options(scripts: &Path) -> Result<Options> {
    let script = scripts.join("script.yaml");
    let call = "  tool_calls:\n  - tool: none__such\n    arguments: {}\n";
    let reply = |n| format!("- text: \"reply {n} of three\"\n");
    let turns = format!("turns:\n{}{call}{}{call}{}", reply(1), reply(2), reply(3));
    std::fs::write(&script, format!("at_end: repeat\n{turns}"))?;
    Ok(Options::default()
        .set("models.words.provider", "scripted")
        .set("models.words.script", script.display().to_string())
        .set("loop.model", "words")
        .set("session_log.segment_bytes", "64KiB"))
}

/// Starts a server; what it does is waited for by a thread that may block.
///
/// # Errors
/// Where it does not come up; with what it said.
pub async fn start(options: &Options, dir: &Path) -> Result<Server> {
    let (options, dir) = (options.clone(), dir.to_owned());
    tokio::task::spawn_blocking(move || options.start_in(&dir)).await?
}

/// Ends a server in order: its exit code.
///
/// # Errors
/// Where it was ended by a signal.
pub async fn terminate(mut server: Server) -> Result<(i32, String)> {
    tokio::task::spawn_blocking(move || {
        let code = server.terminate()?;
        Ok((code, server.stderr()))
    })
    .await?
}

impl Drop for Session {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Clients {
    /// Nobody has asked for anything yet.
    ///
    /// # Errors
    /// Where the address cannot be used.
    pub fn of(server: &Server) -> Result<Self> {
        Ok(Self {
            client: scene::client(&server.url, None)?,
            sessions: Vec::new(),
            asked: 0,
            last_ack: None,
        })
    }

    /// The server has another address now.
    ///
    /// # Errors
    /// Where the address cannot be used.
    pub fn moved(&mut self, server: &Server) -> Result<()> {
        self.client = scene::client(&server.url, None)?;
        Ok(())
    }

    /// Starts a loop with a message of so many bytes, in a session of its own, and watches it.
    ///
    /// # Errors
    /// Why it was refused; then nothing is known of it.
    pub async fn start(&mut self, bytes: usize) -> Result<(), Error> {
        self.asked += 1;
        let text = format!("said-{}-{}", self.asked, "x".repeat(bytes));
        let request_id = format!("request-{}", self.asked);
        let request = StartLoopRequest {
            request_id: request_id.clone(),
            session_id: format!("s{}", self.asked),
            input: Some(Input::Text(text.clone())),
            ..StartLoopRequest::default()
        };
        let answer = self.client.start_loop(request).await?;
        self.last_ack = Some(SystemTime::now());
        let seq = answer.seq;
        let ack = Ack {
            request_id,
            text,
            seq,
        };
        let shown = Arc::default();
        let watch = self.watch(&answer.session_id, &shown);
        self.sessions.push(Session {
            history: History {
                session: answer.session_id,
                acks: vec![ack],
                ..History::default()
            },
            loop_id: answer.loop_id,
            shown,
            watch,
        });
        Ok(())
    }

    fn watch(&self, session: &str, shown: &Arc<Mutex<Shown>>) -> AbortHandle {
        let options = WatchOptions {
            deltas: false,
            ..WatchOptions::default()
        };
        let mut watch = self.client.watch_with(session, options);
        let shown = Arc::clone(shown);
        let task = tokio::spawn(async move {
            while let Some(Ok(event)) = watch.next().await {
                if let WatchEvent::Entry(entry) = event {
                    seen(&shown).entries.push(entry);
                }
            }
            seen(&shown).is_broken = true;
        });
        task.abort_handle()
    }

    /// The loops that were acknowledged and not shown to end, each with what is known of it; of those
    /// whose watch broke, as with a server that was killed, nothing can be shown.
    #[must_use]
    pub fn open(&self) -> Vec<String> {
        let open = self.sessions.iter().filter_map(|session| {
            let shown = seen(&session.shown);
            if scene::ended(&shown.entries).is_some() || shown.is_broken {
                return None;
            }
            let (id, count) = (&session.history.session, shown.entries.len());
            Some(format!("{id} after {count} entries"))
        });
        open.collect()
    }

    /// Waits until every loop that was acknowledged has ended.
    ///
    /// # Errors
    /// Where one does not.
    pub async fn until_ended(&self) -> Result<()> {
        for session in &self.sessions {
            let ends = scene::to_end(&self.client, &session.history.session, &session.loop_id);
            let ended = tokio::time::timeout(PATIENCE, ends).await;
            ended
                .map_err(anyhow::Error::from)
                .and_then(|ended| ended.map(drop))
                .with_context(|| format!("{} was acknowledged", session.history.session))?;
        }
        Ok(())
    }

    /// Holds what was answered and shown against the log, once every loop has ended.
    ///
    /// # Errors
    /// Where a log cannot be read, or a loop does not end.
    pub async fn judge(&mut self, outcome: &mut Outcome) -> Result<()> {
        self.until_ended().await?;
        for session in &mut self.sessions {
            let history = &mut session.history;
            history.entries.clone_from(&seen(&session.shown).entries);
            let log = scene::log(&self.client, &history.session).await?;
            history::check(outcome, history, &log, Watched::InPart);
        }
        Ok(())
    }
}

fn seen(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}
