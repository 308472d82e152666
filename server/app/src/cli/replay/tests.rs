#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use super::*;

pub(super) fn recorded(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/golden");
    folder.join(format!("{name}.jsonl"))
}

fn of(file: &Path) -> LogReplay {
    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        replay: LogReplay,
    }
    use clap::Parser as _;
    Parsed::parse_from(["replay", "--file", file.to_str().unwrap()]).replay
}

pub(super) async fn all(file: &Path) -> Vec<Line> {
    let lines = source::open(&of(file)).await.unwrap().lines;
    lines.map(|line| line.unwrap()).collect().await
}

#[tokio::test]
async fn what_is_written_as_a_golden_session_is_what_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy.jsonl");
    let mut golden = Golden::at(path.to_str().unwrap()).unwrap();
    let mut replay = Replay::default();
    for line in all(&recorded("parallel_tools")).await {
        assert!(replay.take(&line).unwrap().is_ok());
        golden.push(&line).unwrap();
    }
    let words = golden.write(&replay.counts).unwrap().join("\n");
    assert!(
        words.contains("1 loop, 1 message, 3 model calls, 4 tool calls"),
        "{words}"
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        std::fs::read_to_string(recorded("parallel_tools")).unwrap()
    );
    let again = Golden::at(path.to_str().unwrap()).unwrap_err();
    assert!(again.to_string().contains("there already"), "{again}");
}

#[test]
fn a_golden_name_is_a_name_and_its_folder_must_be_there() {
    for (name, words) in [
        ("No-Name", "'_' alone"),
        ("", "'_' alone"),
        ("fine", "root of the repository"),
        ("/nowhere/at/all.jsonl", ""),
    ] {
        match Golden::at(name) {
            Ok(golden) => assert!(golden.write(&Counts::default()).is_err(), "{name}"),
            Err(error) => assert!(error.to_string().contains(words), "{name}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_edited_entry_parts_where_it_stands_and_not_later() {
    let mut lines = all(&recorded("simple")).await;
    for event in &mut lines[2].entry.events {
        if let Event::ModelCallStarted(started) = event {
            started.max_output_tokens += 1;
        }
    }
    let mut replay = Replay::default();
    let parted = lines
        .iter()
        .find_map(|line| replay.take(line).unwrap().err())
        .unwrap();
    assert_eq!((parted.divergence.seq, parted.cause), (3, "start_loop"));
    assert_eq!(replay.counts.entries, 2);
}

#[tokio::test]
async fn a_log_with_a_hole_is_no_replay() {
    let mut lines = all(&recorded("simple")).await;
    lines.remove(1);
    lines[1].seq = Some(3);
    let mut replay = Replay::default();
    replay.take(&lines[0]).unwrap().ok().unwrap();
    let error = replay.take(&lines[1]).err().unwrap().to_string();
    assert!(error.contains("seq 3 stands where 2 was due"), "{error}");
}

#[tokio::test]
async fn events_of_a_later_version_are_named() {
    let lines = all(&recorded("unknown_kinds")).await;
    let mut replay = Replay::default();
    let parted = lines
        .iter()
        .find_map(|line| replay.take(line).unwrap().err())
        .unwrap();
    assert_eq!(
        parted.divergence.seq, 4,
        "an ignorable kind is not decided either"
    );
}
