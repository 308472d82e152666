//! `loopwright config`: what is configured, whether it holds, and a file to begin with.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::Where;
use crate::config;

/// `loopwright config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the effective values, each with where it came from
    Show,
    /// Check everything that can be checked without starting: values, tokens, keys, scripts
    Check,
    /// Write a commented file with every key at its default
    Init {
        /// Where to; never overwrites
        #[arg(default_value = "loopwright.toml")]
        path: PathBuf,
    },
    /// Print every key as a table in Markdown
    Docs,
    /// Print what tokens cost, of the configured models and of those known by name
    Prices,
}

impl ConfigCommand {
    pub(super) fn run(self, place: Where) -> anyhow::Result<ExitCode> {
        match self {
            Self::Show => {
                let (loaded, _) = place.load()?;
                print(&config::show(&loaded))
            }
            Self::Check => {
                let (loaded, env) = place.load()?;
                match config::check(&loaded, &env) {
                    Ok(()) => {
                        let file = loaded
                            .file
                            .map_or("no file".to_owned(), |f| f.display().to_string());
                        print(&format!("the configuration is good ({file})\n"))
                    }
                    Err(problems) => bail!("{}", problems.join("\n       ")),
                }
            }
            Self::Init { path } => {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .with_context(|| format!("{} cannot be created", path.display()))?;
                file.write_all(config::init_text().as_bytes())?;
                print(&format!("wrote {}\n", path.display()))
            }
            Self::Docs => print(&config::markdown()),
            Self::Prices => {
                let (loaded, _) = place.load()?;
                print(&config::price_list(&loaded.config))
            }
        }
    }
}

/// Writes to standard output, whose reader may have gone.
pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}
