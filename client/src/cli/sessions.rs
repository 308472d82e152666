//! `loopwright sessions list` and `sessions show`.
//!
//! Boundary: ListSessions, page by page up to a limit; one session with the calls that wait. Invariant: what
//! was left out is said.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use loopwright_proto::v1::{
    GetLoopRequest, GetSessionRequest, ListSessionsRequest, LoopState, LoopSummary, PendingCall,
    SessionState, SessionSummary, Totals,
};
use loopwright_proto::well_known::Timestamp;

use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;
use crate::render::{
    Answering, age_words, cached_words, cost_words, read_tokens, table, timestamp_words,
    token_words, until_words,
};

/// Pages that are read at most for a list that a filter of this side thins out.
const MAX_PAGES: usize = 1_000;
/// Characters of what is wrong with a session.
const PROBLEM: usize = 500;

/// Sessions of the server.
#[derive(Debug, Clone, Subcommand)]
pub enum SessionsCommand {
    /// List sessions, the latest change first
    List(ListSessions),
    /// Show one session, with the tool calls that are not done
    Show(ShowSession),
}

/// List sessions, the latest change first.
#[derive(Debug, Clone, Args)]
pub struct ListSessions {
    /// Only those in this state; may be given more than once
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Vec<Standing>,
    /// Only those with this label; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Only those of the agent of this name
    #[arg(long, value_name = "NAME", default_value = "")]
    pub agent: String,
    /// Most sessions to show
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// One session a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Show one session, with the tool calls that are not done.
#[derive(Debug, Clone, Args)]
pub struct ShowSession {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// One object, as JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Where a session stands, its loop included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Standing {
    /// No loop is going on
    Idle,
    /// A loop is going on: running, waiting or paused
    Active,
    /// A loop calls a model or tools
    Running,
    /// A loop waits for a person
    Waiting,
    /// A loop is paused
    Paused,
    /// The log is damaged
    Corrupt,
    /// Its driver failed again and again
    Failed,
}

impl SessionsCommand {
    pub(super) fn connect_args(&self) -> &ConnectArgs {
        match self {
            Self::List(list) => &list.connect,
            Self::Show(show) => &show.connect,
        }
    }

    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        match self {
            Self::List(list) => list.execute(client, terminal).await,
            Self::Show(show) => show.execute(client, terminal).await,
        }
    }
}

impl ListSessions {
    async fn execute(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let (sessions, more) = self.read(client).await?;
        if self.json {
            for session in &sessions {
                terminal.json(session)?;
            }
        } else if sessions.is_empty() && self.is_filtered() {
            terminal.note("no session passes these filters")?;
        } else if sessions.is_empty() {
            terminal.note("no sessions yet; `loopwright run \"..\"` starts one")?;
        } else {
            let rows: Vec<_> = sessions.iter().map(|one| row(one, now())).collect();
            for line in table(&HEAD, &rows) {
                terminal.line(&line)?;
            }
            for line in problem_lines(&sessions) {
                terminal.line(&line)?;
            }
            if let Some(sum) = sum(&sessions) {
                terminal.note(&sum)?;
            }
        }
        if more {
            terminal.note(&format!(
                "only the latest {}; `--limit` shows more",
                self.limit
            ))?;
        }
        Ok(Exit::Completed)
    }

    fn is_filtered(&self) -> bool {
        !(self.state.is_empty() && self.label.is_empty() && self.agent.is_empty())
    }

    async fn read(&self, client: &Client) -> Result<(Vec<SessionSummary>, bool), Failure> {
        let limit = self.limit as usize;
        let (mut sessions, mut page_token) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let missing = limit.saturating_sub(sessions.len());
            let request = ListSessionsRequest {
                page_size: i32::try_from(missing.clamp(1, 500)).unwrap_or(500),
                page_token,
                states: self.states(),
                labels: self.label.iter().cloned().collect(),
                agent: self.agent.clone(),
            };
            let page = client.list_sessions(request).await?;
            let passes = |one: &SessionSummary| self.passes(one);
            sessions.extend(page.sessions.into_iter().filter(passes));
            page_token = page.next_page_token;
            if page_token.is_empty() || sessions.len() >= limit {
                break;
            }
        }
        let more = !page_token.is_empty() || sessions.len() > limit;
        sessions.truncate(limit);
        Ok((sessions, more))
    }

    /// What the server can filter by; what its loop does is looked at here.
    fn states(&self) -> Vec<i32> {
        let mut states: Vec<i32> = self.state.iter().map(|one| one.session().into()).collect();
        states.sort_unstable();
        states.dedup();
        states
    }

    fn passes(&self, session: &SessionSummary) -> bool {
        let fits = |one: &Standing| {
            let is_loop = one
                .of_loop()
                .is_none_or(|state| session.loop_state() == state);
            session.state() == one.session() && is_loop
        };
        self.state.is_empty() || self.state.iter().any(fits)
    }
}

