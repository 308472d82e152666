//! `loopwright approve`, `deny` and `resolve`: a person's answer to a tool call that waits.
//!
//! Boundary: one answer, one rpc. Invariant: what is printed was durable when it was printed.

use clap::{Args, ValueEnum};
use loopwright_proto::v1::{
    Part, ResolveApprovalRequest, ResolveUnknownRequest, ToolResult, UnknownResolution, part,
};

use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;

/// A message is part of a request, which has 4 MiB at most.
const MAX_RESULT: u64 = 3 << 20;

/// The call that waits, and why it is answered so.
#[derive(Debug, Clone, Args)]
pub struct AnswerCommand {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// The tool call that waits, such as c7
    #[arg(value_name = "CALL")]
    pub call: String,
    /// Why, for the log; the model is told it with a denial
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Only if this loop is the one going on
    #[arg(long = "loop", value_name = "LOOP", default_value = "")]
    pub loop_id: String,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Say what a tool call did of which nobody could tell.
#[derive(Debug, Clone, Args)]
pub struct ResolveCommand {
    /// The call that waits.
    #[command(flatten)]
    pub answer: AnswerCommand,
    /// What it did
    #[arg(value_name = "WHAT", value_enum)]
    pub what: Did,
    /// With happened: the result that the model is given; `-` reads it from standard input
    #[arg(long, value_name = "TEXT")]
    pub result: Option<String>,
    /// With --result: the tool says that it failed
    #[arg(long, requires = "result")]
    pub failed: bool,
}

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Did {
    /// It ran
    Happened,
    /// It did not run; the model is told so
    DidNotHappen,
    /// Run it now, as a new attempt: where it surely did not run, or twice does no harm
    RunAgain,
    /// It stays unknown, and the model is told so
    TellModel,
}

impl AnswerCommand {
    /// Allows the call, or denies it.
    pub(crate) async fn execute(
        &self,
        allow: bool,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let request = ResolveApprovalRequest {
            session_id: self.session.clone(),
            loop_id: self.loop_id.clone(),
            call: self.call.clone(),
            allow,
            reason: self.reason.clone(),
            ..ResolveApprovalRequest::default()
        };
        let done = client.resolve_approval(request).await?;
        let what = if allow { "allowed" } else { "denied" };
        terminal.line(&format!("{what} {} (seq {})", self.call, done.seq))?;
        Ok(Exit::Completed)
    }
}

impl ResolveCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let answer = &self.answer;
        let request = ResolveUnknownRequest {
            session_id: answer.session.clone(),
            loop_id: answer.loop_id.clone(),
            call: answer.call.clone(),
            resolution: self.what.to_wire().into(),
            result: self.read_result(terminal)?,
            reason: answer.reason.clone(),
            ..ResolveUnknownRequest::default()
        };
        let done = client.resolve_unknown(request).await?;
        let what = self.what.words();
        terminal.line(&format!("{}: {what} (seq {})", answer.call, done.seq))?;
        Ok(Exit::Completed)
    }

    fn read_result(&self, terminal: &mut Terminal) -> Result<Option<ToolResult>, Failure> {
        let Some(text) = &self.result else {
            return Ok(None);
        };
        if self.what != Did::Happened {
            let words = "--result goes with `happened` alone: a call that did not run has none";
            return Err(Failure::Usage(words.to_owned()));
        }
        let text = if text == "-" {
            let read = terminal.read_input(MAX_RESULT);
            read.map_err(|error| Failure::Other(format!("cannot read the result: {error}")))?
        } else {
            text.clone()
        };
        let part = Part {
            kind: Some(part::Kind::Text(text)),
            full: None,
        };
        Ok(Some(ToolResult {
            parts: vec![part],
            is_error: self.failed,
            ..ToolResult::default()
        }))
    }
}

impl Did {
    fn to_wire(self) -> UnknownResolution {
        match self {
            Self::Happened => UnknownResolution::Happened,
            Self::DidNotHappen => UnknownResolution::DidNotHappen,
            Self::RunAgain => UnknownResolution::RunAgain,
            Self::TellModel => UnknownResolution::TellModel,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Happened => "it ran",
            Self::DidNotHappen => "it did not run",
            Self::RunAgain => "it is run again",
            Self::TellModel => "it stays unknown",
        }
    }
}
