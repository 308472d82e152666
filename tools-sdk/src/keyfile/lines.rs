//! What stands in a key file: one JSON line for each thing that happened to a key, and the book that
//! they add up to.
//!
//! Invariants: a line that was read is never forgotten by a newer one of another key; a call that began
//! and has no end is never taken for one that did not run.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::{Answer, Outcome};
use crate::memory::random_name;

/// How long a promise that a call never started is kept, at the least: longer than any request that is
/// still on its way.
pub(crate) const BOUND_FOR: Duration = Duration::from_secs(60 * 60);
/// Most bytes of an answer that are kept of a call which may be forgotten early.
const MAX_LOSSY_BYTES: usize = 64 * 1024;

/// A call as it is remembered: what was asked for, and by whom.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Begun {
    pub(crate) key: String,
    pub(crate) tool: String,
    pub(crate) arguments_sha256: String,
    /// The highest that was seen.
    pub(crate) epoch: u64,
    pub(crate) retention_ms: u64,
    /// The attempt that ran last; 0 in lines of earlier versions.
    #[serde(default)]
    pub(crate) attempt: u32,
    /// Attempts up to this one are refused: it was said that they never started.
    #[serde(default)]
    pub(crate) bound: u32,
    /// Whether it may be forgotten before its retention is over, where room is short.
    #[serde(default)]
    pub(crate) lossy: bool,
}

impl Begun {
    /// How long the call is remembered once it ended.
    pub(crate) fn retention(&self) -> Duration {
        Duration::from_millis(self.retention_ms)
    }

    /// How long it is remembered that the call never started.
    pub(crate) fn bound_for(&self) -> Duration {
        self.retention().max(BOUND_FOR)
    }
}

/// A call of an earlier process.
pub(crate) struct Kept {
    pub(crate) begun: Begun,
    /// How long ago it came to what it is.
    pub(crate) ago: Duration,
    pub(crate) fate: Fate,
}

/// What became of a call of an earlier process.
pub(crate) enum Fate {
    /// It ended so.
    Ended(Outcome),
    /// It had begun when the process ended.
    Interrupted,
    /// It was said that it never started.
    Bound,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// Where the memory begins.
    Since {
        at_ms: u64,
        /// What the memory is called: no call that was made to it is missing. Absent in files of earlier
        /// versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<String>,
    },
    Begun(Begun),
    Ended(Ended),
    /// The call had begun when the sidecar ended.
    Interrupted {
        key: String,
        at_ms: u64,
    },
    Bound {
        begun: Begun,
        at_ms: u64,
    },
}

#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Ended {
    key: String,
    at_ms: u64,
    /// `None`: it did nothing, and the key is free.
    answer: Option<Said>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Said {
    text: String,
    structured: Option<Value>,
    is_error: bool,
}

/// What the lines of a file add up to.
#[derive(Default)]
pub(super) struct Book {
    since_ms: Option<u64>,
    pub(super) memory: Option<String>,
    calls: BTreeMap<String, (Begun, State)>,
}

#[derive(Clone)]
enum State {
    Begun,
    Ended { at_ms: u64, said: Said },
    Interrupted { at_ms: u64 },
    Bound { at_ms: u64 },
}

impl Ended {
    /// How the call `begun` ended.
    pub(super) fn of(begun: &Begun, outcome: &Outcome) -> Self {
        let answer = match outcome {
            Outcome::NotExecuted { .. } => None,
            Outcome::Answered { answer, is_error } => {
                let too_large = begun.lossy && answer.bytes() > MAX_LOSSY_BYTES;
                Some(if too_large {
                    Said {
                        text: format!(
                            "The call ran to its end. Its answer had {} bytes and was not kept.",
                            answer.bytes()
                        ),
                        structured: None,
                        is_error: *is_error,
                    }
                } else {
                    Said {
                        text: answer.text.clone(),
                        structured: answer.structured.clone(),
                        is_error: *is_error,
                    }
                })
            }
        };
        Self {
            key: begun.key.clone(),
            at_ms: now_ms(),
            answer,
        }
    }
}

