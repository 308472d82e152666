//! A session as it runs: the replies' text as it comes, tool calls as lines, one line at the end.
//!
//! ```text
//! WatchEvent --feed--> Piece::Text      the reply's own words      -> standard output of `run`
//!                      Piece::Line      what happened              -> standard error of `run`
//!                      Piece::Started.. a tool call while it runs  -> a spinner, where there is a terminal
//! ```
//!
//! Boundary: what is shown, not where. Invariant: the text shown of a reply is that reply's text, once: a
//! hole in the deltas is filled from the reply's entry, and text that became void is said to be void.

use std::collections::BTreeMap;
use std::io::{self, Write};

use loopwright_proto::v1::{
    Delta, Entry, LoopEnded, MessageAdded, MessageOrigin, ModelCallCompleted, ModelCallPurpose,
    PendingState, UnknownPolicy, delta::Content, event::Kind, part,
};
use loopwright_proto::well_known::Timestamp;

use super::ending::summary_line;
use super::event::{describe, failed_words, quote, result_words, tool_failed_words};
use super::wait::{Answering, answered_words, asked_words, resolved_words, unknown_words};
use super::words::{QUOTE, between, duration, label, one_line, printable, time_words};
use crate::{TextAssembler, WatchEvent};

/// How a view looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Colours by ANSI sequences. Default false.
    pub color: bool,
    /// The user's own messages too; `run` leaves out what was just typed. Default false.
    pub user_messages: bool,
}

/// Something to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The reply's own words; no line break is added.
    Text(String),
    /// A line about what happened, without its line break.
    Line(String),
    /// A tool call began.
    Started {
        /// The tool call.
        call: String,
        /// Its tool and arguments.
        line: String,
    },
    /// A tool call says how far it is.
    Progress {
        /// The tool call.
        call: String,
        /// How far.
        line: String,
    },
    /// A tool call ended.
    Ended {
        /// The tool call.
        call: String,
        /// How, and how long it took.
        line: String,
    },
}

/// Turns what a watch brings into text.
#[derive(Debug, Clone)]
pub struct RunView {
    style: Style,
    answering: Answering,
    text: TextAssembler,
    tools: BTreeMap<String, ToolCall>,
    mid_line: bool,
    loop_started_at: Option<Timestamp>,
    ended: Option<LoopEnded>,
}

#[derive(Debug, Clone, Default)]
struct ToolCall {
    words: String,
    started_at: Option<Timestamp>,
}

impl RunView {
    /// A view over a session that is watched after `after_seq`.
    #[must_use]
    pub fn new(style: Style, after_seq: u64) -> Self {
        Self {
            style,
            answering: Answering::default(),
            text: TextAssembler::new(after_seq),
            tools: BTreeMap::new(),
            mid_line: false,
            loop_started_at: None,
            ended: None,
        }
    }

    /// The same view, whose commands for a person who is asked name this server.
    #[must_use]
    pub fn answering(mut self, answering: Answering) -> Self {
        self.answering = answering;
        self
    }

    /// How the last loop ended; none while one goes on.
    #[must_use]
    pub fn ended(&self) -> Option<&LoopEnded> {
        self.ended.as_ref()
    }

