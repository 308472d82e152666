//! `loopwright sessions list`.
//!
//! Boundary: ListSessions, page by page up to a limit. Invariant: what was left out is said.

use clap::{Args, Subcommand};
use loopwright_proto::v1::{ListSessionsRequest, LoopState, SessionState, SessionSummary};

use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;
use crate::render::{table, timestamp_words, token_words};

/// Sessions of the server.
#[derive(Debug, Clone, Subcommand)]
pub enum SessionsCommand {
    /// List sessions, the latest change first
    List(ListSessions),
}

/// List sessions, the latest change first.
#[derive(Debug, Clone, Args)]
pub struct ListSessions {
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

impl SessionsCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let Self::List(list) = self;
        let (sessions, more) = list.read(client).await?;
        if list.json {
            for session in &sessions {
                terminal.json(session)?;
            }
        } else if sessions.is_empty() {
            terminal.note("no sessions yet; `loopwright run \"..\"` starts one")?;
        } else {
            for line in table(&HEAD, &sessions.iter().map(row).collect::<Vec<_>>()) {
                terminal.line(&line)?;
            }
        }
        if more {
            terminal.note(&format!(
                "only the latest {}; `--limit` shows more",
                list.limit
            ))?;
        }
        Ok(Exit::Completed)
    }
}

impl ListSessions {
    async fn read(&self, client: &Client) -> Result<(Vec<SessionSummary>, bool), Failure> {
        let limit = self.limit as usize;
        let (mut sessions, mut page_token) = (Vec::new(), String::new());
        while sessions.len() < limit {
            let missing = limit - sessions.len();
            let request = ListSessionsRequest {
                page_size: i32::try_from(missing.min(500)).unwrap_or(500),
                page_token,
                ..ListSessionsRequest::default()
            };
            let page = client.list_sessions(request).await?;
            sessions.extend(page.sessions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        sessions.truncate(limit);
        Ok((sessions, !page_token.is_empty()))
    }
}

const HEAD: [&str; 7] = [
    "SESSION", "STATE", "LOOPS", "TOKENS", "SEQ", "UPDATED", "TITLE",
];

fn row(session: &SessionSummary) -> Vec<String> {
    let usage = session.totals.as_ref().and_then(|totals| totals.usage);
    let usage = usage.unwrap_or_default();
    let tokens = usage
        .input_tokens
        .saturating_add(usage.cache_write_tokens)
        .saturating_add(usage.cache_read_tokens)
        .saturating_add(usage.output_tokens);
    let updated = session.updated_at.as_ref().map(timestamp_words);
    let title: String = session
        .title
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    vec![
        session.session_id.clone(),
        state(session),
        session.loops.to_string(),
        token_words(tokens),
        session.tail_seq.to_string(),
        updated.map_or(String::new(), |at| at.chars().take(19).collect()),
        title.chars().filter(|c| !c.is_control()).take(48).collect(),
    ]
}

/// The session's state, with what its loop does or how it ended.
fn state(session: &SessionSummary) -> String {
    let word = |name: &str, prefix: &str| {
        let word = name.strip_prefix(prefix).unwrap_or(name);
        word.to_lowercase().replace('_', " ")
    };
    match session.state() {
        SessionState::Idle if session.loop_state() == LoopState::Ended => {
            word(session.end_reason().as_str_name(), "END_REASON_")
        }
        SessionState::Active => word(session.loop_state().as_str_name(), "LOOP_STATE_"),
        other => word(other.as_str_name(), "SESSION_STATE_"),
    }
}
