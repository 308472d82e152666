//! Child processes of a bench, and the kernel's account of them.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result};

/// The variable that tells a child of the bench what it is.
pub const ROLE: &str = "LOOPWRIGHT_BENCH_ROLE";

/// A child of this bench: the same program in another role. Dropping it kills it.
#[derive(Debug)]
pub struct Role {
    child: Child,
    /// The words of its first line.
    pub ready: Vec<String>,
}

impl Role {
    /// Starts this program again as `role`, and waits for its first line.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start(role: &str, args: &[String]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, role)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("a piped stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready = line.split_whitespace().map(str::to_owned).collect();
        Ok(Self { child, ready })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used so far, user and system, in milliseconds.
///
/// # Errors
/// Where the process has gone.
pub fn cpu_ms(pid: u32) -> Result<f64> {
    // utime and stime of all threads, those that have ended included, in ticks of 10 ms.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat
        .rsplit(')')
        .next()
        .context("a process name in brackets")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> {
        fields
            .get(at)
            .context("a field of the account")?
            .parse()
            .context("a number of ticks")
    };
    Ok((ticks(11)? + ticks(12)?) * 10.0)
}

/// Resident memory of a process, KiB.
///
/// # Errors
/// Where the process has gone.
pub fn rss_kib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("VmRSS")?;
    line.split_whitespace()
        .nth(1)
        .context("a number")?
        .parse()
        .context("a number of KiB")
}
