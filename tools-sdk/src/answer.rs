//! What a tool says when it is done: an answer, an error result, or that it did not run.

use std::error::Error;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::schema;

/// Most bytes of one answer, text and structured JSON together. A longer one becomes an error result
/// that says so: a message over 4 MiB would lose the call's outcome.
pub(crate) const MAX_ANSWER_BYTES: usize = 3 * 1024 * 1024;

/// What a tool answers: text for the model, and optionally the same as structured JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What the model reads. Small models do best with a sentence or plain lines.
    pub text: String,
    /// The answer as JSON, for tools with an output schema.
    pub structured: Option<Value>,
}

impl Answer {
    /// An answer of text alone.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            structured: None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let structured = self
            .structured
            .as_ref()
            .map_or(0, |json| json.to_string().len());
        self.text.len() + structured
    }
}

/// What a tool's function may return beside [`ToolError`]: text, [`Json`], [`Answer`] or nothing.
pub trait IntoAnswer {
    /// The JSON Schema of the structured answer; `None` where there is none.
    #[must_use]
    fn output_schema() -> Option<Value> {
        None
    }

    /// The answer. An error becomes an error result.
    fn into_answer(self) -> Result<Answer, ToolError>;
}

impl IntoAnswer for Answer {
    fn into_answer(self) -> Result<Answer, ToolError> {
        Ok(self)
    }
}

impl IntoAnswer for String {
    fn into_answer(self) -> Result<Answer, ToolError> {
        Ok(Answer::text(self))
    }
}

impl IntoAnswer for &'static str {
    fn into_answer(self) -> Result<Answer, ToolError> {
        Ok(Answer::text(self))
    }
}

impl IntoAnswer for () {
    fn into_answer(self) -> Result<Answer, ToolError> {
        Ok(Answer::text("Done."))
    }
}

/// A structured answer: its JSON is what the model reads, and its type gives the tool's output schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(
    /// The value.
    pub T,
);

impl<T: Serialize + JsonSchema> IntoAnswer for Json<T> {
    fn output_schema() -> Option<Value> {
        Some(schema::of_answer::<T>())
    }

    fn into_answer(self) -> Result<Answer, ToolError> {
        let json = serde_json::to_value(self.0)
            .map_err(|error| ToolError::failed(format!("the answer is no JSON: {error}")))?;
        Ok(Answer {
            text: json.to_string(),
            structured: Some(json),
        })
    }
}

/// Why a tool has no answer. Any `std::error::Error` turns into a failure by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolError {
    pub(crate) message: String,
    pub(crate) executed: bool,
    pub(crate) retry_after: Option<Duration>,
}

impl ToolError {
    /// The tool ran and failed: an error result, which the model sees and which is not retried.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            executed: true,
            retry_after: None,
        }
    }

    /// The tool surely did nothing, as a promise: say so only before the first effect. It is of no use to
    /// try again, unless [`Self::retry_after`] says when.
    #[must_use]
    pub fn not_executed(reason: impl Into<String>) -> Self {
        Self {
            message: reason.into(),
            executed: false,
            retry_after: None,
        }
    }

    /// A call that was not executed may be tried again after this time.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }
}

impl<E: Error> From<E> for ToolError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors repeat their cause in their own words.
            if !message.contains(&cause_text) {
                message.push_str(": ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::failed(message)
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The tool ran.
    Answered {
        /// What it said.
        answer: Answer,
        /// True where it says that it failed.
        is_error: bool,
    },
    /// The tool surely did not run.
    NotExecuted {
        /// Why, for people and for the model.
        reason: String,
        /// Set: it may be tried again after this time.
        retry_after: Option<Duration>,
    },
}

impl Outcome {
    /// What the model would read: the answer's text, or why the call was not executed.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Answered { answer, .. } => &answer.text,
            Self::NotExecuted { reason, .. } => reason,
        }
    }

    /// The structured answer, where there is one.
    #[must_use]
    pub fn structured(&self) -> Option<&Value> {
        match self {
            Self::Answered { answer, .. } => answer.structured.as_ref(),
            Self::NotExecuted { .. } => None,
        }
    }

    /// True where the tool ran and did not fail.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            Self::Answered {
                is_error: false,
                ..
            }
        )
    }

    /// True where the tool surely did not run.
    #[must_use]
    pub fn is_not_executed(&self) -> bool {
        matches!(self, Self::NotExecuted { .. })
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Answered {
            answer: Answer::text(message),
            is_error: true,
        }
    }

    pub(crate) fn not_executed(reason: impl Into<String>) -> Self {
        Self::NotExecuted {
            reason: reason.into(),
            retry_after: None,
        }
    }

    pub(crate) fn try_later(reason: impl Into<String>, pause: Duration) -> Self {
        Self::NotExecuted {
            reason: reason.into(),
            retry_after: Some(pause),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Answered { answer, .. } => answer.bytes(),
            Self::NotExecuted { reason, .. } => reason.len(),
        }
    }
}

impl From<Result<Answer, ToolError>> for Outcome {
    fn from(ended: Result<Answer, ToolError>) -> Self {
        match ended {
            Ok(answer) if answer.bytes() > MAX_ANSWER_BYTES => Self::failed(format!(
                "The tool ran, but its answer has {} bytes, more than the {MAX_ANSWER_BYTES} allowed.",
                answer.bytes()
            )),
            Ok(answer) => Self::Answered {
                answer,
                is_error: false,
            },
            Err(error) if error.executed => Self::failed(clamp(error.message)),
            Err(error) => Self::NotExecuted {
                reason: clamp(error.message),
                retry_after: error.retry_after,
            },
        }
    }
}

fn clamp(mut message: String) -> String {
    const MAX_BYTES: usize = 64 * 1024;
    if message.len() > MAX_BYTES {
        message.truncate(message.floor_char_boundary(MAX_BYTES));
        message.push_str(" ..");
    }
    message
}