impl Book {
    /// Reads a file, but for a last line that is torn: its call did not run, or was not answered.
    pub(super) fn read(text: &[u8]) -> io::Result<Self> {
        let mut book = Self::default();
        let mut lines = text
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
            .peekable();
        while let Some((index, line)) = lines.next() {
            match serde_json::from_slice(line) {
                Ok(line) => book.take_in(line),
                Err(_) if lines.peek().is_none() => (),
                Err(error) => {
                    let text = format!(
                        "line {} is damaged ({error}); move the file away",
                        index + 1
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
        Ok(book)
    }

    fn take_in(&mut self, line: Line) {
        match line {
            Line::Since { at_ms, memory } => {
                self.since_ms = Some(at_ms);
                self.memory = memory;
            }
            Line::Begun(begun) => {
                self.calls.insert(begun.key.clone(), (begun, State::Begun));
            }
            Line::Bound { begun, at_ms } => {
                let bound = (begun, State::Bound { at_ms });
                self.calls.insert(bound.0.key.clone(), bound);
            }
            Line::Interrupted { key, at_ms } => {
                self.set(&key, State::Interrupted { at_ms });
            }
            Line::Ended(Ended {
                key,
                at_ms,
                answer: Some(said),
            }) => self.set(&key, State::Ended { at_ms, said }),
            Line::Ended(Ended {
                key,
                at_ms,
                answer: None,
            }) => {
                let bound = |(begun, _): &(Begun, State)| begun.bound > 0;
                if self.calls.get(&key).is_some_and(bound) {
                    self.set(&key, State::Bound { at_ms });
                } else {
                    self.calls.remove(&key);
                }
            }
        }
    }

    fn set(&mut self, key: &str, state: State) {
        if let Some(call) = self.calls.get_mut(key) {
            call.1 = state;
        }
    }

    /// The process that wrote this has ended: what has no end was interrupted.
    pub(super) fn interrupt(&mut self) {
        let at_ms = now_ms();
        for (_, state) in self.calls.values_mut() {
            if matches!(state, State::Begun) {
                *state = State::Interrupted { at_ms };
            }
        }
    }

    /// Lets go of what may be forgotten.
    pub(super) fn forget(&mut self) {
        let now = now_ms();
        self.calls.retain(|_, (begun, state)| {
            let (at_ms, kept_for) = match state {
                State::Begun => return true,
                State::Ended { at_ms, .. } | State::Interrupted { at_ms } => {
                    (*at_ms, begun.retention())
                }
                State::Bound { at_ms } => (*at_ms, begun.bound_for()),
            };
            u128::from(now.saturating_sub(at_ms)) <= kept_for.as_millis()
        });
    }

    /// Lets go of what may be forgotten early too, which makes it another memory.
    pub(super) fn forget_early(&mut self) {
        let before = self.calls.len();
        self.calls
            .retain(|_, (begun, state)| !begun.lossy || !matches!(state, State::Ended { .. }));
        if self.calls.len() < before {
            self.since_ms = Some(now_ms());
            self.memory = Some(random_name());
        }
    }

    /// The file anew.
    pub(super) fn text(&self) -> io::Result<Vec<u8>> {
        let since = self.memory.clone().map(|memory| Line::Since {
            at_ms: self.since_ms.unwrap_or_else(now_ms),
            memory: Some(memory),
        });
        let mut text = Vec::new();
        let mut write = |line: Line| -> io::Result<()> {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            Ok(())
        };
        since.map(&mut write).transpose()?;
        for (key, (begun, state)) in &self.calls {
            if let State::Bound { at_ms } = state {
                let (begun, at_ms) = (begun.clone(), *at_ms);
                write(Line::Bound { begun, at_ms })?;
                continue;
            }
            write(Line::Begun(begun.clone()))?;
            let key = key.clone();
            match state.clone() {
                State::Ended { at_ms, said } => write(Line::Ended(Ended {
                    key,
                    at_ms,
                    answer: Some(said),
                }))?,
                State::Interrupted { at_ms } => write(Line::Interrupted { key, at_ms })?,
                State::Begun | State::Bound { .. } => (),
            }
        }
        Ok(text)
    }

    /// The calls, for a memory.
    pub(super) fn kept(self) -> Vec<Kept> {
        let now = now_ms();
        let kept = |(begun, state)| {
            let (at_ms, fate) = match state {
                State::Begun => (now, Fate::Interrupted),
                State::Interrupted { at_ms } => (at_ms, Fate::Interrupted),
                State::Bound { at_ms } => (at_ms, Fate::Bound),
                State::Ended { at_ms, said } => {
                    let answer = Answer {
                        text: said.text,
                        structured: said.structured,
                    };
                    let outcome = Outcome::Answered {
                        answer,
                        is_error: said.is_error,
                    };
                    (at_ms, Fate::Ended(outcome))
                }
            };
            let ago = Duration::from_millis(now.saturating_sub(at_ms));
            Kept { begun, ago, fate }
        };
        self.calls.into_values().map(kept).collect()
    }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
