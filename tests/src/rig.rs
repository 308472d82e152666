//! What every rig shares: its size, its one source of chance, and the line that it ends with.
//!
//! Boundary: knows nothing of what a rig does. Invariant: a rig that found something wrong says
//! `FAILED` in its line, and fails.

use std::{
    io::Write as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use loopwright_client::{Client, ClientOptions};

pub mod clients;
pub mod effects;
pub mod history;
pub mod mount;
pub mod sidecar;
pub mod valve;

/// Wrongs that are told in words; all are counted.
const TOLD: usize = 20;

/// Chance from a seed (splitmix64): what each part of a rig draws does not depend on the others.
#[derive(Clone, Debug)]
pub struct Chance(u64);

/// What a rig comes to: counts, and everything that is wrong.
#[derive(Debug)]
pub struct Outcome {
    name: &'static str,
    seed: u64,
    began: Instant,
    counts: Vec<(String, u64)>,
    skipped: Vec<String>,
    wrong: Vec<String>,
}

/// Whether `LOOPWRIGHT_RIG` asks for the full size; without it, the size is CI's.
#[must_use]
pub fn is_full() -> bool {
    std::env::var("LOOPWRIGHT_RIG").is_ok_and(|size| size == "full")
}

/// `LOOPWRIGHT_RIG_SEED`, or a seed by the clock.
///
/// # Errors
/// Where the variable is no number.
pub fn seed() -> Result<u64> {
    match std::env::var("LOOPWRIGHT_RIG_SEED") {
        Ok(seed) => seed
            .parse()
            .with_context(|| format!("LOOPWRIGHT_RIG_SEED is `{seed}`, not a number")),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()),
    }
}

/// A port that is free now, below those that a machine gives to clients: one that dials a killed
/// server in vain must not take it.
///
/// # Errors
/// Where none is found.
pub fn port(chance: &mut Chance) -> Result<u16> {
    let (first, ports) = (21_000, 8_000);
    std::iter::repeat_with(|| first + u16::try_from(chance.below(ports)).unwrap_or(0))
        .take(100)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port")
}

/// A client that never gives up before its rig does.
///
/// # Errors
/// Where the address cannot be used.
pub fn patient(url: &str) -> Result<Client> {
    Ok(Client::connect(ClientOptions {
        retries: 100_000,
        command_timeout: Duration::from_secs(300),
        retry_delay: Duration::from_millis(20),
        ..ClientOptions::at(url)
    })?)
}

