//! What the tools did, against what the log says of their calls.

use std::collections::BTreeMap;

use loopwright_proto::v1::{EffectClass, Entry, event::Kind};
use loopwright_tests::rig::{Outcome, effects::Effect};

use super::sidecar::{NAME, TOOLS};

/// A call as the log tells of it.
#[derive(Debug)]
struct Call {
    class: EffectClass,
    /// The sidecar can say what became of it.
    can_be_looked_up: bool,
    /// Attempt and epoch of each dispatch.
    starts: Vec<(u32, u64)>,
    /// True between a dispatch and what came of it.
    is_running: bool,
    /// An at-most-once call whose driver was lost while it ran.
    is_ambiguous: bool,
    was_in_doubt: bool,
    ends: Vec<&'static str>,
}

/// The calls of all sessions, by `session/call`.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<String, Call>);

impl Calls {
    /// Follows the calls of one session.
    pub(super) fn follow(&mut self, report: &mut Outcome, session: &str, log: &[Entry]) {
        for entry in log {
            for event in &entry.events {
                if let Some(kind) = &event.kind {
                    self.take(report, session, entry.epoch, kind);
                }
            }
        }
    }

    fn take(&mut self, report: &mut Outcome, session: &str, epoch: u64, kind: &Kind) {
        match kind {
            Kind::DriverAttached(_) => return self.driver_lost(session),
            Kind::ToolCallRequested(asked) => {
                return self.asked(report, session, &asked.call, &asked.tool);
            }
            _ => {}
        }
        let (call, start, end) = match kind {
            Kind::ToolCallStarted(started) => (&started.call, Some(started.attempt), None),
            Kind::ToolCallCompleted(done) => (&done.call, None, Some("completed")),
            Kind::ToolCallFailed(failed) => {
                let is_last = failed.retry_at.is_none();
                (&failed.call, None, is_last.then_some("failed"))
            }
            Kind::ToolCallInDoubt(doubt) => (&doubt.call, None, None),
            Kind::ToolCallUnknown(unknown) => (&unknown.call, None, Some("unknown")),
            Kind::ToolCallRejected(rejected) => (&rejected.call, None, Some("rejected")),
            Kind::ToolCallCancelled(cancelled) => (&cancelled.call, None, Some("cancelled")),
            _ => return,
        };
        let Some(known) = self.0.get_mut(&format!("{session}/{call}")) else {
            return report.wrong(format!("{session}/{call}: {kind:?} without a request"));
        };
        known.is_running = start.is_some();
        known.was_in_doubt |= matches!(kind, Kind::ToolCallInDoubt(_));
        known.starts.extend(start.map(|attempt| (attempt, epoch)));
        known.ends.extend(end);
        // Where the sidecar has said that it never ran, it is run; the effects tell a lie.
        let is_lost = known.is_ambiguous && !known.can_be_looked_up;
        let again = start.is_some() && (is_lost || !known.ends.is_empty());
        report.expect(!again, || {
            format!("{session}/{call} was dispatched again: {known:?}")
        });
    }

    fn asked(&mut self, report: &mut Outcome, session: &str, call: &str, tool: &str) {
        let own = tool
            .strip_prefix(NAME)
            .and_then(|rest| rest.strip_prefix("__"));
        let tool_of = TOOLS.iter().find(|(name, _, _)| Some(*name) == own);
        let Some((_, class, lookup)) = tool_of else {
            return report.wrong(format!("{session}/{call}: there is no {tool}"));
        };
        let call = format!("{session}/{call}");
        let asked = Call {
            class: *class,
            can_be_looked_up: *lookup,
            starts: Vec::new(),
            is_running: false,
            is_ambiguous: false,
            was_in_doubt: false,
            ends: Vec::new(),
        };
        if self.0.insert(call.clone(), asked).is_some() {
            report.wrong_as("duplicated", format!("{call} was requested twice"));
        }
    }

    fn driver_lost(&mut self, session: &str) {
        let prefix = format!("{session}/");
        let of_session = self
            .0
            .range_mut(prefix.clone()..)
            .map_while(|(key, call)| key.starts_with(&prefix).then_some(call));
        for call in of_session.filter(|call| call.is_running) {
            call.is_ambiguous |= call.class == EffectClass::AtMostOnce;
        }
    }

