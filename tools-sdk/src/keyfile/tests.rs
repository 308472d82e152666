//! What the file remembers across restarts, and what it makes of damage.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::answer::Answer;

fn begun(key: &str) -> Begun {
    Begun {
        key: key.to_owned(),
        tool: "t".to_owned(),
        arguments_sha256: "h".to_owned(),
        epoch: 1,
        retention_ms: 60_000,
        attempt: 1,
        ..Begun::default()
    }
}

fn answered(text: &str) -> Outcome {
    Outcome::Answered {
        answer: Answer::text(text),
        is_error: false,
    }
}

/// A file with two calls that ended, one of them without effect, and one that did not end.
async fn written(path: &Path) {
    let file = KeyFile::new(path.to_owned());
    assert!(file.load().unwrap().is_empty());
    assert!(!path.exists(), "nothing is created before it is needed");
    for key in ["done", "refused", "open"] {
        file.begin(begun(key)).await.unwrap();
    }
    file.end(&begun("done"), &answered("first")).await.unwrap();
    let refused = Outcome::not_executed("no");
    file.end(&begun("refused"), &refused).await.unwrap();
}

fn loaded(path: &Path) -> Vec<(String, String)> {
    let kept = KeyFile::new(path.to_owned()).load().unwrap();
    let fate = |kept: &Kept| match &kept.fate {
        Fate::Ended(outcome) => outcome.text().to_owned(),
        Fate::Interrupted => INTERRUPTED.to_owned(),
        Fate::Bound => format!("bound to {}", kept.begun.bound),
    };
    kept.iter()
        .map(|kept| (kept.begun.key.clone(), fate(kept)))
        .collect()
}

/// How the tests write that a call was interrupted.
const INTERRUPTED: &str = "interrupted";

fn pair(key: &str, text: &str) -> (String, String) {
    (key.to_owned(), text.to_owned())
}

#[tokio::test]
async fn ended_calls_are_kept_and_interrupted_ones_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    written(&path).await;
    let expected = [pair("done", "first"), pair("open", INTERRUPTED)];
    assert_eq!(loaded(&path), expected);
    assert_eq!(loaded(&path), expected, "loading twice is the same as once");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn a_cut_at_any_byte_loses_at_most_the_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    written(&path).await;
    let whole = std::fs::read(&path).unwrap();
    let open_begins = whole
        .windows(6)
        .position(|bytes| bytes == b"\"open\"")
        .unwrap();
    let open_ends = open_begins
        + whole[open_begins..]
            .iter()
            .position(|b| *b == b'\n')
            .unwrap();
    for cut in open_ends..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let kept = loaded(&path);
        assert!(
            kept.contains(&pair("open", INTERRUPTED)),
            "cut at {cut}: {kept:?}"
        );
        assert!(
            kept.iter().any(|(key, _)| key == "done"),
            "cut at {cut}: {kept:?}"
        );
        // Syncs take their time: not after each cut.
        if cut % 8 != 0 {
            continue;
        }
        let again = KeyFile::new(path.clone());
        again.load().unwrap();
        again.begin(begun("next")).await.unwrap();
        again
            .end(&begun("next"), &answered("second"))
            .await
            .unwrap();
        drop(again);
        assert!(
            loaded(&path).contains(&pair("next", "second")),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_named_and_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    written(&path).await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("begun", "bogun", 1)).unwrap();
    let error = KeyFile::new(path).load().err().unwrap().to_string();
    assert!(
        error.contains("line 2 is damaged") && error.contains("move the file away"),
        "{error}"
    );
}

#[tokio::test]
async fn what_its_retention_no_longer_covers_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let begun = serde_json::to_string(&Line::Begun(begun("old"))).unwrap();
    let at_ms = now_ms() - 60_001;
    let answer = r#"{"text":"x","structured":null,"is_error":false}"#;
    let ended = format!(r#"{{"ended":{{"key":"old","at_ms":{at_ms},"answer":{answer}}}}}"#);
    std::fs::write(&path, format!("{begun}\n{ended}\n")).unwrap();
    assert_eq!(loaded(&path), []);
    let left = std::fs::read_to_string(&path).unwrap();
    assert!(
        left.starts_with(r#"{"since":"#) && left.lines().count() == 1,
        "{left}"
    );
}

#[tokio::test]
async fn a_promise_outlives_the_process_and_the_attempt_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let bound = Begun {
        bound: 1,
        attempt: 0,
        ..begun("k")
    };
    let file = KeyFile::new(path.clone());
    file.bind(bound.clone()).await.unwrap();
    drop(file);
    assert_eq!(loaded(&path), [pair("k", "bound to 1")]);
    // The next attempt does nothing: the first one is refused all the same.
    let second = Begun {
        attempt: 2,
        ..bound.clone()
    };
    let file = KeyFile::new(path.clone());
    file.load().unwrap();
    file.begin(second.clone()).await.unwrap();
    let refused = Outcome::not_executed("no");
    file.end(&second, &refused).await.unwrap();
    drop(file);
    assert_eq!(loaded(&path), [pair("k", "bound to 1")]);
}

#[tokio::test]
async fn the_memory_keeps_its_name_with_its_file_and_a_file_of_before_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let first = KeyFile::new(path.clone());
    first.begin(begun("k")).await.unwrap();
    let name = first.memory();
    drop(first);
    let second = KeyFile::new(path.clone());
    second.load().unwrap();
    assert_eq!(second.memory(), name);
    drop(second);
    let text = std::fs::read_to_string(&path).unwrap();
    let without: String = text
        .lines()
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&path, without).unwrap();
    let third = KeyFile::new(path.clone());
    third.load().unwrap();
    let anew = third.memory();
    assert_ne!(anew, name);
    drop(third);
    let fourth = KeyFile::new(path.clone());
    fourth.load().unwrap();
    assert_eq!(fourth.memory(), anew);
    // Somebody takes the file away from under it: what it held is not in the new one.
    fourth.close();
    std::fs::remove_file(&path).unwrap();
    fourth.begin(begun("l")).await.unwrap();
    drop(fourth);
    let fifth = KeyFile::new(path);
    fifth.load().unwrap();
    assert_ne!(fifth.memory(), anew);
}

#[tokio::test]
async fn a_long_answer_of_a_call_that_may_be_forgotten_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let file = KeyFile::new(path.clone());
    let lossy = Begun {
        lossy: true,
        ..begun("k")
    };
    file.begin(lossy.clone()).await.unwrap();
    file.end(&lossy, &answered(&"x".repeat(100_000)))
        .await
        .unwrap();
    drop(file);
    let [(_, said)] = &*loaded(&path) else {
        panic!()
    };
    assert!(said.contains("100000 bytes and was not kept"), "{said}");
}

#[tokio::test]
async fn two_at_a_time_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let (first, second) = (KeyFile::new(path.clone()), KeyFile::new(path.clone()));
    second.load().unwrap();
    first.begin(begun("a")).await.unwrap();
    for error in [
        second.begin(begun("b")).await.err(),
        KeyFile::new(path).load().err(),
    ] {
        let error = error.unwrap().to_string();
        assert!(error.contains("another running sidecar"), "{error}");
    }
    drop(first);
    let stale = second.begin(begun("b")).await.unwrap_err().to_string();
    assert!(stale.contains("since this one started"), "{stale}");
}
