//! Driving sessions: one task per active session, and the register of who drives what.
//!
//! The driver's whole life is `fold, attach, then loop { input; decide; append; apply; reconcile }`.
//! Nothing in it asks whether it is recovering. Whatever goes wrong with the log ends the driver,
//! and whether another one attaches is the register's decision alone.

use loopwright_core::{
    Input, Rejection, What,
    ids::{LoopId, Seq, Timestamp},
    input::Create,
};
use loopwright_log::{AppendError, LogError, StreamKey};
use tokio::sync::oneshot;

mod ahead;
mod commit;
mod drivers;
mod effect;
mod observe;
mod reconcile;
mod run;
mod wake;
mod world;

pub use drivers::{Drivers, FIRST_WAIT, Hold, ReleaseError};
pub use world::{Clock, CutTails, World};

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The entry that it caused.
    pub seq: Seq,
    /// The loop that it started, or that it spoke to.
    pub loop_id: LoopId,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommandError {
    /// The session refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The session does not exist.
    #[error("the session does not exist")]
    NotFound,
    /// The server is going down.
    #[error("the server is draining; try another replica, or again when it is back")]
    Draining,
    /// As many sessions as one server may drive are active.
    #[error("{limit} sessions are active, as many as `limits.active_sessions` allows")]
    TooManySessions {
        /// The limit.
        limit: usize,
    },
    /// The log did not take the entry.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] LogError),
    /// The session holds events of a later version, which this one must not drive over.
    #[error("the session holds `{kind}` events of a later version; upgrade this server")]
    Newer {
        /// The first such kind.
        kind: String,
    },
}

/// What reaches a driver through its inbox.
#[expect(clippy::large_enum_variant, reason = "nearly every one is a command")]
enum Delivery {
    /// A command.
    Command(Order),
    /// Let go, unless a loop is open: then say so here.
    Release(oneshot::Sender<LoopOpen>),
}

/// A loop of the session is open.
struct LoopOpen;

/// A command on its way to a driver.
struct Order {
    what: What,
    /// The session to create first, where it does not exist.
    create: Option<Create>,
    reply: oneshot::Sender<Reply>,
}

/// A driver's reply: an answer, or word that it detached before it came to the command.
enum Reply {
    Answered(Result<Answer, CommandError>),
    Detached(Box<(What, Option<Create>)>),
}

/// How a driver's life ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Nothing is left to do before `wake_at`, if ever.
    Idle { wake_at: Option<Timestamp> },
    /// The server is draining.
    Drained,
    /// The session does not exist.
    NotCreated,
    /// An invariant is broken: the next driver may fare the same.
    Panicked { payload: String },
    /// The fence was lost, or an invariant is broken: the next driver may fare the same.
    Lost { reason: String },
    /// The log does nothing now, or could not say whether it did: a disk is full, say.
    Unavailable { reason: String },
    /// The session may not be driven: damaged, or of a later version.
    Undrivable { reason: String },
}

fn input(at: Timestamp, what: What) -> Input {
    Input::new(at, what)
}

/// Which session a stream key names, for effects and logs.
fn name_of(key: &StreamKey) -> &str {
    key.id()
}

#[cfg(test)]
mod tests;
