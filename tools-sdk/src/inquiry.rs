//! What became of a call: the answers to LookupCall and AttachCall.
//!
//! Invariant: that a call never started is said only after it is written down where the sidecar keeps a
//! file, and from then on no attempt up to the one that was asked about runs.

use loopwright_proto::v1;

use crate::answer::{Answer, Outcome};
use crate::connection::Connection;
use crate::keyfile::Begun;
use crate::memory::{Dispatched, Known};
use crate::running::{Leaving, Listener};
use crate::tool::{Effect, Tool};
use crate::toolbox::Toolbox;
use crate::wire;

/// What became of a call.
pub(crate) enum Found {
    Running,
    /// It ran; this is what it answered, and whether it says that it failed.
    Completed(Answer, bool),
    NeverStarted,
    /// It cannot be said, for this reason.
    NotKnown(String),
}

/// Whom to rejoin, or why nobody can be.
pub(crate) enum Rejoined {
    /// The call, and what was asked, to be told apart once more at its end.
    Call(Listener, Question),
    Ended(Found),
}

/// Which call is asked about, and what the caller says of when it was made.
pub(crate) struct Question {
    asked: Begun,
    when: Dispatched,
}

/// The tool is asked nothing.
pub(crate) struct NotAsked(pub(crate) String);

impl Toolbox {
    /// What became of a call.
    pub(crate) async fn look_up(&self, request: v1::LookupCallRequest) -> Result<Found, NotAsked> {
        let first = request.first_dispatched_at.as_ref();
        let question = Question {
            when: Dispatched {
                to: request.instance.unwrap_or_default(),
                first: first.and_then(wire::system_time),
            },
            asked: Begun {
                key: request.key,
                arguments_sha256: request.arguments_sha256,
                epoch: request.epoch,
                attempt: request.attempt,
                ..self.terms(&request.tool)?
            },
        };
        Ok(self.found(&question).await)
    }

    /// Joins a call that runs. Its listener stops it when it leaves, as that of CallTool does.
    pub(crate) async fn rejoin(
        &self,
        request: v1::AttachCallRequest,
        connection: Option<Connection>,
    ) -> Result<Rejoined, NotAsked> {
        let terms = self.terms(&request.tool)?;
        let leaving = self.leaving(&request.tool, connection);
        let asked = Begun {
            key: request.key,
            arguments_sha256: request.arguments_sha256,
            epoch: request.epoch,
            attempt: request.attempt,
            ..terms
        };
        // Nobody said when the call was made: what is not remembered is not known.
        let when = Dispatched {
            to: request.instance.unwrap_or_default(),
            first: None,
        };
        let question = Question { asked, when };
        Ok(match self.memory.look_up(&question.asked, &question.when) {
            Known::Call(running) => Rejoined::Call(running.listen(leaving), question),
            Known::NeverStarted(begun) => Rejoined::Ended(self.bound(begun).await),
            Known::Nothing(why) => Rejoined::Ended(Found::NotKnown(why)),
        })
    }

    /// How a call that was rejoined ended.
    pub(crate) async fn end_of(&self, question: &Question, outcome: Outcome) -> Found {
        match outcome {
            Outcome::Answered { answer, is_error } => Found::Completed(answer, is_error),
            // It did nothing: the memory says so, and binds itself.
            Outcome::NotExecuted { .. } => self.found(question).await,
        }
    }

    async fn found(&self, question: &Question) -> Found {
        let running = match self.memory.look_up(&question.asked, &question.when) {
            Known::Call(running) => running,
            Known::NeverStarted(begun) => return self.bound(begun).await,
            Known::Nothing(why) => return Found::NotKnown(why),
        };
        match running.outcome() {
            None => Found::Running,
            Some(Outcome::Answered { answer, is_error }) => Found::Completed(answer, is_error),
            // It ended just now.
            Some(Outcome::NotExecuted { .. }) => {
                match self.memory.look_up(&question.asked, &question.when) {
                    Known::NeverStarted(begun) => self.bound(begun).await,
                    Known::Call(_) => Found::Running,
                    Known::Nothing(why) => Found::NotKnown(why),
                }
            }
        }
    }

    /// Writes the promise down, then gives it.
    async fn bound(&self, begun: Begun) -> Found {
        let Some(file) = self.keyfile.get() else {
            return Found::NeverStarted;
        };
        match file.bind(begun).await {
            Ok(()) => Found::NeverStarted,
            Err(error) => Found::NotKnown(format!(
                "the call did not start, but that cannot be remembered on disk: {error}"
            )),
        }
    }

    fn terms(&self, tool: &str) -> Result<Begun, NotAsked> {
        let Some(tool) = self.tool(tool) else {
            return Err(NotAsked(self.no_such_tool(tool).text().to_owned()));
        };
        if !tool.can_be_asked() {
            let name = &tool.name;
            return Err(NotAsked(format!("{name} does not remember its calls")));
        }
        Ok(terms_of(tool).unwrap_or_default())
    }

    /// What it means for a call of this tool that one who listens leaves.
    pub(crate) fn leaving(&self, tool: &str, connection: Option<Connection>) -> Leaving {
        match self
            .tool(tool)
            .map(|tool| (tool.effect, tool.can_be_asked()))
        {
            Some((Effect::Deduplicated { .. }, _)) => Leaving::Nothing,
            Some((Effect::AtMostOnce, true)) => {
                connection.map_or(Leaving::Stops, Leaving::StopsUnlessLost)
            }
            _ => Leaving::Stops,
        }
    }
}

/// What of a call of this tool is remembered for how long; `None`: nothing.
pub(crate) fn terms_of(tool: &Tool) -> Option<Begun> {
    let (retention, lossy) = tool.memory()?;
    Some(Begun {
        tool: tool.name.clone(),
        retention_ms: u64::try_from(retention.as_millis()).unwrap_or(u64::MAX),
        lossy,
        ..Begun::default()
    })
}