impl ShowSession {
    async fn execute(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let request = GetSessionRequest {
            session_id: self.session.clone(),
        };
        let session = client.get_session(request).await?.session;
        let session = session.unwrap_or_default();
        let current = match session.loop_id.as_str() {
            "" => None,
            loop_id => {
                let request = GetLoopRequest {
                    session_id: self.session.clone(),
                    loop_id: loop_id.to_owned(),
                };
                client.get_loop(request).await?.r#loop
            }
        };
        if self.json {
            let whole = serde_json::json!({"session": session, "loop": current});
            terminal.json(&whole)?;
            return Ok(Exit::Completed);
        }
        for (name, value) in facts(&session, now()) {
            terminal.line(&format!("{name:<10}{value}"))?;
        }
        let answering = Answering::at(&client.options().url);
        for line in pending_lines(current.as_ref(), &answering) {
            terminal.line(&line)?;
        }
        Ok(Exit::Completed)
    }
}

impl Standing {
    fn session(self) -> SessionState {
        match self {
            Self::Idle => SessionState::Idle,
            Self::Active | Self::Running | Self::Waiting | Self::Paused => SessionState::Active,
            Self::Corrupt => SessionState::Corrupt,
            Self::Failed => SessionState::Failed,
        }
    }

    fn of_loop(self) -> Option<LoopState> {
        match self {
            Self::Running => Some(LoopState::Running),
            Self::Waiting => Some(LoopState::Waiting),
            Self::Paused => Some(LoopState::Paused),
            Self::Idle | Self::Active | Self::Corrupt | Self::Failed => None,
        }
    }
}

const HEAD: [&str; 9] = [
    "SESSION", "STATE", "LOOPS", "STEPS", "TOKENS", "COST", "SEQ", "AGE", "TITLE",
];

fn row(session: &SessionSummary, now: Duration) -> Vec<String> {
    let totals = session.totals.unwrap_or_default();
    vec![
        session.session_id.clone(),
        state(session),
        session.loops.to_string(),
        totals.steps.to_string(),
        token_words(tokens(&totals)),
        cost(&totals),
        session.tail_seq.to_string(),
        age(session.updated_at.as_ref(), now),
        plain(&session.title, 48),
    ]
}

