//! What waits for a person, tool calls and paused loops: what is asked, until when, and the commands that
//! answer.
//!
//! Boundary: the events of a wait in, lines out. Invariant: whoever is told of a wait is told the exact
//! command that ends it.

use std::collections::BTreeMap;

use loopwright_proto::v1::{
    ApprovalOutcome, ApprovalReason, ApprovalRequested, ApprovalResolved, BudgetDimension,
    BudgetScope, Entry, LoopPaused, PendingCall, PendingState, ToolCallUnknown, UnknownPolicy,
    UnknownResolution, UnknownResolved, event::Kind,
};

use super::words::{QUOTE, one_line, timestamp_words};

/// Where answers are to be given: how each command line that a view shows ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answering {
    /// ` --server URL`, or empty for the default address.
    server: String,
}

/// Tool calls of one session that wait for a person, as far as its entries tell.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    session: String,
    tools: BTreeMap<String, String>,
    open: BTreeMap<String, PendingState>,
}

impl Answering {
    /// At the server of this address.
    #[must_use]
    pub fn at(url: &str) -> Self {
        let server = if url == crate::DEFAULT_URL {
            String::new()
        } else {
            format!(" --server {url}")
        };
        Self { server }
    }

    /// The command lines that answer a call which waits, each with what it says; none for a call that
    /// waits for no person.
    #[must_use]
    pub fn commands(&self, session: &str, call: &str, state: PendingState) -> Vec<String> {
        let server = &self.server;
        let answers: &[(&str, &str, &str)] = match state {
            PendingState::Approval => &[
                ("run it:", "approve", ""),
                ("do not run it:", "deny", " --reason \"..\""),
            ],
            PendingState::Unknown => &[
                ("it ran:", "resolve", " happened --result \"..\""),
                ("it did not run:", "resolve", " did-not-happen"),
                ("run it again:", "resolve", " run-again"),
                ("leave it unknown:", "resolve", " tell-model"),
            ],
            _ => &[],
        };
        let line = |(meaning, command, rest): &(&str, &str, &str)| {
            format!("  {meaning:<18}loopwright {command} {session} {call}{rest}{server}")
        };
        answers.iter().map(line).collect()
    }

    /// The command line that lets a paused loop go on; none where this version knows of none.
    #[must_use]
    pub fn goes_on(&self, session: &str, paused: &LoopPaused) -> Option<String> {
        let server = &self.server;
        let (meaning, command) = match &paused.budget {
            None => ("go on:", format!("resume {session}")),
            Some(detail) => {
                let limit = limit_flag(detail.dimension())?;
                let budget = detail.budget.as_ref()?;
                let command = match budget.scope() {
                    BudgetScope::Loop => format!("limits {session} --{limit} .."),
                    BudgetScope::Session => format!("limits {session} --session-{limit} .."),
                    BudgetScope::Named => format!("budget set {} --{limit} ..", budget.name),
                    BudgetScope::Namespace => format!("budget set namespace --{limit} .."),
                    BudgetScope::Unspecified => return None,
                };
                ("raise it:", command)
            }
        };
        Some(format!("  {meaning:<18}loopwright {command}{server}"))
    }
}

/// The flag that sets the limit of a dimension.
fn limit_flag(dimension: BudgetDimension) -> Option<&'static str> {
    Some(match dimension {
        BudgetDimension::InputTokens => "max-input-tokens",
        BudgetDimension::OutputTokens => "max-output-tokens",
        BudgetDimension::TotalTokens => "max-tokens",
        BudgetDimension::CostMicroUsd => "max-cost",
        BudgetDimension::ModelCalls => "max-model-calls",
        BudgetDimension::ToolCalls => "max-tool-calls",
        BudgetDimension::WallTimeMs => "max-wall-time",
        BudgetDimension::Unspecified => return None,
    })
}

impl Waits {
    /// Takes an entry into account.
    pub fn entry(&mut self, entry: &Entry) {
        self.session.clone_from(&entry.session_id);
        for event in &entry.events {
            match &event.kind {
                Some(Kind::ToolCallRequested(e)) => {
                    self.tools.insert(e.call.clone(), e.tool.clone());
                }
                Some(Kind::ApprovalRequested(e)) => {
                    self.open.insert(e.call.clone(), PendingState::Approval);
                }
                Some(Kind::ToolCallUnknown(e)) if e.policy() == UnknownPolicy::Ask => {
                    self.open.insert(e.call.clone(), PendingState::Unknown);
                }
                Some(Kind::ApprovalResolved(e)) => drop(self.open.remove(&e.call)),
                Some(Kind::UnknownResolved(e)) => drop(self.open.remove(&e.call)),
                Some(Kind::LoopEnded(_)) => {
                    self.open.clear();
                    self.tools.clear();
                }
                _ => {}
            }
        }
    }

