//! The demo's child processes: this binary again, in other roles.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};

/// A child process; dropping it ends it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Where a server listens; empty for a sidecar.
    pub(super) url: String,
}

impl Process {
    /// Starts this binary with `args`, its messages in `log`.
    pub(super) fn start(args: &[String], log: &Path) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(log)?)
            .spawn()
            .context("this program cannot be started a second time")?;
        Ok(Self {
            child,
            url: String::new(),
        })
    }

    /// Starts a server and waits until it listens.
    pub(super) fn serve(args: &[String], log: &Path) -> anyhow::Result<Self> {
        let mut process = Self::start(args, log)?;
        let stdout = process.child.stdout.take().context("a piped stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        match line
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
        {
            Some(url) => {
                process.url = url.to_owned();
                Ok(process)
            }
            None => {
                process.child.wait()?;
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("the server did not start:\n{}", said.trim_end())
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, and waits until it has.
    pub(super) fn terminate(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let pid = rustix::process::Pid::from_child(&self.child);
        // It may have ended in this very moment; either way there is nothing left to wait for.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