    /// Takes an event and writes what it shows, everything to one place.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&mut self, event: &WatchEvent, out: &mut dyn Write) -> io::Result<()> {
        for piece in self.feed(event) {
            match piece {
                Piece::Text(text) => write!(out, "{text}")?,
                Piece::Line(line) | Piece::Started { line, .. } | Piece::Ended { line, .. } => {
                    writeln!(out, "{line}")?;
                }
                Piece::Progress { .. } => {}
            }
        }
        out.flush()
    }

    /// Takes an event: what it shows.
    pub fn feed(&mut self, event: &WatchEvent) -> Vec<Piece> {
        let mut pieces = Vec::new();
        match event {
            WatchEvent::Entry(entry) => self.entry(entry, &mut pieces),
            WatchEvent::Delta(delta) => self.delta(delta, &mut pieces),
            WatchEvent::Heartbeat { .. } => {}
            WatchEvent::Interrupted { error, retry_in } => {
                let wait = time_words(*retry_in);
                let line = format!("· connection lost ({error}); trying again in {wait}");
                self.line(&line, Paint::Dim, &mut pieces);
            }
        }
        pieces
    }

    fn delta(&mut self, delta: &Delta, pieces: &mut Vec<Piece>) {
        let Some(delta) = self.text.delta(delta.clone()) else {
            return;
        };
        match delta.content {
            Some(Content::Text(text)) => self.show(&text, pieces),
            Some(Content::ToolProgress(progress)) => {
                let share = progress
                    .fraction
                    .filter(|share| (0.0..=1.0).contains(share));
                let share = share.map_or(String::new(), |share| format!("{:.0} % ", share * 100.0));
                pieces.push(Piece::Progress {
                    line: format!("{share}{}", one_line(&progress.message, QUOTE)),
                    call: delta.call,
                });
            }
            Some(Content::Thinking(_)) | None => {}
        }
    }

    fn entry(&mut self, entry: &Entry, pieces: &mut Vec<Piece>) {
        let at = entry.committed_at.as_ref();
        for event in &entry.events {
            match &event.kind {
                // What is told of a recap is the compaction that it was for.
                Some(Kind::ModelCallCompleted(e)) if e.purpose() == ModelCallPurpose::Recap => {}
                Some(Kind::ModelCallCompleted(e)) => self.completed(e, pieces),
                Some(Kind::ModelCallFailed(e)) => {
                    let line = format!("✗ model call failed, {}", failed_words(e));
                    self.void(&e.call, &line, pieces);
                }
                Some(Kind::ModelCallAbandoned(e)) => {
                    let reason = label(e.reason().as_str_name(), "ABANDON_REASON_");
                    self.void(&e.call, &format!("· reply given up ({reason})"), pieces);
                }
                Some(Kind::MessageAdded(e)) => self.message(e, pieces),
                Some(Kind::LoopStarted(_)) => {
                    self.loop_started_at = at.copied();
                    self.ended = None;
                }
                Some(Kind::LoopEnded(e)) => self.end(e, at, pieces),
                Some(kind) => {
                    if !self.tool(kind, at, pieces) && !self.wait(kind, pieces) {
                        self.aside(kind, pieces);
                    }
                    self.ask(&entry.session_id, kind, pieces);
                }
                None if event.ignorable => {}
                None => {
                    let line = "! an event of a newer version: upgrade to read this session";
                    self.line(line, Paint::Red, pieces);
                }
            }
        }
        self.text.entry(entry);
    }

    /// Events of tool calls; false for any other.
    fn tool(&mut self, kind: &Kind, at: Option<&Timestamp>, pieces: &mut Vec<Piece>) -> bool {
        match kind {
            Kind::ToolCallRequested(e) => self.requested(&e.call, &e.tool, &e.arguments_json),
            Kind::ToolCallStarted(e) => self.started(&e.call, e.attempt, at, pieces),
            Kind::ToolCallCompleted(e) => {
                let took = duration(e.latency.as_ref()).or_else(|| self.took(&e.call, at));
                if e.result.as_ref().is_some_and(|result| result.is_error) {
                    let words = result_words(e.result.as_ref());
                    self.ended_tool(&e.call, took, &Mark::Bad(words), pieces);
                } else {
                    self.ended_tool(&e.call, took, &Mark::Good, pieces);
                }
            }
            Kind::ToolCallFailed(e) => {
                let took = self.took(&e.call, at);
                self.ended_tool(&e.call, took, &Mark::Bad(tool_failed_words(e)), pieces);
            }
            Kind::ToolCallRejected(e) => {
                let words = format!("refused: {}", one_line(&e.message, 2 * QUOTE));
                self.ended_tool(&e.call, None, &Mark::Bad(words), pieces);
            }
            Kind::ToolCallCancelled(e) => {
                let words = if e.dispatched {
                    "cancelled; it may have run"
                } else {
                    "cancelled; it did not run"
                };
                let took = self.took(&e.call, at);
                self.ended_tool(&e.call, took, &Mark::Bad(words.to_owned()), pieces);
            }
            Kind::ToolCallInDoubt(e) => {
                let words = format!("in doubt: {}", one_line(&e.reason, 2 * QUOTE));
                let took = self.took(&e.call, at);
                self.ended_tool(&e.call, took, &Mark::Bad(words), pieces);
            }
            Kind::ToolCallUnknown(e) => {
                let words = format!("it cannot be known whether it ran: {}", unknown_words(e));
                let took = self.took(&e.call, at);
                self.ended_tool(&e.call, took, &Mark::Bad(words), pieces);
            }
            _ => return false,
        }
        true
    }

    /// Events of waits for a person; false for any other.
    fn wait(&mut self, kind: &Kind, pieces: &mut Vec<Piece>) -> bool {
        let (call, mark, paint, words) = match kind {
            Kind::ApprovalRequested(e) => (&e.call, "?", Paint::Yellow, asked_words(e)),
            Kind::ApprovalResolved(e) => (&e.call, "·", Paint::Dim, answered_words(e)),
            Kind::UnknownResolved(e) => (&e.call, "·", Paint::Dim, resolved_words(e)),
            _ => return false,
        };
        let name = self.tools.get(call).cloned().unwrap_or_default().name(call);
        let asks = if paint == Paint::Yellow {
            " waits for approval"
        } else {
            ""
        };
        self.line(&format!("{mark} {name}{asks}: {words}"), paint, pieces);
        true
    }

    /// How to answer what the event asks a person.
    fn ask(&mut self, session: &str, kind: &Kind, pieces: &mut Vec<Piece>) {
        let (call, state) = match kind {
            Kind::ApprovalRequested(e) => (&e.call, PendingState::Approval),
            Kind::ToolCallUnknown(e) if e.policy() == UnknownPolicy::Ask => {
                (&e.call, PendingState::Unknown)
            }
            Kind::LoopPaused(e) => {
                if let Some(line) = self.answering.goes_on(session, e) {
                    self.line(&line, Paint::Yellow, pieces);
                }
                return;
            }
            _ => return,
        };
        for line in self.answering.commands(session, call, state) {
            self.line(&line, Paint::Yellow, pieces);
        }
    }

    /// Events that a person should see in passing; the others are for the log alone.
    fn aside(&mut self, kind: &Kind, pieces: &mut Vec<Piece>) {
        let (mark, paint) = match kind {
            Kind::DriverAttached(e) if e.epoch > 1 => {
                let line = format!("· taken up again by a server (epoch {})", e.epoch);
                return self.line(&line, Paint::Dim, pieces);
            }
            Kind::BudgetWarning(_) | Kind::BudgetOverrun(_) | Kind::LoopPaused(_) => {
                ("!", Paint::Yellow)
            }
            Kind::ToolCallResultLate(_)
            | Kind::ContextCompacted(_)
            | Kind::LoopResumed(_)
            | Kind::LimitsUpdated(_)
            | Kind::LogRecovered(_) => ("·", Paint::Dim),
            _ => return,
        };
        let (name, words) = describe(Some(kind));
        self.line(&format!("{mark} {name} {words}"), paint, pieces);
    }

    fn completed(&mut self, e: &ModelCallCompleted, pieces: &mut Vec<Piece>) {
        let parts = e.message.as_ref().map(|message| message.parts.as_slice());
        let (mut whole, mut clamped) = (String::new(), false);
        for part in parts.unwrap_or_default() {
            match &part.kind {
                Some(part::Kind::Text(text)) => {
                    whole.push_str(text);
                    clamped = clamped || part.full.is_some();
                }
                Some(part::Kind::ToolCall(call)) => {
                    self.requested(&call.call, &call.tool, &call.arguments_json);
                }
                _ => {}
            }
        }
        let shown = self.text.text(&e.call).unwrap_or_default().to_owned();
        match whole.strip_prefix(shown.as_str()) {
            Some(rest) => self.show(rest, pieces),
            // The log keeps less of a very long reply than was shown.
            None if clamped => {}
            None => {
                self.line("· the reply as it was logged:", Paint::Dim, pieces);
                self.show(&whole, pieces);
            }
        }
        self.new_line(pieces);
    }

    /// An attempt is over without a reply: its text, as far as it was shown, does not count.
    fn void(&mut self, call: &str, line: &str, pieces: &mut Vec<Piece>) {
        let shown = self.text.text(call).is_some_and(|text| !text.is_empty());
        let void = if shown { "; what it said is void" } else { "" };
        self.line(&format!("{line}{void}"), Paint::Yellow, pieces);
    }

    fn message(&mut self, e: &MessageAdded, pieces: &mut Vec<Piece>) {
        let words = quote(e.message.as_ref());
        match e.origin() {
            MessageOrigin::User if !self.style.user_messages => {}
            MessageOrigin::User => self.line(&format!("> {words}"), Paint::Bold, pieces),
            MessageOrigin::Nudge => self.line(&format!("· nudge: {words}"), Paint::Dim, pieces),
            other => {
                let origin = label(other.as_str_name(), "MESSAGE_ORIGIN_");
                self.line(&format!("> ({origin}) {words}"), Paint::Bold, pieces);
            }
        }
    }

    fn requested(&mut self, call: &str, tool: &str, arguments: &str) {
        // The arguments may stand in the reply alone, or in both.
        let known = self
            .tools
            .get(call)
            .is_some_and(|known| known.words.contains(' '));
        if known && arguments.is_empty() {
            return;
        }
        let words = format!("{} {}", one_line(tool, QUOTE), one_line(arguments, QUOTE));
        let words = words.trim_end().to_owned();
        self.tools.entry(call.to_owned()).or_default().words = words;
    }

    fn started(
        &mut self,
        call: &str,
        attempt: u32,
        at: Option<&Timestamp>,
        pieces: &mut Vec<Piece>,
    ) {
        self.new_line(pieces);
        let tool = self.tools.entry(call.to_owned()).or_default();
        tool.started_at = at.copied();
        let name = tool.name(call);
        let again = if attempt > 1 {
            format!(" (attempt {attempt})")
        } else {
            String::new()
        };
        pieces.push(Piece::Started {
            call: call.to_owned(),
            line: self.style.paint(&format!("→ {name}{again}"), Paint::Dim),
        });
    }

    fn took(&self, call: &str, at: Option<&Timestamp>) -> Option<std::time::Duration> {
        between(self.tools.get(call)?.started_at.as_ref(), at)
    }

    fn ended_tool(
        &mut self,
        call: &str,
        took: Option<std::time::Duration>,
        mark: &Mark,
        pieces: &mut Vec<Piece>,
    ) {
        self.new_line(pieces);
        let known = self.tools.get(call).cloned().unwrap_or_default();
        let took = took.map_or(String::new(), |took| format!("  {}", time_words(took)));
        let name = known.name(call);
        let line = match mark {
            Mark::Good => format!("{} {name}{took}", self.style.paint("✓", Paint::Green)),
            Mark::Bad(words) => {
                let cross = self.style.paint("✗", Paint::Red);
                format!("{cross} {name}{took}: {words}")
            }
        };
        pieces.push(Piece::Ended {
            call: call.to_owned(),
            line,
        });
    }

    fn end(&mut self, e: &LoopEnded, at: Option<&Timestamp>, pieces: &mut Vec<Piece>) {
        let mut end = e.clone();
        // A server that did not measure the time still dated both ends of it.
        if let Some(totals) = end.totals.as_mut().filter(|t| t.wall_time.is_none()) {
            let took = between(self.loop_started_at.as_ref(), at);
            totals.wall_time = took.map(Into::into);
        }
        self.line(&summary_line(&end), Paint::Dim, pieces);
        self.tools.clear();
        self.ended = Some(end);
    }

    fn show(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        let text = printable(text);
        if let Some(last) = text.chars().last() {
            self.mid_line = last != '\n';
            pieces.push(Piece::Text(text));
        }
    }

    fn line(&mut self, line: &str, paint: Paint, pieces: &mut Vec<Piece>) {
        self.new_line(pieces);
        pieces.push(Piece::Line(self.style.paint(line, paint)));
    }

    fn new_line(&mut self, pieces: &mut Vec<Piece>) {
        if std::mem::take(&mut self.mid_line) {
            pieces.push(Piece::Text("\n".to_owned()));
        }
    }
}

enum Mark {
    Good,
    Bad(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl ToolCall {
    fn name(&self, call: &str) -> String {
        if self.words.is_empty() {
            return format!("tool call {call}");
        }
        self.words.clone()
    }
}

impl Style {
    fn paint(self, words: &str, paint: Paint) -> String {
        if !self.color {
            return words.to_owned();
        }
        let code = match paint {
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Red => 31,
            Paint::Green => 32,
            Paint::Yellow => 33,
        };
        format!("\u{1b}[{code}m{words}\u{1b}[0m")
    }
}
