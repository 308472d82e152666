//! The seeded simulator: crashes, lost acknowledgements, zombies, duplicates, late outcomes, persons
//! who answer or never do, copies.
//!
//! One thread, one clock, chance from a seed. Each seed is one session from its creation until
//! nothing happens any more, and in some a copy of it that lives on; the oracles judge their logs and
//! the outside world after every entry. A run ends with every loop, but for one that waits for a person.
//!
//! - `LOOPWRIGHT_SIM_SEEDS=n` runs seeds 0..n (default 20,000).
//! - `LOOPWRIGHT_SIM_SEED=n` runs that seed alone and prints its trace.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the core is pure, its tests read the environment and the clock"
)]

mod simulator {
    pub(crate) mod ledger;
    pub(crate) mod machine;
    pub(crate) mod model;
    pub(crate) mod mutant;
    pub(crate) mod oracle;
    pub(crate) mod plan;
    pub(crate) mod rng;
    pub(crate) mod sidecar;
    pub(crate) mod world;
}

use std::{collections::BTreeMap, io::Write as _, time::Instant};

use loopwright_core::{
    Cause, Event,
    budget::Dimension,
    event::{ApprovalOutcome, Nudge},
    outcome::{EndReason, WaitsFor},
};

use simulator::{
    mutant::Mutant,
    plan::{Feature, Features},
    world::{Outcome, Record, run},
};

const SEEDS: u64 = 20_000;
const SEEDS_OF_A_MUTANT: u64 = 12_000;
/// Answers of persons, and ends of their absence, that some seed must show.
const ANSWERS: [&str; 11] = [
    "approval Allowed",
    "approval Denied",
    "approval Expired",
    "approval Cancelled",
    "allowed by default",
    "unknown Happened",
    "unknown DidNotHappen",
    "unknown RunAgain",
    "unknown TellModel",
    "unknown Cancelled",
    "deadline Idle",
];
const NUDGES: [&str; 3] = ["nudge NoProgress", "nudge Wrapup", "nudge Conclude"];
/// What a loop is paused for, and what it goes on by.
const PAUSES: [&str; 6] = [
    "waits for Client",
    "waits for Limit loop",
    "waits for Limit session",
    "waits for Budget",
    "resumed by somebody",
    "resumed by a limit",
];
/// What becomes of loops whose time is limited.
const TIMES: [&str; 4] = [
    "warned of time",
    "time is up",
    "waits for time",
    "time after the last call",
];
/// Ends of recaps that a model was to write, each of which some seed must show.
const RECAPS: [&str; 7] = [
    "recap by a model",
    "recap Budget",
    "recap Failed",
    "recap Cut",
    "recap Empty",
    "recap TooLarge",
    "recap Interrupted",
];
/// What shared budgets say.
const SHARED: [&str; 3] = [
    "warned of a shared budget",
    "told of a shared budget",
    "last call of a shared budget",
];
const REASONS: [&str; 12] = [
    "completed",
    "max_steps",
    "max_output",
    "budget_exceeded",
    "deadline",
    "no_progress",
    "refused",
    "context_exhausted",
    "cancelled",
    "model_failed",
    "unknown_outcome",
    "error",
];

#[test]
fn every_promise_holds_in_every_seed() {
    let began = Instant::now();
    if let Some(seed) = number("LOOPWRIGHT_SIM_SEED") {
        let outcome = run(seed, None, Features::ALL, true);
        say(&format!("{}\n", outcome.trace.join("\n")));
        if outcome.violation.is_some() {
            fail(seed);
        }
        return;
    }
    let seeds = number("LOOPWRIGHT_SIM_SEEDS").unwrap_or(SEEDS);
    let (mut entries, mut faults) = (0, 0);
    let mut seen = BTreeMap::new();
    for seed in 0..seeds {
        let outcome = run(seed, None, Features::ALL, false);
        if outcome.violation.is_some() {
            fail(seed);
        }
        entries += outcome.records.len();
        faults += u64::from(outcome.faults);
        count(&outcome, &mut seen);
    }
    say(&format!(
        "simulator seeds={seeds} entries={entries} faults={faults} in {:.1} s ok\n",
        began.elapsed().as_secs_f64()
    ));
    if seeds >= SEEDS {
        assert!(faults > seeds, "the faults are too few to show anything");
        assert_eq!(never(&seen), [""; 0], "what no seed reaches, no seed tests");
    }
}

#[test]
fn dropping_progress_changes_nothing() {
    for seed in 0..1_000 {
        let with = run(seed, None, Features::ALL, false);
        let silent = Features::ALL.without(Feature::Progress);
        let without = run(seed, None, silent, false);
        assert!(
            with.records == without.records,
            "seed {seed}: the log depends on progress"
        );
    }
}

#[test]
fn one_seed_gives_one_log() {
    for seed in 0..100 {
        let first = run(seed, None, Features::ALL, false);
        let second = run(seed, None, Features::ALL, true);
        assert!(
            first.records == second.records,
            "seed {seed} differs from itself"
        );
    }
}

#[test]
fn every_mutant_is_killed() {
    let mut table = String::from("mutant                          seed  killed by\n");
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        let kill = |seed| {
            let violation = run(seed, Some(mutant), Features::ALL, false).violation?;
            let sound = run(seed, None, Features::ALL, false).violation;
            assert!(
                sound.is_none(),
                "seed {seed} fails without a mutant: {sound:?}"
            );
            Some((seed, violation))
        };
        let line = match (0..SEEDS_OF_A_MUTANT).find_map(kill) {
            Some((seed, violation)) => format!("{seed:>4}  {}", violation.oracle),
            None => {
                survivors.push(mutant);
                "   -  SURVIVES".to_owned()
            }
        };
        table.push_str(&format!("{:<30}  {line}\n", format!("{mutant:?}")));
    }
    say(&table);
    assert!(
        survivors.is_empty(),
        "{survivors:?} outlived {SEEDS_OF_A_MUTANT} seeds"
    );
}