    /// Holds all calls against all effects.
    pub(super) fn check(&self, report: &mut Outcome, effects: &[Effect]) {
        let mut of_call: BTreeMap<String, Vec<&Effect>> = BTreeMap::new();
        for effect in effects {
            report.count(effects_of(&effect.tool), 1);
            let key = effect.call();
            let licence = (effect.attempt, effect.epoch);
            let is_licensed = self
                .0
                .get(&key)
                .is_some_and(|call| call.starts.contains(&licence));
            of_call.entry(key).or_default().push(effect);
            report.expect(is_licensed, || {
                format!("{effect:?} without an intent in the log")
            });
        }
        for (key, call) in &self.0 {
            report.count("calls", 1);
            let effects = of_call.get(key.as_str()).map_or(0, Vec::len);
            call.check(report, key, effects);
        }
    }
}

impl Call {
    fn check(&self, report: &mut Outcome, key: &str, effects: usize) {
        let [end] = self.ends[..] else {
            return report.wrong(format!("{key} does not have one end: {self:?}"));
        };
        report.count("unknown", u64::from(end == "unknown"));
        let words = || format!("{key} had {effects} effects: {self:?}");
        match (self.class, end) {
            (EffectClass::AtMostOnce, "completed") => report.expect(effects == 1, words),
            (EffectClass::AtMostOnce, _) => report.expect(effects <= 1, words),
            (EffectClass::Deduplicated, "completed") => report.expect(effects == 1, words),
            (EffectClass::Deduplicated, _) => report.expect(effects <= 1, words),
            (_, "completed") => report.expect(effects >= 1, words),
            _ => {}
        }
        let found_out = self.is_ambiguous && self.can_be_looked_up && end == "completed";
        report.count("found_out", u64::from(found_out));
        let is_at_most_once = self.class == EffectClass::AtMostOnce;
        let is_expected = match end {
            "completed" => !self.is_ambiguous || self.can_be_looked_up,
            // Nothing else than a lost server stands between a call and its result here.
            "unknown" => {
                let is_lost = self.was_in_doubt && self.is_ambiguous;
                is_at_most_once && !self.can_be_looked_up && is_lost
            }
            _ => false,
        };
        report.expect(is_expected, || format!("{key} ended as {end}: {self:?}"));
    }
}

/// The count of a tool's effects.
fn effects_of(tool: &str) -> &'static str {
    let class = TOOLS.iter().find(|(name, _, _)| *name == tool);
    match class.map(|(_, class, _)| class) {
        Some(EffectClass::ReadOnly) => "read_only_effects",
        Some(EffectClass::Idempotent) => "idempotent_effects",
        Some(EffectClass::Deduplicated) => "deduplicated_effects",
        Some(EffectClass::AtMostOnce) => "at_most_once_effects",
        _ => "other_effects",
    }
}

/// The oracle must fail for each lie that it is there to catch.
mod tests {
    use super::*;

    fn call(class: EffectClass, lookup: bool, end: &'static str) -> Call {
        Call {
            class,
            can_be_looked_up: lookup,
            starts: vec![(1, 1)],
            is_running: false,
            is_ambiguous: true,
            was_in_doubt: true,
            ends: vec![end],
        }
    }

    fn is_ok(call: &Call, effects: usize) -> bool {
        let mut outcome = Outcome::new("oracle", 0);
        call.check(&mut outcome, "s1/c1", effects);
        outcome.is_ok()
    }

    #[test]
    fn what_is_promised_passes_and_every_lie_is_caught() {
        use EffectClass::{AtMostOnce, Deduplicated, ReadOnly};
        let unknown = call(AtMostOnce, false, "unknown");
        assert!(is_ok(&unknown, 0) && is_ok(&unknown, 1));
        assert!(!is_ok(&unknown, 2), "two effects");
        let hidden = call(AtMostOnce, false, "completed");
        assert!(
            !is_ok(&hidden, 1),
            "an ambiguous call that nobody could know of"
        );
        let found = call(AtMostOnce, true, "completed");
        assert!(is_ok(&found, 1));
        assert!(!is_ok(&found, 0) && !is_ok(&found, 2), "found out, wrongly");
        assert!(
            !is_ok(&call(AtMostOnce, true, "unknown"), 1),
            "its sidecar knows"
        );
        let mut once = call(Deduplicated, false, "completed");
        once.is_ambiguous = false;
        assert!(is_ok(&once, 1));
        assert!(!is_ok(&once, 2), "not deduplicated");
        once.ends.push("completed");
        assert!(!is_ok(&once, 1), "two ends");
        once.ends.clear();
        assert!(!is_ok(&once, 1), "no end");
        let mut again = call(ReadOnly, false, "completed");
        again.is_ambiguous = false;
        assert!(is_ok(&again, 3));
        assert!(!is_ok(&again, 0), "a result of nothing");
    }
}
