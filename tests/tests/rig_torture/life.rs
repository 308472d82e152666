//! Clients of a real server in trouble: what they are told, and the log that it must be in.
//!
//! Boundary: the public client. Invariant: what was answered or shown is kept as it came, whatever
//! becomes of the server.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use loopwright_client::{Client, Error, WatchEvent, WatchOptions};
use loopwright_proto::v1::{Entry, StartLoopRequest, start_loop_request::Input};
use loopwright_tests::{
    kit::{Options, Server},
    rig::{
        Outcome,
        history::{self, Ack, History, Watched},
    },
    scene,
};
use tokio::task::AbortHandle;

/// How long anything may take that is to happen at once, on a machine that is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Every client of one server.
pub(super) struct Clients {
    client: Client,
    sessions: Vec<Session>,
    asked: usize,
    /// When the last command was answered.
    pub(super) last_ack: Option<SystemTime>,
}

/// A session whose loop was acknowledged.
struct Session {
    history: History,
    loop_id: String,
    shown: Arc<Mutex<Vec<Entry>>>,
    watch: AbortHandle,
}

/// A server's settings here: a scripted model of three replies, and journal segments of the smallest
/// size, so that checkpoints come.
pub(super) fn options(scripts: &Path) -> Result<Options> {
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
pub(super) async fn start(options: &Options, dir: &Path) -> Result<Server> {
    let (options, dir) = (options.clone(), dir.to_owned());
    tokio::task::spawn_blocking(move || options.start_in(&dir)).await?
}

/// Ends a server in order: its exit code.
pub(super) async fn terminate(mut server: Server) -> Result<(i32, String)> {
    tokio::task::spawn_blocking(move || {
        let code = server.terminate()?;
        Ok((code, server.stderr()))
    })
    .await?
}

impl Clients {
    /// Nobody has asked for anything yet.
    pub(super) fn of(server: &Server) -> Result<Self> {
        Ok(Self {
            client: scene::client(&server.url, None)?,
            sessions: Vec::new(),
            asked: 0,
            last_ack: None,
        })
    }

    /// The server has another address now.
    pub(super) fn moved(&mut self, server: &Server) -> Result<()> {
        self.client = scene::client(&server.url, None)?;
        Ok(())
    }

    /// Starts a loop with a message of so many bytes, in a session of its own, and watches it.
    pub(super) async fn start(&mut self, bytes: usize) -> Result<(), Error> {
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

    fn watch(&self, session: &str, shown: &Arc<Mutex<Vec<Entry>>>) -> AbortHandle {
        let options = WatchOptions {
            deltas: false,
            ..WatchOptions::default()
        };
        let mut watch = self.client.watch_with(session, options);
        let shown = Arc::clone(shown);
        let task = tokio::spawn(async move {
            while let Some(Ok(event)) = watch.next().await {
                if let WatchEvent::Entry(entry) = event {
                    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                    shown.push(entry);
                }
            }
        });
        task.abort_handle()
    }

    /// Whether every loop that was acknowledged was shown to end.
    pub(super) fn have_ended(&self) -> bool {
        self.sessions.iter().all(|session| {
            let shown = session.shown.lock();
            scene::ended(&shown.unwrap_or_else(PoisonError::into_inner)).is_some()
        })
    }

    /// Waits until every loop that was acknowledged has ended.
    pub(super) async fn until_ended(&self) -> Result<()> {
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
    pub(super) async fn judge(&mut self, outcome: &mut Outcome) -> Result<()> {
        self.until_ended().await?;
        for session in &mut self.sessions {
            session.watch.abort();
            let history = &mut session.history;
            let shown = session.shown.lock();
            history.entries = shown.unwrap_or_else(PoisonError::into_inner).clone();
            let log = scene::log(&self.client, &history.session).await?;
            history::check(outcome, history, &log, Watched::InPart);
        }
        Ok(())
    }
}
