//! The commands of the `loopwright` binary that speak to a server.
//!
//! ```text
//! binary: clap -> ClientCommand -> execute(command, terminal, fold) -> Exit
//!                 run --local: the binary starts a server, then calls run(command, client, terminal)
//! ```
//!
//! Boundary: parse, call the client, render, say how it went. What needs a server crate is passed in: a
//! connected [`Client`] for `--local`, [`FoldMessages`] for `log show --messages`. Invariant: the answer
//! goes to standard output, everything about how it came to be to standard error.

mod amount;
mod answer;
mod budget;
mod control;
mod exit;
mod log;
mod run;
mod screen;
mod sessions;
mod spinner;
mod terminal;
mod tools;
mod top;
mod watch;

use std::io;

use clap::{Args, Subcommand};

pub use answer::{AnswerCommand, Did, ResolveCommand};
pub use budget::BudgetCommand;
pub use control::{ControlCommand, LimitsCommand};
pub use exit::Exit;
pub use log::{
    FoldMessages, LogCommand, LogExport, LogFork, LogImport, LogRepair, LogReplay, LogRm, LogShow,
    LogTail, LogVerify, NoFold, show_offline, verified_offline, written_offline,
};
pub use run::{RunCommand, run};
pub use sessions::SessionsCommand;
pub use terminal::{Interrupts, Terminal};
pub use tools::ToolsCommand;
pub use top::TopCommand;
pub use watch::WatchCommand;

use crate::{Client, ClientOptions, DEFAULT_URL, Error};

/// The commands that speak to a server; flattened into the binary's own.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Start a loop with a message and show it as it runs
    Run(Box<RunCommand>),
    /// Show a session from a cursor on, live
    Watch(WatchCommand),
    /// Pause the loop of a session: what runs ends, nothing new starts
    Pause(ControlCommand),
    /// Let a paused loop go on
    Resume(ControlCommand),
    /// Move limits of a loop that is going on; what is not named stays
    Limits(Box<LimitsCommand>),
    /// Show the loops of the server, live
    Top(TopCommand),
    /// Let a tool call that waits for approval run
    Approve(AnswerCommand),
    /// Refuse a tool call that waits for approval; the model is told so
    Deny(AnswerCommand),
    /// Say what a tool call did of which nobody could tell
    Resolve(ResolveCommand),
    /// Sessions of the server
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// The log of a session
    #[command(subcommand)]
    Log(LogCommand),
    /// Tools that the server offers
    #[command(subcommand)]
    Tools(ToolsCommand),
    /// Budgets that sessions share
    #[command(subcommand)]
    Budget(BudgetCommand),
}

/// Which server, and who asks.
#[derive(Clone, Args)]
pub struct ConnectArgs {
    /// The server: http://host:port or unix:/path
    #[arg(long, env = "LOOPWRIGHT_SERVER", default_value = DEFAULT_URL, value_name = "URL")]
    pub server: String,
    /// The credential, where the server wants one
    #[arg(
        long,
        env = "LOOPWRIGHT_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
}

/// Why a command stopped short.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client, or the server, says no.
    Client(Error),
    /// The command line cannot mean anything.
    Usage(String),
    /// Something of the machine, in words.
    Other(String),
    /// Output cannot be written. A closed pipe ends the command quietly.
    Output(io::Error),
}

