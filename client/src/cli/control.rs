//! `loopwright pause`, `resume` and `limits`: a loop that is going on, held and let go.
//!
//! Boundary: one command, one rpc. Invariant: what is printed was durable when it was printed.

use clap::Args;
use loopwright_proto::v1::{
    BudgetDimension, BudgetLimits, LoopLimit, LoopLimits, PauseLoopRequest, ResumeLoopRequest,
    UpdateLimitsRequest,
};

use super::amount::Moved;
use super::budget::{ExhaustedWord, span};
use super::{ConnectArgs, Exit, Failure, Terminal, amount};
use crate::Client;

/// A loop that is going on.
#[derive(Debug, Clone, Args)]
pub struct ControlCommand {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// Only if this loop is the one going on
    #[arg(long = "loop", value_name = "LOOP", default_value = "")]
    pub loop_id: String,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Move limits of a loop that is going on, or remove them with `none`.
#[derive(Debug, Clone, Args)]
pub struct LimitsCommand {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// Only if this loop is the one going on
    #[arg(long = "loop", value_name = "LOOP", default_value = "")]
    pub loop_id: String,
    /// Most steps of the loop
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u32>,
    /// When the loop ends, counted from its start: 90s, 15m, 24h, or none
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds_or_none)]
    pub deadline: Option<Moved>,
    /// How long it waits for a person: 90s, 15m, 24h, or none
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds_or_none)]
    pub idle_timeout: Option<Moved>,
    /// Tool calls at once
    #[arg(long, value_name = "N")]
    pub max_parallel_tool_calls: Option<u32>,
    /// Most tokens of the loop, read and written: 50000, 50k, 1.5M, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub max_tokens: Option<Moved>,
    /// Most tokens read, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub max_input_tokens: Option<Moved>,
    /// Most tokens written, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub max_output_tokens: Option<Moved>,
    /// Most US dollars of the loop: 0.25, or none
    #[arg(long, value_name = "USD", value_parser = amount::money_or_none)]
    pub max_cost: Option<Moved>,
    /// Most model calls of the loop, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub max_model_calls: Option<Moved>,
    /// Most tool calls of the loop, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub max_tool_calls: Option<Moved>,
    /// Most time that the loop may run, pauses not counted: 90s, 15m, 24h, or none
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds_or_none)]
    pub max_wall_time: Option<Moved>,
    /// What the loop does at a limit
    #[arg(long, value_name = "WHAT")]
    pub on_exhausted: Option<ExhaustedWord>,
    /// Most tokens of the whole session, over all of its loops, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub session_max_tokens: Option<Moved>,
    /// Most tokens that the whole session reads, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub session_max_input_tokens: Option<Moved>,
    /// Most tokens that the whole session writes, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub session_max_output_tokens: Option<Moved>,
    /// Most US dollars of the whole session, or none
    #[arg(long, value_name = "USD", value_parser = amount::money_or_none)]
    pub session_max_cost: Option<Moved>,
    /// Most model calls of the whole session, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub session_max_model_calls: Option<Moved>,
    /// Most tool calls of the whole session, or none
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    pub session_max_tool_calls: Option<Moved>,
    /// Most time that all loops of the session may run, or none
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds_or_none)]
    pub session_max_wall_time: Option<Moved>,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl ControlCommand {
    pub(crate) async fn pause(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let request = PauseLoopRequest {
            session_id: self.session.clone(),
            loop_id: self.loop_id.clone(),
            ..PauseLoopRequest::default()
        };
        let done = client.pause_loop(request).await?;
        let (id, seq) = (&done.loop_id, done.seq);
        terminal.line(&format!(
            "paused {id} (seq {seq}): what runs ends, nothing starts"
        ))?;
        Ok(Exit::Completed)
    }

    pub(crate) async fn resume(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let request = ResumeLoopRequest {
            session_id: self.session.clone(),
            loop_id: self.loop_id.clone(),
            ..ResumeLoopRequest::default()
        };
        let done = client.resume_loop(request).await?;
        terminal.line(&format!("resumed {} (seq {})", done.loop_id, done.seq))?;
        Ok(Exit::Completed)
    }
}