fn facts(session: &SessionSummary, now: Duration) -> Vec<(&'static str, String)> {
    let totals = session.totals.unwrap_or_default();
    let labels: Vec<String> = session
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={}", plain(value, 80)))
        .collect();
    let at = |at: Option<&Timestamp>| {
        at.map_or(String::new(), |at| {
            format!("{} UTC, {} ago", timestamp_words(at), age(Some(at), now))
        })
    };
    let mut facts = vec![
        ("session", session.session_id.clone()),
        ("state", state(session)),
        ("agent", session.agent.clone()),
        ("model", plain(&session.model, 80)),
        ("labels", labels.join(", ")),
        (
            "loops",
            format!("{}, last {}", session.loops, session.loop_id),
        ),
        ("steps", totals.steps.to_string()),
        ("tokens", tokens_words(&totals)),
        ("cost", cost(&totals)),
        ("queued", queued(session.queued_messages)),
        ("entries", session.tail_seq.to_string()),
        ("created", at(session.created_at.as_ref())),
        ("changed", at(session.updated_at.as_ref())),
        ("title", plain(&session.title, 80)),
        ("problem", plain(&session.problem, PROBLEM)),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// What is wrong with sessions, under their list.
fn problem_lines(sessions: &[SessionSummary]) -> Vec<String> {
    let troubled = sessions.iter().filter(|one| !one.problem.is_empty());
    let told = troubled.map(|one| {
        let problem = plain(&one.problem, PROBLEM);
        format!("{}: {problem}", one.session_id)
    });
    let mut lines: Vec<String> = told.collect();
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

fn queued(messages: u32) -> String {
    match messages {
        0 => String::new(),
        1 => "1 message waits for a next loop".to_owned(),
        more => format!("{more} messages wait for next loops"),
    }
}

/// The calls that are not done, and how to answer those that wait for a person.
fn pending_lines(current: Option<&LoopSummary>, answering: &Answering) -> Vec<String> {
    let Some(current) = current.filter(|current| !current.pending_calls.is_empty()) else {
        return Vec::new();
    };
    let rows: Vec<Vec<String>> = current.pending_calls.iter().map(pending_row).collect();
    let mut lines = vec![String::new()];
    lines.extend(table(&["CALL", "TOOL", "WAITS FOR", "UNTIL (UTC)"], &rows));
    for call in &current.pending_calls {
        let commands = answering.commands(&current.session_id, &call.call, call.state());
        if !commands.is_empty() {
            lines.push(format!("{} is answered by:", call.call));
            lines.extend(commands);
        }
    }
    lines
}

fn pending_row(call: &PendingCall) -> Vec<String> {
    let word = word(call.state().as_str_name(), "PENDING_STATE_");
    vec![
        call.call.clone(),
        plain(&call.tool, 64),
        word,
        until_words(call),
    ]
}

pub(super) fn tokens(totals: &Totals) -> u64 {
    let usage = totals.usage.unwrap_or_default();
    read_tokens(&usage).saturating_add(usage.output_tokens)
}

fn tokens_words(totals: &Totals) -> String {
    let usage = totals.usage.unwrap_or_default();
    format!(
        "{}: {} in ({}), {} out",
        token_words(tokens(totals)),
        token_words(read_tokens(&usage)),
        cached_words(&usage),
        token_words(usage.output_tokens)
    )
}

/// Nothing where no model has a price.
fn cost(totals: &Totals) -> String {
    totals.cost_micro_usd.map_or_else(String::new, cost_words)
}

/// What all sessions of a list used; nothing where that is what the only line says.
fn sum(sessions: &[SessionSummary]) -> Option<String> {
    let all = || sessions.iter().filter_map(|one| one.totals.as_ref());
    let used = all().map(tokens).fold(0, u64::saturating_add);
    let costs = all().filter_map(|one| one.cost_micro_usd);
    let paid = costs.reduce(u64::saturating_add);
    let paid = paid.map_or_else(String::new, |paid| format!(" · {}", cost_words(paid)));
    (sessions.len() > 1).then(|| {
        format!(
            "{} sessions · {} tokens{paid}",
            sessions.len(),
            token_words(used)
        )
    })
}

/// The session's state, with what its loop does or how it ended.
fn state(session: &SessionSummary) -> String {
    match session.state() {
        SessionState::Idle if session.loop_state() == LoopState::Ended => {
            word(session.end_reason().as_str_name(), "END_REASON_")
        }
        SessionState::Active => word(session.loop_state().as_str_name(), "LOOP_STATE_"),
        other => word(other.as_str_name(), "SESSION_STATE_"),
    }
}

fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    word.to_lowercase().replace('_', " ")
}

fn plain(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = line.chars().filter(|c| !c.is_control());
    shown.take(limit).collect()
}

pub(super) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

pub(super) fn age(at: Option<&Timestamp>, now: Duration) -> String {
    let Some(at) = at else {
        return String::new();
    };
    let then = Duration::from_secs(u64::try_from(at.seconds).unwrap_or_default());
    age_words(now.saturating_sub(then))
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not KEY=VALUE, such as team=search"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_counted_from_the_last_change_and_never_negative() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let now = Duration::from_secs(1_000_000);
        let ages = [1_000_000, 999_960, 999_700, 980_000, 400_000, 2_000_000]
            .map(|seconds| age(Some(&at(seconds)), now));
        assert_eq!(ages, ["now", "40 s", "5 min", "5 h", "6 d", "now"]);
        assert_eq!(age(None, now), "");
    }
}
