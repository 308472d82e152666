//! Questions: what is asked for, checked whole.

use std::collections::BTreeMap;

use loopwright_core::ids::LoopId;
use loopwright_log::{Id, Seq, StreamKey};
use loopwright_proto::v1;

use super::{
    fields::{self, Violations},
    kinds::{self, KindSet},
};
use crate::service::cursor::Seen;

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The session.
    pub key: StreamKey,
    /// Entries after this seq.
    pub after: Seq,
    /// What the watcher says of the entry at that seq.
    pub seen: Seen,
    /// Whether deltas are sent.
    pub deltas: bool,
    /// Which entries are sent.
    pub kinds: KindSet,
    /// The loop whose end is the end of the stream.
    pub until: Option<LoopId>,
}

/// Which loops to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoopFilter {
    /// In one of these states; none = in any.
    pub states: Vec<v1::LoopState>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Of this agent.
    pub agent: Option<Id>,
}

impl LoopFilter {
    /// Whether a loop in this state passes.
    #[must_use]
    pub fn wants(&self, state: v1::LoopState) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }

    /// Whether a loop of this agent passes.
    #[must_use]
    pub fn wants_agent(&self, name: &str) -> bool {
        self.agent
            .as_ref()
            .is_none_or(|agent| agent.as_str() == name)
    }
}

impl Watched {
    /// All of a session after `after`, without end.
    #[must_use]
    pub fn everything(key: StreamKey, after: Seq, deltas: bool) -> Self {
        Self {
            key,
            after,
            seen: Seen::default(),
            deltas,
            kinds: KindSet::ALL,
            until: None,
        }
    }
}

/// Checks a WatchLoop.
///
/// # Errors
/// Every violation.
pub fn watch(request: &v1::WatchLoopRequest, namespace: &Id) -> Result<Watched, Violations> {
    let mut all = Violations::default();
    let id = fields::id("session_id", &request.session_id, &mut all);
    let until = fields::optional_loop("loop_id", &request.loop_id, &mut all);
    let kinds = kinds::filter(&request.kinds, &mut all);
    let (epoch, at) = (request.after_epoch, request.after_committed_at.as_ref());
    let seen = Seen::parse(request.after_seq, epoch, at, &mut all);
    Ok(Watched {
        key: fields::key(namespace, id, all)?,
        after: request.after_seq,
        seen,
        deltas: request.deltas,
        kinds,
        until,
    })
}

/// Checks an attach on a Converse stream.
///
/// # Errors
/// Every violation.
pub fn attach(request: &v1::ConverseAttach, namespace: &Id) -> Result<Watched, Violations> {
    let mut all = Violations::default();
    let id = fields::id("session_id", &request.session_id, &mut all);
    let (epoch, at) = (request.after_epoch, request.after_committed_at.as_ref());
    let seen = Seen::parse(request.after_seq, epoch, at, &mut all);
    let key = fields::key(namespace, id, all)?;
    let all_of_it = Watched::everything(key, request.after_seq, request.deltas);
    Ok(Watched { seen, ..all_of_it })
}

/// Checks a WatchLoops.
///
/// # Errors
/// Every violation.
pub fn watch_loops(request: v1::WatchLoopsRequest) -> Result<LoopFilter, Violations> {
    let mut all = Violations::default();
    let filter = LoopFilter {
        states: fields::states(&request.states, "states", &mut all),
        labels: fields::labels(request.labels, &mut all),
        agent: fields::optional_id("agent", &request.agent, &mut all),
    };
    all.check(filter)
}

/// Checks a GetLoop.
///
/// # Errors
/// Every violation.
pub fn get_loop(
    request: &v1::GetLoopRequest,
    namespace: &Id,
) -> Result<(StreamKey, Option<LoopId>), Violations> {
    let mut all = Violations::default();
    let id = fields::id("session_id", &request.session_id, &mut all);
    let wanted = fields::optional_loop("loop_id", &request.loop_id, &mut all);
    Ok((fields::key(namespace, id, all)?, wanted))
}

/// Checks a request that names a session and nothing else.
///
/// # Errors
/// The one violation.
pub fn session(session_id: &str, namespace: &Id) -> Result<StreamKey, Violations> {
    let mut all = Violations::default();
    let id = fields::id("session_id", session_id, &mut all);
    fields::key(namespace, id, all)
}
