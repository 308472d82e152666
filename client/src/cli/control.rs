//! `loopwright pause`, `resume` and `limits`: a loop that is going on, held and let go.
//!
//! Boundary: one command, one rpc. Invariant: what is printed was durable when it was printed.

use clap::Args;
use loopwright_proto::v1::{
    BudgetLimits, LoopLimits, PauseLoopRequest, ResumeLoopRequest, UpdateLimitsRequest,
};
use loopwright_proto::well_known;

use super::budget::ExhaustedWord;
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

/// Move limits of a loop that is going on.
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
    /// Longest time of the loop, from its start: 90s, 15m, 24h
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds)]
    pub deadline: Option<u64>,
    /// Tool calls at once
    #[arg(long, value_name = "N")]
    pub max_parallel_tool_calls: Option<u32>,
    /// Most tokens of the loop, read and written: 50000, 50k, 1.5M
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_tokens: Option<u64>,
    /// Most tokens read
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_input_tokens: Option<u64>,
    /// Most tokens written
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_output_tokens: Option<u64>,
    /// Most US dollars of the loop: 0.25
    #[arg(long, value_name = "USD", value_parser = amount::money)]
    pub max_cost: Option<u64>,
    /// Most model calls of the loop
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_model_calls: Option<u64>,
    /// Most tool calls of the loop
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_tool_calls: Option<u64>,
    /// What the loop does at a limit
    #[arg(long, value_name = "WHAT")]
    pub on_exhausted: Option<ExhaustedWord>,
    /// Most tokens of the whole session, over all of its loops
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub session_max_tokens: Option<u64>,
    /// Most US dollars of the whole session
    #[arg(long, value_name = "USD", value_parser = amount::money)]
    pub session_max_cost: Option<u64>,
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
        if request.limits == Some(LoopLimits::default()) && request.session_budget.is_none() {
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
        let budget = BudgetLimits {
            max_input_tokens: self.max_input_tokens,
            max_output_tokens: self.max_output_tokens,
            max_total_tokens: self.max_tokens,
            max_cost_micro_usd: self.max_cost,
            max_model_calls: self.max_model_calls,
            max_tool_calls: self.max_tool_calls,
            on_exhausted: self.on_exhausted.map_or(0, |word| word.to_wire().into()),
            ..BudgetLimits::default()
        };
        let session = BudgetLimits {
            max_total_tokens: self.session_max_tokens,
            max_cost_micro_usd: self.session_max_cost,
            ..BudgetLimits::default()
        };
        let some = |budget: BudgetLimits| Some(budget).filter(|b| *b != BudgetLimits::default());
        UpdateLimitsRequest {
            session_id: self.session.clone(),
            loop_id: self.loop_id.clone(),
            limits: Some(LoopLimits {
                max_steps: self.max_steps,
                max_parallel_tool_calls: self.max_parallel_tool_calls,
                deadline: self.deadline.map(|seconds| well_known::Duration {
                    seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
                    nanos: 0,
                }),
                budget: some(budget),
                ..LoopLimits::default()
            }),
            session_budget: some(session),
            ..UpdateLimitsRequest::default()
        }
    }
}
