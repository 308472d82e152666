//! `loopwright run`: starts a loop and shows it until it ends.
//!
//! ```text
//! StartLoop -> WatchLoop{loop} -> .. -> LoopEnded -> exit code
//!      Ctrl-C: CancelLoop, then on to LoopEnded      Ctrl-C again: leave, and say how to come back
//! ```
//!
//! Boundary: one loop, one terminal. Invariant: the exit code is LoopEnded's, if there was one; a loop is
//! never left without a word on how to find it again.

use clap::Args;
use loopwright_proto::v1::{
    Agent, BudgetLimits, BudgetRef, BudgetScope, CancelLoopRequest, CancelLoopResponse, LoopEnded,
    LoopLimits, StartLoopRequest, StartLoopResponse, ToolSelection, loop_ended::Detail,
    start_loop_request::Input,
};
use loopwright_proto::well_known;

use super::budget::span;
use super::watch::write_event;
use super::{ConnectArgs, Exit, Failure, Terminal, amount, concluded};
use crate::render::{Answering, RunView};
use crate::{Client, Error, Watch, WatchOptions};

/// A message is part of a request, which has 4 MiB at most.
const MAX_MESSAGE: u64 = 3 << 20;

/// Start a loop with a message and show it as it runs.
#[derive(Debug, Clone, Args)]
pub struct RunCommand {
    /// What the loop is to do; `-` reads it from standard input
    #[arg(value_name = "MESSAGE")]
    pub message: String,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Start a server in this process for this loop, on the configured log; --server is not used
    #[arg(long)]
    pub local: bool,
    /// Go on with this session, or create it under this id
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// The model: a configured alias or provider/id
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The system prompt
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// The tools that may be used, as sidecar__tool; default: all healthy ones
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub tools: Vec<String>,
    /// Use no tools
    #[arg(long, conflicts_with = "tools")]
    pub no_tools: bool,
    /// Most steps
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u32>,
    /// Most tokens, read and written: 50000, 50k, 1.5M
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_tokens: Option<u64>,
    /// Most tokens read
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_input_tokens: Option<u64>,
    /// Most tokens written
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_output_tokens: Option<u64>,
    /// Most that it may cost, in US dollars: 0.25, $10
    #[arg(long, value_name = "USD", value_parser = amount::money)]
    pub max_cost: Option<u64>,
    /// Most time that it may run, pauses not counted: 90s, 15m, 24h
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds)]
    pub max_wall_time: Option<u64>,
    /// Most tokens of one reply
    #[arg(long, value_name = "N")]
    pub max_reply_tokens: Option<u64>,
    /// Most seconds from start to end
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<u32>,
    /// One entry or delta a line, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs `run` on a client that may be connected to any server, an embedded one too.
pub async fn run(command: &RunCommand, client: &Client, terminal: &mut Terminal) -> Exit {
    let done = Box::pin(command.execute(client, terminal)).await;
    concluded(done, &client.options().url, terminal)
}

impl RunCommand {
    /// The request that the command line means, but for the message that standard input holds.
    #[must_use]
    pub fn request(&self) -> StartLoopRequest {
        StartLoopRequest {
            session_id: self.session.clone().unwrap_or_default(),
            agent: self.agent(),
            input: Some(Input::Text(self.message.clone())),
            ..StartLoopRequest::default()
        }
    }

    async fn execute(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let request = self.read_request(terminal)?;
        let started = client.start_loop(request).await?;
        // A session of its own is shown from its beginning, a loop in an older one from its start.
        let after_seq = match self.session {
            None => 0,
            Some(_) => started.seq.saturating_sub(1),
        };
        let options = WatchOptions {
            after_seq,
            loop_id: started.loop_id.clone(),
            ..WatchOptions::default()
        };
        let watch = client.watch_with(&started.session_id, options);
        let answering = Answering::at(&client.options().url);
        let view = RunView::new(terminal.style(), after_seq).answering(answering);
        let run = Running {
            client,
            started: &started,
            watch,
            view,
            json: self.json,
        };
        run.show(terminal).await
    }

    fn read_request(&self, terminal: &mut Terminal) -> Result<StartLoopRequest, Failure> {
        let mut request = self.request();
        if self.message == "-" {
            let text = terminal
                .read_input(MAX_MESSAGE)
                .map_err(|error| Failure::Other(format!("cannot read the message: {error}")))?;
            request.input = Some(Input::Text(text.trim_end().to_owned()));
        }
        match &request.input {
            Some(Input::Text(text)) if text.trim().is_empty() => Err(Failure::Usage(
                "the message is empty: say what the loop is to do".to_owned(),
            )),
            _ => Ok(request),
        }
    }

