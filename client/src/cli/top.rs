//! `loopwright top`: the loops of the server, live.
//!
//! ```text
//! WatchLoops -> Board (what is known) -> a table that is drawn over, or a line for each change
//! ```
//!
//! Boundary: shows what the stream tells. Invariant: what is drawn is never more than a screen, and
//! without a terminal nothing is drawn over.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use loopwright_proto::v1::{LoopState, LoopSummary, WatchLoopsRequest};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::sessions::{age, label, now, tokens};
use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::render::{cost_words, loop_doing, loop_words, table, token_words};
use crate::{Client, LoopsEvent};

/// How often the table is drawn at most, and how old an age in it may be.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// How long a loop that has ended stays in the table where only open ones are asked for.
const FAREWELL: Duration = Duration::from_secs(30);

/// Show the loops of the server, live.
#[derive(Debug, Clone, Args)]
pub struct TopCommand {
    /// Only those in this state; may be given more than once. Without it: all that have not ended
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Vec<LoopWord>,
    /// Those that have ended too
    #[arg(long, conflicts_with = "state")]
    pub all: bool,
    /// Only those with this label; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Only those of the agent of this name
    #[arg(long, value_name = "NAME", default_value = "")]
    pub agent: String,
    /// Print the table once, and end
    #[arg(long)]
    pub once: bool,
    /// One loop a line, as JSON: all of them, then each change
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Where a loop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoopWord {
    /// It calls a model or tools
    Running,
    /// It waits for a person
    Waiting,
    /// It is paused
    Paused,
    /// It has ended
    Ended,
}

/// What is known of all loops.
#[derive(Debug, Default)]
pub(super) struct Board {
    loops: BTreeMap<(String, String), LoopSummary>,
    /// Loops that ended although only open ones are asked for, and until when they are shown.
    leaving: BTreeMap<(String, String), Instant>,
    /// Whether loops that have ended stay.
    keeps_ended: bool,
    /// Why nothing comes now.
    lost: Option<String>,
}

impl TopCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let mut watch = client.watch_loops(self.request());
        let mut board = Board {
            keeps_ended: self.keeps_ended(),
            ..Board::default()
        };
        let mut screen = if self.once || self.json {
            None
        } else {
            terminal.screen()
        };
        let mut ticks = interval(DRAW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = watch.next() => {
                    let Some(event) = event else {
                        return Ok(Exit::Completed);
                    };
                    let event = event?;
                    let is_all = matches!(event, LoopsEvent::Snapshot(_));
                    self.tell(&event, &board, screen.is_some(), terminal)?;
                    board.take(event);
                    board.forget_gone();
                    if self.once && is_all {
                        return self.print(&board, terminal);
                    }
                }
                _ = ticks.tick(), if screen.is_some() => {
                    board.forget_gone();
                    if let Some(screen) = &mut screen {
                        screen.draw(&board.lines(now(), &client.options().url));
                    }
                }
                () = terminal.interrupted() => return Ok(Exit::Completed),
            }
        }
    }

    fn request(&self) -> WatchLoopsRequest {
        let open = [LoopState::Running, LoopState::Paused, LoopState::Waiting];
        let states = match (self.all, self.state.as_slice()) {
            (true, _) => Vec::new(),
            (false, []) => open.map(i32::from).to_vec(),
            (false, some) => some.iter().map(|word| word.state().into()).collect(),
        };
        WatchLoopsRequest {
            states,
            labels: self.label.iter().cloned().collect(),
            agent: self.agent.clone(),
        }
    }

    fn keeps_ended(&self) -> bool {
        self.all || self.state.contains(&LoopWord::Ended)
    }

    /// What is said of an event where nothing is drawn.
    fn tell(
        &self,
        event: &LoopsEvent,
        board: &Board,
        drawn: bool,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        match event {
            LoopsEvent::Interrupted { error, retry_in } if !drawn => {
                let wait = retry_in.as_secs_f32();
                terminal.note(&format!("{error}; trying again in {wait:.1} s"))?;
            }
            _ if drawn || self.once => {}
            LoopsEvent::Snapshot(loops) => {
                for one in loops {
                    self.line(one, terminal)?;
                }
            }
            LoopsEvent::Changed(one) if board.is_new(one) => self.line(one, terminal)?,
            LoopsEvent::Deleted { session_id } if board.has(session_id) && !self.json => {
                terminal.line(&format!("{session_id}  deleted"))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn line(&self, one: &LoopSummary, terminal: &mut Terminal) -> Result<(), Failure> {
        if self.json {
            return Ok(terminal.json(one)?);
        }
        Ok(terminal.line(&change_line(one))?)
    }

    /// The whole board, once.
    fn print(&self, board: &Board, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let loops = board.sorted();
        if self.json {
            for one in loops {
                terminal.json(one)?;
            }
        } else if loops.is_empty() {
            terminal.note("no such loops; `--all` shows those that have ended too")?;
        } else {
            let rows: Vec<_> = loops.iter().map(|one| row(one, now())).collect();
            for line in table(&HEAD, &rows) {
                terminal.line(&line)?;
            }
        }
        Ok(Exit::Completed)
    }
}

impl LoopWord {
    fn state(self) -> LoopState {
        match self {
            Self::Running => LoopState::Running,
            Self::Waiting => LoopState::Waiting,
            Self::Paused => LoopState::Paused,
            Self::Ended => LoopState::Ended,
        }
    }
}

impl Board {
    fn take(&mut self, event: LoopsEvent) {
        match event {
            LoopsEvent::Snapshot(loops) => {
                self.loops = loops.into_iter().map(|one| (place(&one), one)).collect();
                self.leaving.clear();
                self.lost = None;
            }
            LoopsEvent::Changed(one) => {
                let place = place(&one);
                if one.state() == LoopState::Ended && !self.keeps_ended {
                    self.leaving
                        .insert(place.clone(), Instant::now() + FAREWELL);
                }
                self.loops.insert(place, *one);
            }
            LoopsEvent::Deleted { session_id } => {
                self.loops.retain(|(session, _), _| *session != session_id);
                self.leaving
                    .retain(|(session, _), _| *session != session_id);
            }
            LoopsEvent::Interrupted { error, .. } => self.lost = Some(error.to_string()),
            LoopsEvent::Heartbeat => {}
        }
    }

    fn forget_gone(&mut self) {
        let now = Instant::now();
        let loops = &mut self.loops;
        self.leaving.retain(|place, until| {
            let stays = *until > now;
            if !stays {
                loops.remove(place);
            }
            stays
        });
    }

    /// Whether a loop is told in another state than the one that is known.
    fn is_new(&self, one: &LoopSummary) -> bool {
        let known = self.loops.get(&place(one));
        known.is_none_or(|known| known != one)
    }

    fn has(&self, session: &str) -> bool {
        self.loops.keys().any(|(known, _)| known == session)
    }

    /// What waits for somebody first, what has ended last; the latest start first.
    fn sorted(&self) -> Vec<&LoopSummary> {
        let mut loops: Vec<_> = self.loops.values().collect();
        let rank = |one: &LoopSummary| match one.state() {
            LoopState::Waiting => 0,
            LoopState::Paused => 1,
            LoopState::Running | LoopState::Unspecified => 2,
            LoopState::Ended => 3,
        };
        let start = |one: &LoopSummary| one.started_at.map(|at| (at.seconds, at.nanos));
        loops.sort_by(|one, other| {
            let latest = start(other).cmp(&start(one));
            rank(one).cmp(&rank(other)).then(latest)
        });
        loops
    }

    /// The screen: how many there are, then the table.
    fn lines(&self, now: Duration, url: &str) -> Vec<String> {
        let count = |state| {
            let of = self.loops.values().filter(|one| one.state() == state);
            of.count()
        };
        let head = match &self.lost {
            Some(why) => format!("{url}  as it was when the connection was lost: {why}"),
            None => format!(
                "{url}  {} running, {} waiting, {} paused  (Ctrl-C ends)",
                count(LoopState::Running),
                count(LoopState::Waiting),
                count(LoopState::Paused)
            ),
        };
        let rows: Vec<_> = self.sorted().iter().map(|one| row(one, now)).collect();
        let mut lines = vec![head, String::new()];
        lines.extend(table(&HEAD, &rows));
        lines
    }
}

const HEAD: [&str; 8] = [
    "SESSION", "LOOP", "STATE", "STEP", "TOKENS", "COST", "AGE", "DOING",
];

fn row(one: &LoopSummary, now: Duration) -> Vec<String> {
    let totals = one.totals.unwrap_or_default();
    vec![
        one.session_id.clone(),
        one.loop_id.clone(),
        loop_words(one),
        one.steps.to_string(),
        token_words(tokens(&totals)),
        totals.cost_micro_usd.map(cost_words).unwrap_or_default(),
        age(one.started_at.as_ref(), now),
        loop_doing(one),
    ]
}

fn change_line(one: &LoopSummary) -> String {
    let totals = one.totals.unwrap_or_default();
    let mut line = format!(
        "{}/{}  {}  step {}, {} tokens",
        one.session_id,
        one.loop_id,
        loop_words(one),
        one.steps,
        token_words(tokens(&totals))
    );
    if let Some(cost) = totals.cost_micro_usd {
        line.push_str(&format!(", {}", cost_words(cost)));
    }
    let doing = loop_doing(one);
    if !doing.is_empty() {
        line.push_str(&format!("  {doing}"));
    }
    line
}

fn place(one: &LoopSummary) -> (String, String) {
    (one.session_id.clone(), one.loop_id.clone())
}

#[cfg(test)]
mod tests;
