//! Progress of a call in flight, on its way to watchers: coalesced here, at the effect.
//!
//! Progress is droppable: nothing of it is a fact, and a loop that published none would end the same.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use loopwright_core::ids::{Attempt, CallId};
use loopwright_log::{Keep, Log, Progress, ProgressTopic, Seq, StreamKey};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::flight::Flight;

/// Channel of a model's text: raw UTF-8.
pub const CHANNEL_TEXT: u16 = 0;
/// Channel of what a model thinks: raw UTF-8.
pub const CHANNEL_THINKING: u16 = 1;
/// Channel of a tool's progress: the JSON of [`ToolProgress`], the latest only.
pub const CHANNEL_TOOL: u16 = 2;

/// Longest that text waits to be sent along with what follows it.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Most text that waits, bytes.
const MOST_WAITING: usize = 4 * 1024;

/// What a tool says of how far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolProgress {
    /// Share done, 0.0 to 1.0, where the tool knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// In words.
    #[serde(default)]
    pub message: String,
}

/// Where an effect says how far it is.
pub struct ProgressSink {
    log: Arc<dyn Log>,
    key: StreamKey,
    anchor: Seq,
    call: CallId,
    attempt: Attempt,
    text: Channel,
    thinking: Channel,
    flight: Flight,
    first_at: Option<Instant>,
    mute: bool,
}

#[derive(Default)]
struct Channel {
    sent: u64,
    waiting: Vec<u8>,
    last: Option<Instant>,
}

impl ProgressSink {
    /// A sink for one attempt of a call that the entry at `anchor` licensed.
    #[must_use]
    pub fn new(
        log: Arc<dyn Log>,
        key: StreamKey,
        anchor: Seq,
        call: CallId,
        attempt: Attempt,
    ) -> Self {
        let (text, thinking) = (Channel::default(), Channel::default());
        Self {
            log,
            key,
            anchor,
            call,
            attempt,
            text,
            thinking,
            flight: Flight::default(),
            first_at: None,
            mute: false,
        }
    }

    /// The same sink, of which nobody is shown anything.
    #[must_use]
    pub fn muted(self) -> Self {
        Self { mute: true, ..self }
    }

    /// How far the effect is; whoever runs it says so here.
    #[must_use]
    pub fn flight(&self) -> &Flight {
        &self.flight
    }

    /// When the model first said or thought something, where it has.
    #[must_use]
    pub fn first_at(&self) -> Option<Instant> {
        self.first_at
    }

    /// The model said this.
    pub fn text(&mut self, piece: &str) {
        self.first_at.get_or_insert_with(Instant::now);
        self.text.waiting.extend_from_slice(piece.as_bytes());
        self.send_if_due(CHANNEL_TEXT);
    }

    /// The model thought this.
    pub fn thinking(&mut self, piece: &str) {
        self.first_at.get_or_insert_with(Instant::now);
        self.thinking.waiting.extend_from_slice(piece.as_bytes());
        self.send_if_due(CHANNEL_THINKING);
    }

    /// The tool is this far. Takes the place of what it said before.
    pub fn tool(&mut self, fraction: Option<f64>, message: &str) {
        let progress = ToolProgress {
            fraction,
            message: message.to_owned(),
        };
        let Ok(payload) = serde_json::to_vec(&progress) else {
            return;
        };
        self.publish(CHANNEL_TOOL, 0, payload.into(), Keep::Latest);
    }

    /// When something that waits wants to be sent by [`Self::flush`].
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let due = |channel: &Channel| {
            (!channel.waiting.is_empty()).then(|| {
                channel
                    .last
                    .map_or_else(Instant::now, |last| last + LONGEST_WAIT)
            })
        };
        [due(&self.text), due(&self.thinking)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        self.send(CHANNEL_TEXT);
        self.send(CHANNEL_THINKING);
    }

    fn channel(&mut self, channel: u16) -> &mut Channel {
        if channel == CHANNEL_TEXT {
            &mut self.text
        } else {
            &mut self.thinking
        }
    }

    fn send_if_due(&mut self, channel: u16) {
        let c = self.channel(channel);
        let due = c.last.is_none_or(|last| last.elapsed() >= LONGEST_WAIT);
        if due || c.waiting.len() >= MOST_WAITING {
            self.send(channel);
        }
    }

    fn send(&mut self, channel: u16) {
        let c = self.channel(channel);
        if c.waiting.is_empty() {
            return;
        }
        let payload = Bytes::from(std::mem::take(&mut c.waiting));
        let offset = c.sent;
        c.sent += payload.len() as u64;
        c.last = Some(Instant::now());
        self.publish(channel, offset, payload, Keep::Append);
    }

    fn publish(&self, channel: u16, offset: u64, payload: Bytes, keep: Keep) {
        if self.mute {
            return;
        }
        let topic = ProgressTopic {
            anchor: self.anchor,
            call: self.call.0,
            attempt: self.attempt,
            channel,
        };
        self.log
            .publish(&self.key, Progress::new(topic, offset, payload, keep));
    }
}
