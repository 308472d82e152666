//! A loop that waits, goes on, and the limits that it goes on within.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    agent::Limits,
    ids::{LoopId, Timestamp},
    outcome::WaitsFor,
};

facts! {
    /// See [`super::Event::LimitsUpdated`].
    LimitsUpdated {
        /// The loop.
        #[serde(rename = "loop")]
        pub id: LoopId,
        /// All limits from here on.
        pub limits: Arc<Limits>,
        /// Who moved them.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub by: String,
    }
    /// See [`super::Event::LoopPaused`].
    LoopPaused {
        /// The loop.
        #[serde(rename = "loop")]
        pub id: LoopId,
        /// What it waits for.
        pub waits_for: WaitsFor,
        /// When; absent in logs of versions that did not say.
        #[serde(default, skip_serializing_if = "Timestamp::is_unknown")]
        pub at: Timestamp,
    }
    /// See [`super::Event::LoopResumed`].
    LoopResumed {
        /// The loop.
        #[serde(rename = "loop")]
        pub id: LoopId,
        /// Who asked; empty where a budget had room again.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub by: String,
        /// When; absent in logs of versions that did not say.
        #[serde(default, skip_serializing_if = "Timestamp::is_unknown")]
        pub at: Timestamp,
    }
}
