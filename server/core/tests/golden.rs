//! Golden sessions: logs of today that every later version must read, fold and understand.
//!
//! Each `golden/<name>.jsonl` holds one session, an entry a line with its time. The test reads it,
//! writes it back byte for byte, folds it, decides every recovered input again, and compares a
//! summary written down here. `LOOPWRIGHT_GOLDEN=rewrite` writes the files anew from
//! `golden/sessions.rs`; do that only for a change of the format or of the rules that is meant.
//! Any other file there is a recorded session, which `loopwright log replay --golden` wrote: it is
//! read, written back and decided again, and nothing needs to be said of it here.

#![expect(
    clippy::disallowed_methods,
    reason = "the core is pure, its tests read the environment"
)]

mod golden {
    pub(crate) mod script;
    pub(crate) mod sessions;
}

use std::{fmt::Write as _, fs, path::PathBuf};

use golden::{script::Line, sessions};
use loopwright_core::{
    State,
    replay::{fold, newer_kinds, redecide},
};

/// Name, what its fold comes to, and the entries of a later version, which cannot be decided again.
const EXPECTED: [(&str, &str, &[u64]); 16] = [
    (
        "simple",
        "seq=4 epoch=1 turns=2 pending=0 queue=0 settling=0; \
         l1 completed steps=1 calls=1+0 tokens=70 says \"A toy on a string.\"",
        &[],
    ),
    (
        "parallel_tools",
        "seq=11 epoch=1 turns=6 pending=0 queue=0 settling=0; \
         l1 completed steps=3 calls=3+3 tokens=357 says \"Done.\"",
        &[],
    ),
    (
        "crash_in_doubt",
        "seq=10 epoch=2 turns=4 pending=0 queue=0 settling=0; \
         l1 completed steps=2 calls=2+3 tokens=210 says \"Perhaps.\"",
        &[],
    ),
    (
        "crash_in_model_call",
        "seq=10 epoch=3 turns=2 pending=0 queue=0 settling=0; \
         l1 completed steps=1 calls=5+0 tokens=9959 says \"Hello.\"",
        &[],
    ),
    (
        "cancel",
        "seq=6 epoch=1 turns=3 pending=1 queue=0 settling=0; \
         l1 cancelled steps=1 calls=1+1 tokens=98 says \"As you say.\"",
        &[],
    ),
    (
        "budget_exceeded",
        "seq=6 epoch=1 turns=4 pending=0 queue=0 settling=0; \
         l1 budget_exceeded steps=2 calls=2+1 tokens=2000 says \"So far so\"",
        &[],
    ),
    (
        "last_call",
        "seq=10 epoch=1 turns=11 pending=0 queue=0 settling=0; \
         l1 budget_exceeded steps=4 calls=4+3 tokens=6512 says \"I did not see it.\"",
        &[],
    ),
    (
        "named_budget",
        "seq=9 epoch=2 turns=2 pending=0 queue=0 settling=0; \
         l1 completed steps=1 calls=2+0 tokens=2991 says \"Yes.\"",
        &[],
    ),
    (
        "steer_queue_interrupt",
        "seq=9 epoch=1 turns=8 pending=0 queue=0 settling=0; \
         l1 completed steps=3 calls=3+0 tokens=8625 says \"Ena\"; \
         l2 completed steps=1 calls=1+0 tokens=71 says \"La la.\"",
        &[],
    ),
    (
        "unknown_kinds",
        "seq=5 epoch=1 turns=2 pending=0 queue=0 settling=0; \
         l1 completed steps=1 calls=1+0 tokens=25 says \"Hi!\"",
        &[4, 5],
    ),
    (
        "held_and_allowed",
        "seq=13 epoch=2 turns=6 pending=0 queue=0 settling=0; \
         l1 completed steps=3 calls=3+3 tokens=308 says \"So be it.\"",
        &[],
    ),
    (
        "held_and_expired",
        "seq=13 epoch=2 turns=10 pending=0 queue=0 settling=0; \
         l1 completed steps=5 calls=5+1 tokens=504 says \"So be it.\"",
        &[],
    ),
    (
        "unknown_and_asked",
        "seq=25 epoch=1 turns=11 pending=0 queue=0 settling=0; \
         l1 deadline steps=5 calls=5+5 tokens=490 says \"\"",
        &[],
    ),
    (
        "lookup_never_started",
        "seq=11 epoch=2 turns=4 pending=0 queue=0 settling=0; \
         l1 completed steps=2 calls=2+1 tokens=210 says \"So be it.\"",
        &[],
    ),
    (
        "fork_in_mid_call",
        "seq=12 epoch=2 turns=7 pending=0 queue=0 settling=0; \
         l1 cancelled steps=2 calls=2+2 tokens=196 says \"\"; \
         l2 completed steps=1 calls=1+0 tokens=112 says \"So be it.\"",
        &[],
    ),
    (
        "import",
        "seq=8 epoch=2 turns=4 pending=0 queue=0 settling=0; \
         l1 cancelled steps=1 calls=1+0 tokens=4965 says \"\"; \
         l2 completed steps=1 calls=1+0 tokens=112 says \"So be it.\"",
        &[],
    ),
];