/// Runs one command to its end, errors included: what is to be said was said when it returns.
pub async fn execute(
    command: ClientCommand,
    terminal: &mut Terminal,
    fold: &dyn FoldMessages,
) -> Exit {
    let server = command.connect_args().server.clone();
    let done = match command.connect_args().connect() {
        Ok(client) => match &command {
            ClientCommand::Run(run) => return self::run(run, &client, terminal).await,
            ClientCommand::Watch(watch) => watch.execute(&client, terminal).await,
            ClientCommand::Pause(control) => control.pause(&client, terminal).await,
            ClientCommand::Resume(control) => control.resume(&client, terminal).await,
            ClientCommand::Limits(limits) => limits.execute(&client, terminal).await,
            ClientCommand::Top(top) => top.execute(&client, terminal).await,
            ClientCommand::Approve(answer) => answer.execute(true, &client, terminal).await,
            ClientCommand::Deny(answer) => answer.execute(false, &client, terminal).await,
            ClientCommand::Resolve(resolve) => resolve.execute(&client, terminal).await,
            ClientCommand::Sessions(sessions) => sessions.execute(&client, terminal).await,
            ClientCommand::Log(log) => log.execute(&client, terminal, fold).await,
            ClientCommand::Tools(tools) => tools.execute(&client, terminal).await,
            ClientCommand::Budget(budget) => budget.execute(&client, terminal).await,
        },
        Err(error) => Err(Failure::Client(error)),
    };
    concluded(done, &server, terminal)
}

impl ConnectArgs {
    /// A client of that server. Must be called within a tokio runtime; nothing is dialled yet.
    ///
    /// # Errors
    /// [`Error::Options`] where the address or the token cannot be used.
    pub fn connect(&self) -> Result<Client, Error> {
        // An empty variable is one that was not set.
        let server = match self.server.as_str() {
            "" => DEFAULT_URL,
            server => server,
        };
        Client::connect(ClientOptions {
            token: self.token.clone().filter(|token| !token.is_empty()),
            ..ClientOptions::at(server)
        })
    }
}

impl std::fmt::Debug for ConnectArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectArgs")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl ClientCommand {
    /// Which server the command is for.
    #[must_use]
    pub fn connect_args(&self) -> &ConnectArgs {
        match self {
            Self::Run(run) => &run.connect,
            Self::Watch(watch) => &watch.connect,
            Self::Pause(control) | Self::Resume(control) => &control.connect,
            Self::Limits(limits) => &limits.connect,
            Self::Top(top) => &top.connect,
            Self::Approve(answer) | Self::Deny(answer) => &answer.connect,
            Self::Resolve(resolve) => &resolve.answer.connect,
            Self::Sessions(sessions) => sessions.connect_args(),
            Self::Log(log) => log.connect(),
            Self::Tools(ToolsCommand::List(list)) => &list.connect,
            Self::Budget(budget) => budget.connect(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            Some(kind) => Self::Output(kind.into()),
            None => Self::Other(format!("cannot be written as JSON: {error}")),
        }
    }
}

/// Says what went wrong, and how the process is to end.
pub(crate) fn concluded(
    done: Result<Exit, Failure>,
    server: &str,
    terminal: &mut Terminal,
) -> Exit {
    let (words, exit) = match done {
        Ok(exit) => return exit,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Exit::Completed;
        }
        Err(Failure::Output(error)) => (format!("cannot write: {error}"), Exit::Error),
        Err(Failure::Usage(words)) => (words, Exit::Usage),
        Err(Failure::Other(words)) => (words, Exit::Error),
        Err(Failure::Client(error)) => (with_way_out(&error, server), Exit::of_error(&error)),
    };
    // Nothing is left to be done where even this cannot be written.
    let _ = terminal.note(&format!("error: {words}"));
    exit
}

fn with_way_out(error: &Error, server: &str) -> String {
    let way_out = match error {
        Error::Unreachable { .. } => format!(
            "\n  is a server running at {server}? `loopwright serve` starts one, \
             `--server URL` or LOOPWRIGHT_SERVER names another, `run --local` needs none"
        ),
        Error::Rejected(rejection) => match rejection.reason.as_str() {
            "NO_CREDENTIAL" => "\n  give it with `--token` or LOOPWRIGHT_TOKEN".to_owned(),
            "SESSION_NOT_FOUND" => "\n  `loopwright sessions list` shows what there is".to_owned(),
            "CALL_NOT_FOUND" | "NO_LOOP" => {
                "\n  `loopwright sessions show SESSION` lists the calls that wait".to_owned()
            }
            "TOOL_NOT_FOUND" => "\n  `loopwright tools list` shows what there is".to_owned(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    format!("{error}{way_out}")
}
