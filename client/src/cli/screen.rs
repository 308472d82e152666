//! Lines of a terminal that are drawn over.
//!
//! Boundary: draws to standard output, by `indicatif`. Invariant: never more lines than the terminal has,
//! none longer than it is wide.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Most lines, however tall the terminal is.
const MAX_LINES: usize = 200;

/// Some lines of a terminal.
pub(super) struct Screen {
    all: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            lines: Vec::new(),
        }
    }

    /// Shows these lines in place of those before.
    pub(super) fn draw(&mut self, lines: &[String]) {
        let lines = &lines[..lines.len().min(MAX_LINES)];
        while self.lines.len() > lines.len() {
            if let Some(last) = self.lines.pop() {
                last.finish_and_clear();
                self.all.remove(&last);
            }
        }
        while self.lines.len() < lines.len() {
            let style = ProgressStyle::with_template("{wide_msg}")
                .expect("the template is a constant that a test renders");
            let line = self.all.add(ProgressBar::new_spinner());
            line.set_style(style);
            self.lines.push(line);
        }
        for (line, text) in self.lines.iter().zip(lines) {
            // An empty message draws no line.
            let text = if text.is_empty() { " " } else { text };
            if line.message() != text {
                line.set_message(text.to_owned());
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // What was shown last stays.
        self.lines.iter().for_each(ProgressBar::abandon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_and_go() {
        let mut screen = Screen {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            lines: Vec::new(),
        };
        let drawn = |screen: &Screen| -> Vec<String> {
            screen.lines.iter().map(ProgressBar::message).collect()
        };
        for lines in [vec!["a", "", "b"], vec!["c"], vec!["c", "d"]] {
            let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            screen.draw(&lines);
            // An empty bar would not be drawn.
            let shown = |line: &String| match line.as_str() {
                "" => " ".to_owned(),
                line => line.to_owned(),
            };
            let expected: Vec<String> = lines.iter().map(shown).collect();
            assert_eq!(drawn(&screen), expected);
        }
        screen.draw(&vec!["x".to_owned(); 1_000]);
        assert_eq!(screen.lines.len(), MAX_LINES);
    }
}
