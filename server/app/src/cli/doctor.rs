//! `loopwright doctor`: what somebody wants to have checked before a start, or after one that was refused.
//!
//! Boundary: looks at the configuration, the environment and the data directory, speaks to no server and no
//! model. Invariants: changes nothing; a key is never printed, only whether it is there; whatever is not
//! well comes with the way out.

mod folder;

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use clap::Args;

use super::{Where, config_command::print};
use crate::config::{self, Config, Loaded, models, units::SyncMode};

/// `loopwright doctor`. Ends with 1 where something FAILED, else with 0.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Folder of the sessions; session_log.dir
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Fine,
    /// A start goes well, and somebody may be surprised later.
    Warning,
    /// A start is refused, or something is lost already.
    Failed,
}

/// What one look has found.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    about: &'static str,
    text: String,
}

impl Doctor {
    pub(super) async fn run(self, mut place: Where) -> anyhow::Result<ExitCode> {
        let dir = self.dir.map(|dir| ("session_log.dir".to_owned(), dir));
        place.flags.extend(dir);
        let findings = match place.load() {
            Err(error) => vec![Finding::failed("configuration", format!("{error:#}"))],
            Ok((loaded, env)) => {
                let mut findings = configuration(&loaded, &env);
                findings.extend(keys(&loaded.config, &env));
                findings.push(durability(loaded.config.session_log.sync));
                let work = move || folder::look(&loaded.config.session_log);
                findings.extend(tokio::task::spawn_blocking(work).await?);
                findings
            }
        };
        let (page, failed) = page(&findings);
        print(&page)?;
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

impl Finding {
    fn fine(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(Grade::Fine, about, text)
    }

    fn warning(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(Grade::Warning, about, text)
    }

    fn failed(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(Grade::Failed, about, text)
    }

    fn new(grade: Grade, about: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { grade, about, text }
    }
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warn",
            Self::Failed => "FAILED",
        }
    }
}

/// One line a finding, and how many of them failed.
fn page(findings: &[Finding]) -> (String, usize) {
    let mut page = String::new();
    for Finding { grade, about, text } in findings {
        // Where a finding has several lines, the others stand below it.
        let text = text.replace('\n', "\n         ");
        let grade = grade.as_str();
        writeln!(page, "{grade:<7}{about}: {text}").expect("writing to a String does not fail");
    }
    let failed = findings.iter().filter(|one| one.grade == Grade::Failed);
    let failed = failed.count();
    page.push_str(&match failed {
        0 => "nothing FAILED\n".to_owned(),
        n => format!("{n} of {} looks FAILED\n", findings.len()),
    });
    (page, failed)
}

/// As `config check`, one finding a problem.
fn configuration(loaded: &Loaded, env: &BTreeMap<String, String>) -> Vec<Finding> {
    match config::check(loaded, env) {
        Ok(()) => {
            let file = loaded.file.as_ref();
            let file = file.map_or("no file".to_owned(), |file| file.display().to_string());
            vec![Finding::fine("configuration", format!("good ({file})"))]
        }
        Err(problems) => problems
            .into_iter()
            .map(|problem| Finding::failed("configuration", problem))
            .collect(),
    }
}

/// The keys that are there; those that are not were found with the configuration.
fn keys(config: &Config, env: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (alias, model) in &config.models {
        if models::resolve(config, env, Some(alias)).is_ok() {
            let key = match models::key_source(model) {
                Some(source) => format!("{alias} has its key, from {source}"),
                None => format!("{alias} needs no key"),
            };
            findings.push(Finding::fine("model", key));
        }
    }
    match models::resolve(config, env, None) {
        Ok(model) => findings.push(Finding::fine(
            "model",
            format!("a loop that names none calls {}", model.alias),
        )),
        // One that is named was looked at with the configuration.
        Err(_) if config.loops.model.is_some() => {}
        Err(error) if config.models.is_empty() => {
            findings.push(Finding::warning("model", error.to_string()));
        }
        Err(_) => findings.push(Finding::warning(
            "model",
            "loops that name none are refused; name an alias of models in loop.model",
        )),
    }
    findings
}

/// What the sync policy promises, and what not.
fn durability(sync: SyncMode) -> Finding {
    let about = "session_log.sync";
    let not_durable = |takes: &str| {
        format!(
            "{sync}: facts are acknowledged before they are durable. A loss of power takes {takes}, of \
             every session and in order; licences of tool calls are among them, so that a tool which \
             must run at most once may run again. A crash of the server alone takes nothing. \
             session_log.sync = \"always\" keeps what is acknowledged"
        )
    };
    match sync {
        SyncMode::Always => Finding::fine(
            about,
            "always: what is acknowledged survives a loss of power, on a disk that does not lie",
        ),
        SyncMode::Interval(period) => Finding::warning(
            about,
            not_durable(&format!("the last facts, those of about {period}")),
        ),
        SyncMode::None => Finding::warning(
            about,
            not_durable("whatever the operating system had not written yet"),
        ),
    }
}

#[cfg(test)]
mod tests;