/// Prints the line of a rig, past the capture of the test runner, and appends it to the file that
/// `LOOPWRIGHT_TEST_RIG_LINES` names.
pub fn say(line: &str) {
    let mut all = std::io::stderr();
    // A line that cannot be printed is missed by those who look for it.
    let _ = writeln!(all, "{line}");
    if let Some(path) = std::env::var_os("LOOPWRIGHT_TEST_RIG_LINES") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

impl Chance {
    /// The chance of one part of a rig.
    #[must_use]
    pub fn new(seed: u64, part: u64) -> Self {
        Self(seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// A place in something of this length, which is not empty.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }
}

impl Outcome {
    /// Nothing has been found yet.
    #[must_use]
    pub fn new(name: &'static str, seed: u64) -> Self {
        Self {
            name,
            seed,
            began: Instant::now(),
            counts: Vec::new(),
            skipped: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// The seed of the run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds to a count of the line; counts stand in the order in which they were first named.
    pub fn count(&mut self, what: &str, times: u64) {
        match self.counts.iter_mut().find(|(known, _)| known == what) {
            Some((_, count)) => *count += times,
            None => self.counts.push((what.to_owned(), times)),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self, what: &str) -> u64 {
        let found = self.counts.iter().find(|(known, _)| known == what);
        found.map_or(0, |(_, count)| *count)
    }

    /// Takes a count out of the line: the number of runs stands elsewhere.
    pub fn take_count(&mut self, what: &str) -> u64 {
        let count = self.counted(what);
        self.counts.retain(|(known, _)| known != what);
        count
    }

    /// Says by name, in the line too, what could not be run here.
    pub fn skipped(&mut self, what: &str, why: &str) {
        crate::kit::skipped(&format!("rig {} {what}", self.name), why);
        self.skipped.push(what.to_owned());
    }

    /// As [`Self::skipped`], for what CI must not skip.
    pub fn must_not_skip(&mut self, what: &str, why: &str) {
        self.skipped(what, why);
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            self.wrong(format!("{what} was skipped, and CI is to run it: {why}"));
        }
    }

    /// Notes a wrong.
    pub fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// Notes a wrong of a kind that the line counts.
    pub fn wrong_as(&mut self, kind: &str, what: impl Into<String>) {
        self.count(kind, 1);
        self.wrong(what);
    }

    /// Notes `what` where `holds` does not.
    pub fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    /// Notes the error of one of the rig's runs.
    pub fn take(&mut self, what: &str, done: Result<()>) {
        if let Err(error) = done {
            self.wrong(format!("{what}: {error:#}"));
        }
    }

    /// Adds what a part of the rig has found.
    pub fn absorb(&mut self, part: Outcome) {
        for (what, times) in part.counts {
            self.count(&what, times);
        }
        self.skipped.extend(part.skipped);
        self.wrong.extend(part.wrong);
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The wrongs, in words.
    #[must_use]
    pub fn wrongs(&self) -> &[String] {
        &self.wrong
    }

    /// The line of the run.
    #[must_use]
    pub fn line(&self, runs: u64) -> String {
        let mut line = format!("rig {} seed={} runs={runs}", self.name, self.seed);
        for (what, count) in &self.counts {
            line.push_str(&format!(" {what}={count}"));
        }
        for what in &self.skipped {
            line.push_str(&format!(" skipped={what}"));
        }
        let seconds = self.began.elapsed().as_secs();
        let verdict = if self.is_ok() { "ok" } else { "FAILED" };
        line.push_str(&format!(
            " wrong={} seconds={seconds} {verdict}",
            self.wrong.len()
        ));
        line
    }

    /// Says the line of `runs` runs.
    ///
    /// # Errors
    /// Where anything is wrong; with the first wrongs, and how to draw the same again.
    pub fn finish(self, runs: u64) -> Result<()> {
        say(&self.line(runs));
        self.verdict()
    }

    fn verdict(self) -> Result<()> {
        if self.is_ok() {
            return Ok(());
        }
        let mut told: Vec<&str> = self.wrong.iter().take(TOLD).map(String::as_str).collect();
        let more = self.wrong.len().saturating_sub(TOLD);
        let more = (more > 0).then(|| format!("and {more} more"));
        told.extend(more.as_deref());
        let seed = self.seed;
        bail!(
            "{}\nLOOPWRIGHT_RIG_SEED={seed} draws the same again",
            told.join("\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rig_that_found_something_wrong_fails_and_says_so() {
        let mut outcome = Outcome::new("oracle", 7);
        outcome.count("flips", 2);
        outcome.count("flips", 3);
        assert!(
            outcome
                .line(5)
                .starts_with("rig oracle seed=7 runs=5 flips=5 wrong=0")
        );
        assert!(outcome.line(5).ends_with(" ok"));
        let mut part = Outcome::new("oracle", 7);
        part.expect(true, || unreachable!("it holds"));
        part.expect(false, || "an entry is lost".to_owned());
        outcome.absorb(part);
        assert!(outcome.line(5).ends_with(" FAILED"));
        let error = outcome.verdict().expect_err("a wrong fails the rig");
        let words = error.to_string();
        assert!(words.contains("an entry is lost") && words.contains("LOOPWRIGHT_RIG_SEED=7"));
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed, part| {
            let mut chance = Chance::new(seed, part);
            [(); 4].map(|()| chance.below(1_000))
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }
}