#[test]
fn golden_sessions_are_read_as_they_were_written() {
    if std::env::var("LOOPWRIGHT_GOLDEN").is_ok_and(|word| word == "rewrite") {
        for (name, lines) in sessions::all() {
            let text: String = lines.iter().map(|line| json(line) + "\n").collect();
            fs::write(path(name), text).expect("the golden directory can be written");
        }
    }
    let mut wrong = String::new();
    for (name, expected, of_a_later_version) in EXPECTED {
        let lines = read(name);
        let summary = summarise(&lines);
        if summary != expected {
            let _ = writeln!(
                wrong,
                "{name}:\n  expected {expected:?}\n  found    {summary:?}"
            );
        }
        let mut state = State::default();
        for (seq, line) in (1..).zip(&lines) {
            let again = redecide(&state, line.at, &line.entry);
            assert_eq!(
                again.is_err(),
                of_a_later_version.contains(&seq),
                "{name} entry {seq}: {again:#?}"
            );
            state.apply_entry(seq, &line.entry);
        }
        assert_eq!(state, fold(lines.iter().map(|line| &line.entry)), "{name}");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Files that `loopwright log replay SESSION --golden NAME` wrote: what this version decides must be
/// what was recorded.
#[test]
fn recorded_sessions_are_decided_as_they_were() {
    let recorded: Vec<String> = names()
        .into_iter()
        .filter(|name| EXPECTED.iter().all(|(expected, ..)| expected != name))
        .collect();
    for name in recorded {
        let mut state = State::default();
        for (seq, line) in (1..).zip(&read(&name)) {
            if let Err(divergence) = redecide(&state, line.at, &line.entry) {
                panic!("{name} entry {seq}: {divergence:#?}");
            }
            state.apply_entry(seq, &line.entry);
        }
        assert!(state.seq > 0, "{name} holds no entry");
    }
}

#[test]
fn every_scripted_session_has_its_file() {
    let found = names();
    for (name, ..) in EXPECTED {
        assert!(
            found.iter().any(|one| one == name),
            "{name} among {found:?}"
        );
    }
}

#[test]
fn kinds_of_a_later_version_stop_a_driver_unless_they_are_ignorable() {
    let lines = read("unknown_kinds");
    let newer: Vec<&str> = lines
        .iter()
        .flat_map(|line| newer_kinds(&line.entry))
        .collect();
    assert_eq!(newer, ["QuorumReached"]);
}

/// The lines of a file; each is written back as it was read.
fn read(name: &str) -> Vec<Line> {
    let path = path(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parse = |(at, text): (usize, &str)| {
        let line: Line =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{name} line {}: {e}", at + 1));
        assert_eq!(
            json(&line),
            text,
            "{name} line {} is not written back as read",
            at + 1
        );
        line
    };
    text.lines().enumerate().map(parse).collect()
}

fn summarise(lines: &[Line]) -> String {
    let state = fold(lines.iter().map(|line| &line.entry));
    let mut text = format!(
        "seq={} epoch={} turns={} pending={} queue={} settling={}",
        state.seq,
        state.epoch,
        state.conversation.len(),
        state.pending.len(),
        state.queue.len(),
        state.settling.len()
    );
    for ended in state.ended.iter() {
        let _ = write!(
            text,
            "; {} {} steps={} calls={}+{} tokens={} says {:?}",
            ended.id,
            ended.reason.label(),
            ended.totals.steps,
            ended.totals.model_calls,
            ended.totals.tool_calls,
            ended.totals.usage.total(),
            ended.text
        );
    }
    text
}

/// Every golden file there is.
fn names() -> Vec<String> {
    let folder = path("simple");
    let folder = folder.parent().expect("the file has a folder");
    let mut found: Vec<String> = fs::read_dir(folder)
        .expect("the golden directory can be read")
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter_map(|file| Some(file.strip_suffix(".jsonl")?.to_owned()))
        .collect();
    found.sort();
    found
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).expect("a line is JSON")
}

fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(format!("{name}.jsonl"))
}
