//! The command line: what each command is called, and which part of the project carries it out.
//!
//! Commands that speak to a server are the client's; those that serve tools are the sidecars'; what
//! needs the server itself is here.

use std::{collections::BTreeMap, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use loopwright_client::cli::{ClientCommand, LogCommand, Terminal, execute};
use loopwright_sidecars::SidecarCommand;

use crate::config::{self, Loaded, Sources};

mod config_command;
mod demo;
mod doctor;
mod local;
mod offline;
mod replay;
mod serve;

/// Runs LLM agent loops with sidecar tools, within a budget, on a log that survives any crash.
#[derive(Debug, Parser)]
#[command(name = "loopwright", version, propagate_version = true)]
pub struct Cli {
    /// Configuration file, TOML or YAML
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one configuration key; goes before environment and file
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = config::parse_set)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Serve),
    #[command(flatten)]
    Client(ClientCommand),
    /// Serve useful tools, or try a tool without a model
    #[command(subcommand)]
    Sidecar(SidecarCommand),
    /// Show, check or write the configuration
    #[command(subcommand)]
    Config(config_command::ConfigCommand),
    /// Check what a start stands on: configuration, keys, data directory, log; changes nothing
    Doctor(doctor::Doctor),
    /// See a loop run for real: a server, two sidecars and a model, in one command
    Demo(demo::Demo),
}

/// Where a command finds its configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Where {
    pub(crate) file: Option<PathBuf>,
    pub(crate) flags: BTreeMap<String, String>,
}

impl Cli {
    /// Runs the command to its end: what is to be said was said when it returns.
    pub async fn run(self) -> ExitCode {
        let place = Where {
            file: self.config,
            flags: self.set.into_iter().collect(),
        };
        match self.command {
            Command::Serve(serve) => done(Box::pin(serve.run(place)).await),
            Command::Config(command) => done(command.run(place)),
            Command::Doctor(doctor) => done(Box::pin(doctor.run(place)).await),
            Command::Demo(demo) => done(Box::pin(demo.run(place)).await),
            Command::Client(ClientCommand::Run(run)) if run.local => {
                done(Box::pin(local::run(*run, place)).await)
            }
            Command::Client(ClientCommand::Log(LogCommand::Repair(repair))) => {
                done(Box::pin(offline::repair(repair, place)).await)
            }
            Command::Client(ClientCommand::Log(LogCommand::Replay(replay)))
                if replay.model.is_some() =>
            {
                done(Box::pin(replay::run(replay, place)).await)
            }
            _ if place.is_given() => done(Err(anyhow::anyhow!(
                "--config and --set configure a server, and this command starts none; they go with \
                 serve, run --local, config, doctor, demo, log repair and log replay --model"
            ))),
            Command::Sidecar(command) => done(
                Box::pin(loopwright_sidecars::run(command))
                    .await
                    .map_err(Into::into),
            ),
            Command::Client(ClientCommand::Log(log)) if offline::takes(&log) => {
                done(Box::pin(offline::run(log)).await)
            }
            Command::Client(ClientCommand::Log(LogCommand::Replay(replay))) => {
                done(Box::pin(replay::run(replay, place)).await)
            }
            Command::Client(command) => {
                let mut terminal = Terminal::stdio();
                let fold = crate::service::convert::Fold;
                Box::pin(execute(command, &mut terminal, &fold))
                    .await
                    .into()
            }
        }
    }
}

impl Where {
    fn is_given(&self) -> bool {
        self.file.is_some() || !self.flags.is_empty()
    }

    /// Reads the configuration from its file, the environment and the flags.
    pub(crate) fn load(&self) -> anyhow::Result<(Loaded, BTreeMap<String, String>)> {
        let sources = Sources::from_process(self.file.clone(), self.flags.clone())?;
        let loaded = config::load(&sources)?;
        Ok((loaded, sources.env))
    }
}

/// Says what went wrong, if anything did.
fn done(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            // Nothing is left to be done where even this cannot be written.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