    /// None where no flag speaks of the agent: an existing session then keeps the one it has.
    fn agent(&self) -> Option<Agent> {
        let agent = Agent {
            model: self.model.clone().unwrap_or_default(),
            system_prompt: self.system.clone().unwrap_or_default(),
            tools: (self.no_tools || !self.tools.is_empty()).then(|| ToolSelection {
                tools: self.tools.clone(),
            }),
            limits: self.limits(),
            ..Agent::default()
        };
        (agent != Agent::default()).then_some(agent)
    }

    fn limits(&self) -> Option<LoopLimits> {
        let budget = BudgetLimits {
            max_input_tokens: self.max_input_tokens,
            max_output_tokens: self.max_output_tokens,
            max_total_tokens: self.max_tokens,
            max_cost_micro_usd: self.max_cost,
            max_wall_time: self.max_wall_time.map(span),
            ..BudgetLimits::default()
        };
        let limits = LoopLimits {
            max_steps: self.max_steps,
            max_output_tokens: self.max_reply_tokens,
            deadline: self.deadline.map(|seconds| well_known::Duration {
                seconds: i64::from(seconds),
                nanos: 0,
            }),
            budget: (budget != BudgetLimits::default()).then_some(budget),
            ..LoopLimits::default()
        };
        (limits != LoopLimits::default()).then_some(limits)
    }
}

struct Running<'a> {
    client: &'a Client,
    started: &'a StartLoopResponse,
    watch: Watch,
    view: RunView,
    json: bool,
}

impl Running<'_> {
    async fn show(mut self, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let cancel = self.cancel();
        tokio::pin!(cancel);
        let (mut presses, mut asked) = (0_u8, false);
        loop {
            tokio::select! {
                event = self.watch.next() => match event {
                    Some(Ok(event)) => {
                        write_event(&event, &mut self.view, self.json, terminal)?;
                        if let Some(end) = self.view.ended() {
                            let exit = Exit::of_end(end);
                            if exit == Exit::Budget && !self.json {
                                terminal.note(&self.way_on(end))?;
                            }
                            return Ok(exit);
                        }
                    }
                    Some(Err(error)) => {
                        terminal.note(&self.way_back())?;
                        return Err(error.into());
                    }
                    None => {
                        terminal.note(&self.way_back())?;
                        let words = "the stream ended before the loop did";
                        return Err(Failure::Other(words.to_owned()));
                    }
                },
                () = terminal.interrupted() => {
                    presses += 1;
                    if presses > 1 {
                        terminal.note(&format!("left; the loop goes on. {}", self.way_back()))?;
                        return Ok(Exit::Cancelled);
                    }
                    terminal.note("cancelling; Ctrl-C again leaves without waiting")?;
                }
                done = &mut cancel, if presses == 1 && !asked => {
                    asked = true;
                    if let Err(error) = done {
                        terminal.note(&format!("cannot cancel: {error}"))?;
                    }
                }
            }
        }
    }

    /// Sent when it is first polled, which is when Ctrl-C was pressed.
    fn cancel(&self) -> impl Future<Output = Result<CancelLoopResponse, Error>> + use<> {
        let client = self.client.clone();
        let request = CancelLoopRequest {
            session_id: self.started.session_id.clone(),
            loop_id: self.started.loop_id.clone(),
            reason: "Ctrl-C".to_owned(),
            ..CancelLoopRequest::default()
        };
        async move { client.cancel_loop(request).await }
    }

    fn way_back(&self) -> String {
        format!(
            "Watch it on with: loopwright watch {} --after {}{}",
            self.started.session_id,
            self.watch.cursor(),
            self.elsewhere()
        )
    }

    /// How to go on where a budget was used up: what was said so far is kept in the session.
    fn way_on(&self, end: &LoopEnded) -> String {
        let (session, elsewhere) = (&self.started.session_id, self.elsewhere());
        let again = format!("loopwright run --session {session}{elsewhere} \"go on\"");
        let budget = match &end.detail {
            Some(Detail::BudgetExceeded(detail)) => detail.budget.clone().unwrap_or_default(),
            _ => BudgetRef::default(),
        };
        let name = match budget.scope() {
            BudgetScope::Loop | BudgetScope::Unspecified => {
                return format!("The next loop has a budget of its own: {again}");
            }
            BudgetScope::Session => {
                return "That budget is of all loops of this session. Start a loop with a larger \
                        session_budget, or begin another session"
                    .to_owned();
            }
            BudgetScope::Named => budget.name,
            BudgetScope::Namespace => "namespace".to_owned(),
        };
        format!(
            "That budget is shared. See it with: loopwright budget show {name}{elsewhere}\n\
             When there is more in it: {again}"
        )
    }

    fn elsewhere(&self) -> String {
        let server = &self.client.options().url;
        if server == crate::DEFAULT_URL {
            String::new()
        } else {
            format!(" --server {server}")
        }
    }
}
