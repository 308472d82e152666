//! A spinner with the time for each tool call that runs.
//!
//! Boundary: draws to standard error, by `indicatif`. Invariant: at most
//! [`MAX_SPINNERS`] lines move at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// More lines than that would scroll most terminals; further calls have no spinner.
const MAX_SPINNERS: usize = 16;
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Spinners {
    all: MultiProgress,
    running: BTreeMap<String, ProgressBar>,
}

impl Spinners {
    pub(super) fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            running: BTreeMap::new(),
        }
    }

    pub(super) fn start(&mut self, call: &str, line: &str) {
        if self.running.len() >= MAX_SPINNERS {
            return;
        }
        let style = ProgressStyle::with_template("{spinner} {prefix}  {elapsed} {wide_msg}")
            .expect("the template is a constant that a test renders")
            .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ");
        let bar = self.all.add(ProgressBar::new_spinner());
        bar.set_style(style);
        bar.set_prefix(line.to_owned());
        bar.enable_steady_tick(TICK);
        if let Some(before) = self.running.insert(call.to_owned(), bar) {
            before.finish_and_clear();
        }
    }

    pub(super) fn progress(&mut self, call: &str, line: &str) {
        if let Some(bar) = self.running.get(call) {
            bar.set_message(line.to_owned());
        }
    }

    pub(super) fn end(&mut self, call: &str) {
        if let Some(bar) = self.running.remove(call) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    pub(super) fn clear(&mut self) {
        for (_, bar) in std::mem::take(&mut self.running) {
            bar.finish_and_clear();
        }
    }

    /// Writes while the spinners are out of the way.
    pub(super) fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        if self.running.is_empty() {
            return write();
        }
        self.all.suspend(write)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SPINNERS, Spinners};

    #[test]
    fn spinners_are_bounded_and_end_with_their_calls() {
        let mut spinners = Spinners::new();
        for call in 0..MAX_SPINNERS + 5 {
            spinners.start(&format!("c{call}"), "calc__add");
        }
        assert_eq!(spinners.running.len(), MAX_SPINNERS);
        spinners.progress("c0", "half");
        spinners.end("c0");
        assert!(!spinners.running.contains_key("c0"));
        spinners.clear();
        assert!(spinners.running.is_empty());
    }
}
