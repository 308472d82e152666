//! `loopwright demo`: the whole of it in one command, with no key and no network.
//!
//! A server and two sidecars run as processes of their own; this process is a client like any other
//! and prints only what came over gRPC. Without a model in the configuration a scripted one plays
//! its part: the turns are fixed, and everything else is real.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use loopwright_client::{
    Client, ClientOptions, WatchEvent,
    cli::{Exit, Terminal},
    render::{RunView, Style},
    v1::{
        Agent, ListToolsRequest, StartLoopRequest, ToolSelection, event::Kind,
        start_loop_request::Input,
    },
};

use tokio::signal::unix::{SignalKind, signal};

use super::Where;

mod processes;
mod stage;

use processes::Process;
use stage::Stage;

/// How long the sidecars have to register.
const REGISTERED_WITHIN: Duration = Duration::from_secs(20);

/// `loopwright demo`.
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Kill the server in the middle of a tool call, start it again, and see nothing repeated
    #[arg(long)]
    crash: bool,
    /// Run on this model instead, an alias or provider/id
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Where that model is served, an endpoint that speaks OpenAI's or Anthropic's protocol
    #[arg(long, value_name = "URL", requires = "model")]
    base_url: Option<String>,
    /// Folder for the demo's files and its log; a new one below the system's temporary folder if
    /// absent
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Demo {
    /// Runs the demo to its end, or until it is told to stop: its processes end with it either way.
    pub(super) async fn run(self, place: Where) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be heard")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be heard")?;
        tokio::select! {
            done = Box::pin(self.perform(place)) => done,
            _ = terminate.recv() => Ok(Exit::Cancelled.into()),
            _ = interrupt.recv() => Ok(Exit::Cancelled.into()),
        }
    }

    async fn perform(self, place: Where) -> anyhow::Result<ExitCode> {
        let mut terminal = Terminal::stdio();
        let stage = Stage::set(&self, &place)?;
        let mut server = stage.server()?;
        let url = server.url.clone();
        terminal.note(&format!("server    {url}   (process {})", server.pid()))?;
        let files = stage.files(&url)?;
        let calc = stage.calc(&url)?;
        terminal.note(&format!(
            "sidecars  files, calc   (processes {}, {})",
            files.pid(),
            calc.pid()
        ))?;
        let client = Client::connect(ClientOptions {
            token: stage.token(),
            ..ClientOptions::at(&url)
        })?;
        wait_for_tools(&client).await?;
        terminal.note(&format!("model     {}", stage.model_words()))?;
        terminal.note(&format!("message   {}\n", stage.message()))?;
        let session = self
            .play(&stage, &mut server, &client, &mut terminal)
            .await?;
        let code = stage.epilogue(&session, &mut terminal)?;
        // In order: the sidecars take their leave of a server that is still there.
        drop((files, calc));
        server.terminate();
        Ok(code)
    }

    /// Runs the loop and shows it; where a crash was asked for, kills the server in mid-call.
    async fn play(
        &self,
        stage: &Stage,
        server: &mut Process,
        client: &Client,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Played> {
        let started = client.start_loop(stage.request()).await?;
        let mut watch = client.watch(&started.session_id, 0);
        let mut view = RunView::new(
            Style {
                user_messages: false,
                ..terminal.style()
            },
            0,
        );
        let mut out = std::io::stdout();
        let mut played = Played::of(started.session_id);
        while let Some(event) = watch.next().await {
            let event = event?;
            view.write(&event, &mut out)?;
            played.see(&event);
            if let Some(end) = view.ended() {
                played.exit = Exit::of_end(end);
                return Ok(played);
            }
            if self.crash && played.crashed.is_none() && played.in_append {
                // The tool has begun and takes its time: this is the middle of the call.
                tokio::time::sleep(Duration::from_millis(300)).await;
                server.kill()?;
                terminal.note("\n  kill -9: the server is gone, in the middle of the call\n")?;
                *server = stage.server_again(&server.url)?;
                played.crashed = Some(played.dispatched.clone());
            }
        }
        bail!("the stream ended before the loop did")
    }
}

/// What the demo saw of its loop.
#[derive(Debug)]
struct Played {
    session: String,
    exit: Exit,
    /// Every dispatch of a tool call: its id and attempt.
    dispatched: Vec<(String, u32)>,
    /// Calls of the tool that must not repeat.
    appends: Vec<String>,
    in_append: bool,
    /// What had been dispatched when the server was killed.
    crashed: Option<Vec<(String, u32)>>,
}

impl Played {
    fn of(session: String) -> Self {
        Self {
            session,
            exit: Exit::Error,
            dispatched: Vec::new(),
            appends: Vec::new(),
            in_append: false,
            crashed: None,
        }
    }

    fn see(&mut self, event: &WatchEvent) {
        let WatchEvent::Entry(entry) = event else {
            return;
        };
        for kind in entry.events.iter().filter_map(|event| event.kind.as_ref()) {
            match kind {
                Kind::ToolCallRequested(e) if e.tool == "files__append_line" => {
                    self.appends.push(e.call.clone());
                }
                Kind::ToolCallStarted(e) => {
                    self.in_append |= self.appends.contains(&e.call);
                    self.dispatched.push((e.call.clone(), e.attempt));
                }
                _ => {}
            }
        }
    }
}

async fn wait_for_tools(client: &Client) -> anyhow::Result<()> {
    let all = async {
        loop {
            let tools = client.list_tools(ListToolsRequest::default()).await?.tools;
            let names = tools.iter().filter_map(|tool| tool.tool.as_ref());
            let sidecars: BTreeSet<&str> = names.map(|tool| tool.sidecar.as_str()).collect();
            if sidecars.contains("files") && sidecars.contains("calc") {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(REGISTERED_WITHIN, all)
        .await
        .context("the sidecars did not register; the server's log says why")?
}

fn agent(model: &str, tools: &[&str]) -> Agent {
    Agent {
        model: model.to_owned(),
        system_prompt: "You do what the message asks with the tools at hand, one step at a time."
            .to_owned(),
        tools: Some(ToolSelection {
            tools: tools.iter().map(|&tool| tool.to_owned()).collect(),
        }),
        ..Agent::default()
    }
}

fn start(agent: Agent, message: &str) -> StartLoopRequest {
    StartLoopRequest {
        agent: Some(agent),
        input: Some(Input::Text(message.to_owned())),
        ..StartLoopRequest::default()
    }
}
