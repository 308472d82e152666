//! The ways in which a run can go: at which point the server dies, what kind of tool it was calling,
//! whether the sidecar can say what became of the call, and what does become of it.

use loopwright_proto::v1::EffectClass;
use loopwright_tests::rig::Chance;

/// Where a tool call is when the server is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    /// The model has asked for it, and not ended its reply.
    BeforeIntent,
    /// The intent is in the log; the request has not reached the sidecar.
    AfterIntent,
    /// The sidecar has the request, and has done nothing.
    AfterSend,
    /// The sidecar has done it, and not answered.
    AfterEffect,
    /// The sidecar has answered; the answer has not reached the server.
    AfterReply,
    /// The result is in the log.
    AfterResult,
}

/// What becomes of the call that the server has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It comes to nothing: the request is lost, or the sidecar forgets it as if started anew.
    Lost,
    /// It goes on at once, while the server is dead.
    Now,
    /// It goes on when the next server has begun.
    Late,
}

/// One of the ways; each has a sidecar and a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) number: usize,
    pub(super) point: Point,
    pub(super) class: EffectClass,
    pub(super) lookup: bool,
}

pub(super) const POINTS: [Point; 6] = [
    Point::BeforeIntent,
    Point::AfterIntent,
    Point::AfterSend,
    Point::AfterEffect,
    Point::AfterReply,
    Point::AfterResult,
];
pub(super) const CLASSES: [EffectClass; 4] = [
    EffectClass::ReadOnly,
    EffectClass::Idempotent,
    EffectClass::Deduplicated,
    EffectClass::AtMostOnce,
];

/// All of them.
pub(super) fn all() -> Vec<Lane> {
    let each = POINTS.map(|point| CLASSES.map(|class| (false, point, class)));
    // Nobody asks what became of a call that can be made again.
    let looked_up = POINTS.map(|point| (true, point, EffectClass::AtMostOnce));
    each.into_iter()
        .flatten()
        .chain(looked_up)
        .enumerate()
        .map(|(number, (lookup, point, class))| Lane {
            number,
            point,
            class,
            lookup,
        })
        .collect()
}

impl Lane {
    /// The name that its sidecar registers by.
    pub(super) fn name(&self) -> String {
        format!("l{:02}", self.number)
    }

    /// The session of one of its runs.
    pub(super) fn session(&self, round: u32) -> String {
        format!("r{round}-{}", self.name())
    }

    /// What becomes of the call: a choice only where somebody else holds it.
    pub(super) fn fate(&self, chance: &mut Chance) -> Fate {
        let fates: &[Fate] = match self.point {
            Point::AfterIntent | Point::AfterSend => &[Fate::Lost, Fate::Now, Fate::Late],
            Point::AfterEffect => &[Fate::Lost, Fate::Now],
            Point::BeforeIntent | Point::AfterReply | Point::AfterResult => &[Fate::Now],
        };
        fates[chance.place(fates.len())]
    }
}