/// How often each kind of event was seen, and each reason for which a loop ends.
fn count(outcome: &Outcome, seen: &mut BTreeMap<String, u64>) {
    land(outcome, seen);
    for event in outcome.records.iter().flat_map(|r| &r.entry.events) {
        let mut also = |what: String| *seen.entry(what).or_default() += 1;
        if let Event::LoopEnded(e) = event {
            also(e.reason.label().to_owned());
            if let EndReason::Deadline { kind } = e.reason {
                also(format!("deadline {kind:?}"));
            }
        }
        if let Event::MessageAdded(e) = event
            && let Some(nudge) = &e.nudge
        {
            also(match nudge {
                Nudge::NoProgress | Nudge::Wrapup => format!("nudge {nudge:?}"),
                Nudge::Conclude(_) => "nudge Conclude".to_owned(),
            });
        }
        if let Event::ContextCompacted(e) = event {
            let why = e.fallback.map(|why| format!("recap {why:?}"));
            let by_model = e.by_model.then(|| "recap by a model".to_owned());
            why.or(by_model).into_iter().for_each(&mut also);
        }
        if let Event::ApprovalResolved(e) = event {
            also(format!("approval {:?}", e.outcome));
            if e.outcome == ApprovalOutcome::Expired && e.allowed {
                also("allowed by default".to_owned());
            }
        }
        if let Event::UnknownResolved(e) = event {
            also(format!("unknown {:?}", e.resolution));
        }
        of_time(event)
            .into_iter()
            .for_each(|what| also(what.to_owned()));
        if let Event::LoopPaused(e) = event {
            also(match &e.waits_for {
                WaitsFor::Client { .. } => "waits for Client".to_owned(),
                WaitsFor::Limit { budget, .. } => format!("waits for Limit {budget}"),
                WaitsFor::Budget { .. } => "waits for Budget".to_owned(),
            });
        }
        if let Event::BudgetWarning(e) = event
            && e.budget == "team"
        {
            also("warned of a shared budget".to_owned());
        }
        if let Event::BudgetReserved(e) = event
            && !e.left.is_empty()
        {
            also("told of a shared budget".to_owned());
        }
        if let Event::LoopResumed(e) = event {
            let by = if e.by.is_empty() {
                "a limit"
            } else {
                "somebody"
            };
            also(format!("resumed by {by}"));
        }
        match seen.get_mut(event.kind()) {
            Some(count) => *count += 1,
            None => drop(seen.insert(event.kind().to_owned(), 1)),
        }
    }
}

fn of_time(event: &Event) -> Option<&'static str> {
    let of_time = |dimension| dimension == Dimension::WallTimeMs;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is of other kinds")]
    match event {
        Event::BudgetWarning(e) => of_time(e.dimension).then_some("warned of time"),
        Event::LoopEnded(e) => match e.reason {
            EndReason::BudgetExceeded { dimension, .. } => {
                of_time(dimension).then_some("time is up")
            }
            _ => None,
        },
        Event::LoopPaused(e) => match &e.waits_for {
            WaitsFor::Limit { short, .. } => of_time(short.dimension).then_some("waits for time"),
            WaitsFor::Client { .. } | WaitsFor::Budget { .. } => None,
        },
        Event::BudgetSettled(e) => (e.attempt == 0).then_some("time after the last call"),
        _ => None,
    }
}

/// Last calls that a shared budget's refusal led to.
fn land(outcome: &Outcome, seen: &mut BTreeMap<String, u64>) {
    let by_refusal = |r: &&Record| {
        let concludes = |e: &Event| matches!(e, Event::MessageAdded(e) if e.nudge.is_some());
        matches!(r.entry.cause, Cause::BudgetRefused { .. }) && r.entry.events.iter().any(concludes)
    };
    for _ in outcome.records.iter().filter(by_refusal) {
        let what = "last call of a shared budget".to_owned();
        *seen.entry(what).or_default() += 1;
    }
}

fn never(seen: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let all = Event::KINDS.iter().chain(&REASONS).chain(&ANSWERS);
    let all = all.chain(&SHARED);
    let all = all.chain(&NUDGES).chain(&PAUSES).chain(&RECAPS).copied();
    let all = all.chain(TIMES);
    all.filter(|what| !seen.contains_key(*what)).collect()
}

/// Narrows a failing seed down to the features that it needs, prints its trace, and fails.
fn fail(seed: u64) -> ! {
    let mut features = Features::ALL;
    let oracle = |features| run(seed, None, features, false).violation.map(|v| v.oracle);
    let broken = oracle(features);
    for feature in Feature::ALL {
        if oracle(features.without(feature)) == broken {
            features = features.without(feature);
        }
    }
    let needed: Vec<Feature> = Feature::ALL
        .into_iter()
        .filter(|&f| features.has(f))
        .collect();
    let Outcome {
        trace, violation, ..
    } = run(seed, None, features, true);
    let violation = violation.expect("it failed before");
    panic!(
        "seed {seed} breaks `{}`: {}\nneeds {needed:?}\n{}\nagain with LOOPWRIGHT_SIM_SEED={seed}",
        violation.oracle,
        violation.detail,
        trace.join("\n")
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{variable} = `{text}` is not a number of seeds or a seed: {error}"),
    }
}

fn say(text: &str) {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.expect("the test has a standard output");
}
