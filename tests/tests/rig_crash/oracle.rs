//! What a run comes to: the counts, and everything that is wrong.

use std::{collections::BTreeMap, fmt};

use super::{plan::Plan, sidecar::TOOLS};

/// Wrongs that are told in words; all are counted.
const TOLD: usize = 20;

/// What a run comes to.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sessions: u64,
    pub(super) loops: u64,
    pub(super) entries: u64,
    /// Commands that were acknowledged.
    pub(super) commands: u64,
    /// Times that a watch went on by cursor.
    pub(super) interruptions: u64,
    pub(super) calls: u64,
    /// Calls that ended as unknown.
    pub(super) unknown: u64,
    /// Effects, by tool.
    pub(super) effects: BTreeMap<String, u64>,
    /// Acknowledged entries and commands that the log does not have, or has otherwise.
    pub(super) lost: u64,
    /// Entries and commands that are there twice.
    pub(super) duplicated: u64,
    /// Entries that came out of order.
    pub(super) reordered: u64,
    /// Everything else that is wrong, and the above in words.
    wrong: Vec<String>,
}

impl Report {
    /// Notes a wrong.
    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    pub(super) fn lost(&mut self, what: impl Into<String>) {
        self.lost += 1;
        self.wrong(what);
    }

    pub(super) fn duplicated(&mut self, what: impl Into<String>) {
        self.duplicated += 1;
        self.wrong(what);
    }

    pub(super) fn reordered(&mut self, what: impl Into<String>) {
        self.reordered += 1;
        self.wrong(what);
    }

    /// Notes `what` where `holds` does not.
    pub(super) fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(what());
        }
    }

    /// Whether nothing is wrong.
    pub(super) fn is_ok(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The line of the run.
    pub(super) fn line(&self, plan: &Plan, seconds: u64) -> String {
        let Plan { seed, kills } = plan;
        let verdict = if self.is_ok() { "ok" } else { "FAILED" };
        format!("rig crash seed={seed} runs={kills} {self} seconds={seconds} {verdict}")
    }

    /// The first wrongs, a line each.
    pub(super) fn wrongs(&self) -> String {
        let mut lines: Vec<String> = self.wrong.iter().take(TOLD).cloned().collect();
        if self.wrong.len() > TOLD {
            lines.push(format!("and {} more", self.wrong.len() - TOLD));
        }
        lines.join("\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sessions={} loops={} entries={} commands={} interruptions={} calls={}",
            self.sessions, self.loops, self.entries, self.commands, self.interruptions, self.calls
        )?;
        for (tool, class) in TOOLS {
            let effects = self.effects.get(tool).copied().unwrap_or(0);
            let class = class.as_str_name().trim_start_matches("EFFECT_CLASS_");
            write!(f, " {}_effects={effects}", class.to_lowercase())?;
        }
        write!(
            f,
            " unknown={} lost={} duplicated={} reordered={} wrong={}",
            self.unknown,
            self.lost,
            self.duplicated,
            self.reordered,
            self.wrong.len()
        )
    }
}
