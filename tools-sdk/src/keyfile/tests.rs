//! What the file remembers across restarts, and what it makes of damage.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn begun(key: &str) -> Begun {
    Begun {
        key: key.to_owned(),
        tool: "t".to_owned(),
        arguments_sha256: "h".to_owned(),
        epoch: 1,
        retention_ms: 60_000,
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
    file.end("done".to_owned(), &answered("first"))
        .await
        .unwrap();
    file.end("refused".to_owned(), &Outcome::not_executed("no"))
        .await
        .unwrap();
}

fn loaded(path: &Path) -> Vec<(String, String)> {
    let kept = KeyFile::new(path.to_owned()).load().unwrap();
    kept.iter()
        .map(|kept| (kept.begun.key.clone(), kept.outcome.text().to_owned()))
        .collect()
}

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
            .end("next".to_owned(), &answered("second"))
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
        error.contains("line 1 is damaged") && error.contains("move the file away"),
        "{error}"
    );
}

#[tokio::test]
async fn what_its_retention_no_longer_covers_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let lines = [
        Line::Begun(begun("old")),
        Line::Ended(Ended {
            key: "old".to_owned(),
            at_ms: now_ms() - 60_001,
            answer: Some(Said {
                text: "x".to_owned(),
                structured: None,
                is_error: false,
            }),
        }),
    ];
    let text: Vec<String> = lines
        .iter()
        .map(|line| serde_json::to_string(line).unwrap())
        .collect();
    std::fs::write(&path, text.join("\n") + "\n").unwrap();
    assert_eq!(loaded(&path), []);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
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
