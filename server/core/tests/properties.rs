//! Properties of the machine over random scripts of inputs, sensible and senseless ones alike.
//!
//! The simulator knows what a driver may do; this does not. It offers anything at any time, so that
//! what holds here needs no discipline of its callers.

mod properties {
    pub(crate) mod input;
}

use std::collections::BTreeSet;

use loopwright_core::{
    Cause, EffectKey, Entry, Event, Input, State,
    agent::EffectClass,
    decide,
    ids::{CallId, LoopId, Timestamp},
    replay::{fold, redecide},
    state::LoopRun,
    wanted,
};
use proptest::prelude::*;

use properties::input::{Roll, roll, rolls};

/// Runs a script and hands each entry on with the states around it.
fn play(
    script: &[Roll],
    mut see: impl FnMut(&State, Timestamp, &Entry, &State) -> Result<(), TestCaseError>,
) -> Result<(State, Vec<Entry>), TestCaseError> {
    let mut state = State::default();
    let mut entries = Vec::new();
    let mut now = 1_000;
    for roll in script {
        now += roll.pause();
        let input = Input::new(Timestamp(now), roll.input(&state));
        let cause = input.cause();
        let Ok(events) = decide(&state, input) else {
            continue;
        };
        if events.is_empty() {
            continue;
        }
        let before = state.clone();
        let entry = Entry::new(cause, events);
        state.apply_entry(before.seq + 1, &entry);
        see(&before, Timestamp(now), &entry, &state)?;
        entries.push(entry);
    }
    Ok((state, entries))
}

/// Ids that an entry gives out.
fn new_ids(entry: &Entry) -> (Vec<CallId>, Vec<LoopId>) {
    let (mut calls, mut loops) = (Vec::new(), Vec::new());
    for event in &entry.events {
        if let Event::ToolCallRequested(e) = event {
            calls.push(e.call);
        }
        if let Event::LoopStarted(e) = event {
            loops.push(e.id);
        }
        if let Event::ModelCallStarted(e) = event
            && e.attempt == 1
        {
            calls.push(e.call);
        }
    }
    (calls, loops)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn replay_equals_memory_through_json(script in rolls()) {
        let (state, entries) = play(&script, |_, _, _, _| Ok(()))?;
        let text: Vec<String> = entries
            .iter()
            .map(|entry| serde_json::to_string(entry).expect("an entry is JSON"))
            .collect();
        let read: Vec<Entry> = text
            .iter()
            .map(|line| serde_json::from_str(line).expect("an entry reads back"))
            .collect();
        prop_assert_eq!(&read, &entries);
        prop_assert!(fold(&read) == state);
        for (line, entry) in text.iter().zip(&read) {
            prop_assert_eq!(&serde_json::to_string(entry).expect("an entry is JSON"), line);
        }
    }

    #[test]
    fn a_recovered_input_decides_to_what_was_logged(script in rolls()) {
        play(&script, |before, at, entry, _| {
            let again = redecide(before, at, entry);
            prop_assert!(again.is_ok(), "{again:#?}");
            let input = Input::from_entry(at, entry).expect("the entry tells its input");
            prop_assert_eq!(&input.cause(), &entry.cause);
            Ok(())
        })?;
    }

    #[test]
    fn a_session_at_rest_wants_nothing_but_settlements(script in rolls()) {
        play(&script, |_, _, _, after| {
            let keys = wanted(after);
            if after.active.is_none() {
                let settles = |key: &EffectKey| matches!(key, EffectKey::Settle { .. });
                prop_assert!(keys.iter().all(settles), "{keys:?}");
                prop_assert_eq!(after.wake_at(), None);
            } else {
                let rests = |active: &LoopRun| active.waits_for_person() || active.rests();
                let waits = after.active.as_ref().is_some_and(rests);
                prop_assert!(waits || !keys.is_empty(), "a loop that wants nothing never ends");
            }
            Ok(())
        })?;
    }

    #[test]
    fn ids_never_repeat_and_epochs_only_rise(script in rolls()) {
        let (mut calls, mut loops) = (BTreeSet::new(), BTreeSet::new());
        play(&script, |before, _, entry, after| {
            let (new_calls, new_loops) = new_ids(entry);
            for call in new_calls {
                prop_assert!(calls.insert(call), "{call} again");
            }
            for id in new_loops {
                prop_assert!(loops.insert(id), "{id} again");
            }
            let attached = u64::from(entry.cause == Cause::Attach);
            prop_assert_eq!(after.epoch, before.epoch + attached);
            Ok(())
        })?;
    }

    #[test]
    fn a_copy_of_any_length_begins_at_rest((script, cut, close) in (rolls(), 0.0..1.0, roll())) {
        let (_, mut entries) = play(&script, |_, _, _, _| Ok(()))?;
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation,
            clippy::cast_sign_loss, reason = "a share of a small number")]
        entries.truncate(1 + (entries.len() as f64 * cut) as usize);
        entries.iter_mut().for_each(|entry| entry.copied = true);
        let copy = fold(&entries);
        prop_assert!(wanted(&copy).is_empty());
        let at = Timestamp(u64::from(u32::MAX));
        let input = Input::new(at, close.adopt());
        let cause = input.cause();
        let Ok(events) = decide(&copy, input) else {
            prop_assert!(copy.session.is_none(), "a copy of a session is adopted");
            return Ok(());
        };
        let entry = Entry::new(cause, events);
        prop_assert!(redecide(&copy, at, &entry).is_ok());
        let mut state = copy;
        state.apply_entry(state.seq + 1, &entry);
        prop_assert!(!state.copied && state.active.is_none());
        prop_assert!(wanted(&state).is_empty(), "{:?}", wanted(&state));
        entries.push(entry);
        prop_assert!(fold(&entries) == state);
    }

    #[test]
    fn a_call_that_repeats_an_unknown_one_starts_by_a_persons_word_alone(script in rolls()) {
        play(&script, |before, _, entry, after| {
            let allowed = |call| {
                let by_a_person = |event: &Event| {
                    matches!(event, Event::ApprovalResolved(e) if e.call == call && e.allowed)
                        || matches!(event, Event::UnknownResolved(e) if e.call == call)
                };
                let tool = |state: &State| state.active.as_ref()?.tool(call).map(|t| t.approved);
                entry.events.iter().any(by_a_person) || tool(before) == Some(true)
            };
            for event in &entry.events {
                if let Event::ToolCallStarted(e) = event
                    && e.attempt == 1
                    && let Some(active) = &after.active
                    && let Some(tool) = active.tool(e.call)
                    && tool.effect == EffectClass::AtMostOnce
                    && before.is_unknown(active.tool_name(tool), &tool.args_hash)
                {
                    prop_assert!(allowed(e.call), "{} starts by itself", e.call);
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn totals_only_grow_and_never_wrap(script in rolls()) {
        play(&script, |before, _, _, after| {
            let (old, new) = (before.totals, after.totals);
            prop_assert!(new.usage.input >= old.usage.input);
            prop_assert!(new.usage.output >= old.usage.output);
            prop_assert!(new.usage.total() >= old.usage.total());
            prop_assert!(new.estimated >= old.estimated);
            prop_assert!(new.steps >= old.steps && new.tool_calls >= old.tool_calls);
            prop_assert!(u64::from(new.steps) <= new.model_calls);
            Ok(())
        })?;
    }
}
