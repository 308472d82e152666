//! The model of the rig: it calls the tool that it is told to, and holds the end of a reply back until
//! the round is over.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use loopwright_tests::mock_model::{Answer, MockModel, Reply};
use serde_json::Value;

use super::lanes::{Lane, Point};

/// The model; it runs until it is dropped.
pub(super) struct Model {
    pub(super) mock: MockModel,
    /// Rounds up to this one are over.
    over: Arc<AtomicU32>,
}

impl Model {
    pub(super) async fn start() -> Result<Self> {
        let mock = MockModel::start().await?;
        let over = Arc::new(AtomicU32::new(0));
        let rounds = Arc::clone(&over);
        mock.by(move |request| answer(request, rounds.load(Ordering::SeqCst)));
        Ok(Self { mock, over })
    }

    /// What a client says to it.
    pub(super) fn told(lane: &Lane, round: u32) -> String {
        let held = match lane.point {
            Point::BeforeIntent => "call",
            Point::AfterResult => "end",
            _ => "nothing",
        };
        format!("round {round} tool {}__act hold {held}", lane.name())
    }

    /// From now on, nothing of this round is held back.
    pub(super) fn end(&self, round: u32) {
        self.over.store(round, Ordering::SeqCst);
    }
}

fn answer(request: &Value, over: u32) -> Answer {
    let messages = request["messages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let role = |message: &&Value, role: &str| message["role"] == role;
    let asked = messages.iter().find(|message| role(message, "user"));
    let words = asked
        .map(|message| text(&message["content"]))
        .unwrap_or_default();
    let words: Vec<&str> = words.split(' ').collect();
    let [_, round, _, tool, _, held] = words[..] else {
        return Answer::status(400, "this model is told: round N tool NAME hold WHAT");
    };
    let is_over = round.parse::<u32>().is_ok_and(|round| round <= over);
    let has_result = messages.iter().any(|message| role(&message, "tool"));
    let (mut reply, stage) = if has_result {
        (Reply::text("that is all"), "end")
    } else {
        (Reply::calls([(tool, "{\"how\":\"once\"}")]), "call")
    };
    if stage == "call" {
        "I call it.".clone_into(&mut reply.text);
    }
    if held == stage && !is_over {
        reply = reply.without_end();
    }
    reply.into()
}

/// The text of a message, which is a string or a list of parts.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}
