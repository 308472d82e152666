//! The command `loopwright sidecar`: serves one of the two, or tries a tool of a running sidecar.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use loopwright_tools::{Listen, Progress, RemoteError, RemoteSidecar, ServeError, Sidecar};

use crate::calc::calc;
use crate::files::{FilesOptions, files};

/// What `loopwright sidecar` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum SidecarCommand {
    /// Serve tools that read, list, search and write files beneath one folder.
    Files(FilesArgs),
    /// Serve a tool that evaluates arithmetic.
    Calc(ServeArgs),
    /// Call a tool of a running sidecar, without a model and without a server.
    Call(CallArgs),
}

/// How a sidecar is served.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Where to listen: IP:PORT, or unix:/PATH. Default: a free port of 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<Listen>,
    /// The Loopwright server to register with: http://HOST:PORT, or unix:/PATH. Default:
    /// LOOPWRIGHT_SERVER, or http://127.0.0.1:7070.
    #[arg(long, value_name = "URL", conflicts_with = "no_register")]
    pub server: Option<String>,
    /// Serve without registering anywhere.
    #[arg(long)]
    pub no_register: bool,
    /// The name to register by, first part of the tools' names. Default: files or calc.
    #[arg(long)]
    pub name: Option<String>,
    /// The address that the server is to dial, where it is another than the one listened on.
    #[arg(long, value_name = "ENDPOINT")]
    pub advertise: Option<String>,
    /// Listen beyond loopback all the same: whoever reaches the address can run the tools.
    #[arg(long)]
    pub allow_remote: bool,
    /// A file that holds the server's token. Default: LOOPWRIGHT_TOKEN.
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
}

/// `loopwright sidecar files`.
#[derive(Args, Clone, Debug)]
pub struct FilesArgs {
    /// The folder that no path leaves.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Wait so many milliseconds before appending a line: for demos and tests of crashes.
    #[arg(long, value_name = "MS", default_value_t = 0, hide = true,
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub append_delay_ms: u64,
    /// How it is served.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// `loopwright sidecar call`.
#[derive(Args, Clone, Debug)]
pub struct CallArgs {
    /// Where the sidecar serves: http://HOST:PORT, or unix:/PATH.
    pub url: String,
    /// The tool, by its own name.
    pub tool: String,
    /// The arguments, a JSON object.
    #[arg(value_name = "JSON", default_value = "{}")]
    pub arguments: String,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The root of `files` cannot be opened.
    #[error("--root {}: {source}; name a folder that exists and may be read", path.display())]
    Root {
        /// The root as it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("--token-file {}: {source}", path.display())]
    Token {
        /// The file as it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The arguments of a call are no JSON object.
    #[error("JSON: {0}; write an object in quotes, such as '{{\"path\": \"notes.txt\"}}'")]
    Arguments(String),
    /// The sidecar could not be called.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The result could not be printed.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

/// Runs a command to its end: serving ends with SIGTERM or Ctrl-C. A call exits with 0 where the tool
/// answered, with 1 where it failed or was not executed.
pub async fn run(command: SidecarCommand) -> Result<ExitCode, CommandError> {
    match command {
        SidecarCommand::Files(args) => {
            let options = FilesOptions {
                root: args.root.clone(),
                append_delay: Duration::from_millis(args.append_delay_ms),
            };
            let name = args.serve.name.as_deref().unwrap_or("files");
            let sidecar = files(name, &options).map_err(|source| CommandError::Root {
                path: args.root.clone(),
                source,
            })?;
            serve(sidecar, &args.serve).await
        }
        SidecarCommand::Calc(args) => {
            serve(calc(args.name.as_deref().unwrap_or("calc")), &args).await
        }
        SidecarCommand::Call(args) => call(&args, &mut io::stdout(), &mut io::stderr()).await,
    }
}

/// Applies the arguments to a sidecar.
fn configured(mut sidecar: Sidecar, args: &ServeArgs) -> Result<Sidecar, CommandError> {
    if let Some(listen) = &args.listen {
        sidecar = sidecar.listen(listen.clone());
    }
    if let Some(server) = &args.server {
        sidecar = sidecar.server(server);
    }
    if args.no_register {
        sidecar = sidecar.without_server();
    }
    if let Some(endpoint) = &args.advertise {
        sidecar = sidecar.advertise(endpoint);
    }
    if args.allow_remote {
        sidecar = sidecar.allow_remote_callers();
    }
    if let Some(path) = &args.token_file {
        let token = std::fs::read_to_string(path).map_err(|source| CommandError::Token {
            path: path.clone(),
            source,
        })?;
        sidecar = sidecar.token(token.trim());
    }
    Ok(sidecar)
}

async fn serve(sidecar: Sidecar, args: &ServeArgs) -> Result<ExitCode, CommandError> {
    configured(sidecar, args)?.serve().await?;
    Ok(ExitCode::SUCCESS)
}

/// Progress goes to `aside`, as does what is no answer; the answer alone goes to `out`.
async fn call(
    args: &CallArgs,
    out: &mut impl Write,
    aside: &mut impl Write,
) -> Result<ExitCode, CommandError> {
    let read: Result<serde_json::Map<String, serde_json::Value>, _> =
        serde_json::from_str(&args.arguments);
    read.map_err(|error| CommandError::Arguments(error.to_string()))?;
    let mut remote = RemoteSidecar::connect(&args.url).await?;
    let outcome = remote
        .call(&args.tool, &args.arguments, |progress| {
            // Progress may be lost; the answer may not.
            let _ = writeln!(aside, "{}", shown(progress));
        })
        .await?;
    if outcome.is_not_executed() {
        writeln!(aside, "not executed: {}", outcome.text())?;
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "{}", outcome.text())?;
    out.flush()?;
    if outcome.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(aside, "the tool says that it failed")?;
    Ok(ExitCode::FAILURE)
}

fn shown(progress: &Progress) -> String {
    match progress.fraction {
        Some(share) => format!("{:3.0} % {}", share * 100.0, progress.message),
        None => format!("  .. {}", progress.message),
    }
}

#[cfg(test)]
mod tests;