impl LimitsCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let request = self.request();
        let nothing = UpdateLimitsRequest {
            session_id: self.session.clone(),
            loop_id: self.loop_id.clone(),
            limits: Some(LoopLimits::default()),
            ..UpdateLimitsRequest::default()
        };
        if request == nothing {
            let words = "name at least one limit to move, such as --max-steps 100 or --max-cost 2";
            return Err(Failure::Usage(words.to_owned()));
        }
        let done = client.update_limits(request).await?;
        terminal.line(&format!(
            "limits of {} moved (seq {})",
            done.loop_id, done.seq
        ))?;
        Ok(Exit::Completed)
    }

    fn request(&self) -> UpdateLimitsRequest {
        let (own, session) = (self.of_loop(), self.of_session());
        let time = |limit: Option<Moved>| limit.and_then(Moved::amount).map(span);
        let budget = BudgetLimits {
            on_exhausted: self.on_exhausted.map_or(0, |word| word.to_wire().into()),
            ..limits(&own)
        };
        let some = |budget: BudgetLimits| Some(budget).filter(|b| *b != BudgetLimits::default());
        UpdateLimitsRequest {
            session_id: self.session.clone(),
            loop_id: self.loop_id.clone(),
            limits: Some(LoopLimits {
                max_steps: self.max_steps,
                max_parallel_tool_calls: self.max_parallel_tool_calls,
                deadline: time(self.deadline),
                idle_timeout: time(self.idle_timeout),
                budget: some(budget),
                ..LoopLimits::default()
            }),
            session_budget: some(limits(&session)),
            clear: removed([
                (self.deadline, LoopLimit::Deadline),
                (self.idle_timeout, LoopLimit::IdleTimeout),
            ]),
            clear_budget: removed(own),
            clear_session_budget: removed(session),
            ..UpdateLimitsRequest::default()
        }
    }

    fn of_loop(&self) -> Moves {
        [
            (self.max_input_tokens, BudgetDimension::InputTokens),
            (self.max_output_tokens, BudgetDimension::OutputTokens),
            (self.max_tokens, BudgetDimension::TotalTokens),
            (self.max_cost, BudgetDimension::CostMicroUsd),
            (self.max_model_calls, BudgetDimension::ModelCalls),
            (self.max_tool_calls, BudgetDimension::ToolCalls),
            (self.max_wall_time, BudgetDimension::WallTimeMs),
        ]
    }

    fn of_session(&self) -> Moves {
        [
            (self.session_max_input_tokens, BudgetDimension::InputTokens),
            (
                self.session_max_output_tokens,
                BudgetDimension::OutputTokens,
            ),
            (self.session_max_tokens, BudgetDimension::TotalTokens),
            (self.session_max_cost, BudgetDimension::CostMicroUsd),
            (self.session_max_model_calls, BudgetDimension::ModelCalls),
            (self.session_max_tool_calls, BudgetDimension::ToolCalls),
            (self.session_max_wall_time, BudgetDimension::WallTimeMs),
        ]
    }
}

/// The limits of a budget that move.
type Moves = [(Option<Moved>, BudgetDimension); 7];

/// Those of the limits that get a value.
fn limits(moves: &Moves) -> BudgetLimits {
    let to = |of: BudgetDimension| {
        let (limit, _) = moves.iter().find(|(_, dimension)| *dimension == of)?;
        limit.and_then(Moved::amount)
    };
    BudgetLimits {
        max_input_tokens: to(BudgetDimension::InputTokens),
        max_output_tokens: to(BudgetDimension::OutputTokens),
        max_total_tokens: to(BudgetDimension::TotalTokens),
        max_cost_micro_usd: to(BudgetDimension::CostMicroUsd),
        max_model_calls: to(BudgetDimension::ModelCalls),
        max_tool_calls: to(BudgetDimension::ToolCalls),
        max_wall_time: to(BudgetDimension::WallTimeMs).map(span),
        ..BudgetLimits::default()
    }
}

/// Those of the limits that go.
fn removed<T: Into<i32>, const N: usize>(limits: [(Option<Moved>, T); N]) -> Vec<i32> {
    let gone = limits
        .into_iter()
        .filter(|(limit, _)| *limit == Some(Moved::None));
    gone.map(|(_, name)| name.into()).collect()
}