    /// The calls that wait, each with the commands that answer.
    #[must_use]
    pub fn lines(&self, answering: &Answering) -> Vec<String> {
        let mut lines = Vec::new();
        for (call, state) in &self.open {
            let tool = self.tools.get(call).map_or("a tool call", String::as_str);
            let what = match state {
                PendingState::Approval => "waits for approval",
                _ => "waits for a word on whether it ran",
            };
            lines.push(format!("? {call} ({}) {what}", one_line(tool, QUOTE)));
            lines.extend(answering.commands(&self.session, call, *state));
        }
        lines
    }
}

/// What an ApprovalRequested asks.
pub(super) fn asked_words(e: &ApprovalRequested) -> String {
    let why = match e.reason() {
        ApprovalReason::RepeatsUnknown => {
            "the same call had an unknown outcome before, and may have run"
        }
        ApprovalReason::Policy => "the agent's policy",
        ApprovalReason::Unspecified => "a reason that this version does not know",
    };
    let then = if e.allow_on_expiry {
        "it is run"
    } else {
        "it is denied"
    };
    match &e.expires_at {
        Some(at) => format!(
            "{why}; without an answer {then} at {} UTC",
            timestamp_words(at)
        ),
        None => why.to_owned(),
    }
}

/// How an approval ended.
pub(super) fn answered_words(e: &ApprovalResolved) -> String {
    let words = match e.outcome() {
        ApprovalOutcome::Allowed => "allowed".to_owned(),
        ApprovalOutcome::Denied => "denied".to_owned(),
        ApprovalOutcome::Edited => "allowed with other arguments".to_owned(),
        ApprovalOutcome::Expired if e.allowed => "nobody answered in time: it is run".to_owned(),
        ApprovalOutcome::Expired => "nobody answered in time: denied".to_owned(),
        ApprovalOutcome::Cancelled => "no longer asked: the loop ended".to_owned(),
        ApprovalOutcome::Unspecified => format!("ended in a way unknown here ({})", e.outcome),
    };
    by_and_why(words, &e.by, &e.reason)
}

/// What a call in the dark was said to have done.
pub(super) fn resolved_words(e: &UnknownResolved) -> String {
    let words = match e.resolution() {
        UnknownResolution::Happened => "it ran".to_owned(),
        UnknownResolution::DidNotHappen => "it did not run".to_owned(),
        UnknownResolution::RunAgain => "it is run again".to_owned(),
        UnknownResolution::TellModel => "it stays unknown, and the model is told so".to_owned(),
        UnknownResolution::Cancelled => "no longer asked: the loop ended".to_owned(),
        UnknownResolution::Unspecified => {
            format!("ended in a way unknown here ({})", e.resolution)
        }
    };
    by_and_why(words, &e.by, &e.reason)
}

/// Why nobody can tell what a call did, and what follows.
pub(super) fn unknown_words(e: &ToolCallUnknown) -> String {
    let reason = one_line(&e.reason, 2 * QUOTE);
    let follows = match e.policy() {
        UnknownPolicy::Ask => "a person is asked",
        UnknownPolicy::TellModel => "the model is told so",
        UnknownPolicy::End => "the loop ends",
        UnknownPolicy::Unspecified => "what follows is not known here",
    };
    format!("{reason}; {follows}")
}

/// When the wait of a pending call ends by itself; empty where it does not.
#[must_use]
pub fn until_words(call: &PendingCall) -> String {
    let at = call.expires_at.as_ref().map(timestamp_words);
    at.map_or(String::new(), |at| at.chars().take(19).collect())
}

fn by_and_why(mut words: String, by: &str, reason: &str) -> String {
    if !by.is_empty() {
        words.push_str(&format!(", says {}", one_line(by, QUOTE)));
    }
    if !reason.is_empty() {
        words.push_str(&format!(": {}", one_line(reason, 2 * QUOTE)));
    }
    words
}
