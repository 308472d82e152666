//! Copies of a session's log at any seq: nothing happens in one until it is closed, then it lives
//! on as a session of its own.

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    Entry, Input, Rejection, What,
    ids::Timestamp,
    input::{AdoptOrigin, Command, StartLoop},
    message::Parts,
    replay::redecide,
};

use super::{Record, World};
use crate::simulator::{
    oracle::{Violation, check},
    plan::{Feature, Plan},
};

impl World {
    /// A copy of this session up to some seq, in some seeds; not closed yet.
    pub(super) fn copy(&mut self) -> Result<Option<Self>, Violation> {
        let (drawn, seed) = (self.rng.chance(25), self.rng.next());
        let seq = self.rng.between(1, self.records.len() as u64);
        if !drawn || !self.features.has(Feature::Fork) {
            return Ok(None);
        }
        let mut copy = Self::new(seed, self.machine.0, self.features, self.trace.is_some());
        copy.plan = Plan {
            orders: std::mem::take(&mut copy.plan.orders),
            ..self.plan.clone()
        };
        copy.most = self.most;
        copy.now = self.now + 10;
        copy.prefix = "f";
        copy.json = self.json;
        for record in &self.records[..usize::try_from(seq).expect("small")] {
            copy.take_over(record, self)?;
        }
        Ok(Some(copy))
    }

    fn take_over(&mut self, record: &Record, original: &Self) -> Result<(), Violation> {
        let entry = Arc::new(Entry {
            copied: true,
            ..(*record.entry).clone()
        });
        let seq = self.records.len() as u64 + 1;
        if self.machine.0.is_none() && self.rng.chance(10) {
            let again = redecide(&self.shadow, record.at, &entry);
            check(again.is_ok(), "redecide", || {
                format!("the copy of entry {seq}: {again:?}")
            })?;
        }
        for event in &entry.events {
            self.know_outside(event);
        }
        self.machine.apply(&mut self.shadow, seq, &entry);
        self.oracle
            .observe(record.at, &entry, &self.shadow, &original.sidecar)?;
        self.records.push(Record {
            at: record.at,
            entry,
        });
        Ok(())
    }

    /// Closes the copy, and lives on.
    pub(super) fn live_as_a_copy(&mut self) -> Result<(), Violation> {
        self.is_left_alone()?;
        let from_seq = self.records.len() as u64;
        let from = "s".to_owned();
        let origin = if self.rng.chance(50) {
            AdoptOrigin::Fork {
                from,
                from_seq,
                labels: BTreeMap::new(),
            }
        } else {
            AdoptOrigin::Import { from, from_seq }
        };
        let what = What::Adopt {
            by: Command {
                request_id: "copy".to_owned(),
                principal: "ann".to_owned(),
            },
            session: "copy".to_owned(),
            namespace: "n".to_owned(),
            origin,
        };
        let at = Timestamp(self.now);
        let input = Input::new(at, what);
        let cause = input.cause();
        let events = self
            .machine
            .decide(&self.shadow, input)
            .map_err(|rejection| Violation::new("adopted", rejection.to_string()))?;
        let entry = Arc::new(Entry::new(cause, events));
        self.commit(self.shadow.epoch, at, &entry)?;
        let rests = self.shadow.active.is_none() && !self.shadow.copied;
        let wanted = self.machine.wanted(&self.shadow);
        check(rests && wanted.is_empty(), "adopted", || {
            format!("the copy wants {wanted:?}")
        })?;
        self.prepare();
        self.go_on()
    }

    /// A copy that is not closed wants nothing and takes nothing.
    fn is_left_alone(&self) -> Result<(), Violation> {
        let wanted = self.machine.wanted(&self.shadow);
        check(wanted.is_empty(), "unfinished", || {
            format!("an unfinished copy wants {wanted:?}")
        })?;
        let what = What::StartLoop(StartLoop {
            by: Command::default(),
            parts: Parts::default(),
            agent: None,
            limits: None,
            traceparent: None,
        });
        let at = Timestamp(self.now);
        let refused = self.machine.decide(&self.shadow, Input::new(at, what));
        check(refused == Err(Rejection::Unfinished), "unfinished", || {
            format!("an unfinished copy answers {refused:?}")
        })
    }
}
