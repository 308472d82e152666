use std::fs;

use super::super::fake::logs::EXPORT;
use super::*;

#[tokio::test]
async fn a_verification_says_what_is_wrong_and_ends_accordingly() {
    let (_fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();
    let exit = ran(&client, &["log", "verify", "fine"], &mut desk).await;
    assert_eq!(exit, Exit::Completed);
    assert_eq!(desk.out.text(), "fine: good: 7 entries, 1.9 KiB\n");
    let mut desk = self::desk();
    let exit = ran(&client, &["log", "verify", "bad"], &mut desk).await;
    assert_eq!(exit.code(), 7);
    let text = desk.out.text();
    for words in [
        "bad: DAMAGED",
        "what:     checksum 00000001, but the record says 00000002",
        "where:    default/session/bad/log.jsonl, line 5, byte 812",
        "readable: entries 1 to 4 can be read (812 B)",
        "behind:   2 entries look good behind the damage, up to seq 7",
        "(9 B, entry 3): is missing",
        "ways out: restore it from a backup",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let mut desk = self::desk();
    let exit = ran(&client, &["log", "verify", "bad", "--json"], &mut desk).await;
    assert_eq!(exit.code(), 7);
    let report: loopwright_proto::v1::IntegrityReport =
        serde_json::from_str(&desk.out.text()).unwrap();
    assert_eq!(report.good_through, 4);
}

#[tokio::test]
async fn an_export_is_written_whole_and_imported_again() {
    let (fake, client) = Fake::serve(sample()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s1.jsonl");
    let file = path.to_str().unwrap();
    let mut desk = desk();
    let exit = ran(&client, &["log", "export", "s1", "-o", file], &mut desk).await;
    assert_eq!((exit, desk.out.text().as_str()), (Exit::Completed, ""));
    assert_eq!(fs::read_to_string(&path).unwrap(), EXPORT);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no draft is left"
    );
    assert_eq!(
        ran(&client, &["log", "export", "s1"], &mut desk).await,
        Exit::Completed
    );
    assert_eq!(desk.out.text(), EXPORT);

    let mut desk = self::desk();
    let exit = ran(&client, &["log", "import", file, "--as", "copy"], &mut desk).await;
    assert_eq!(
        (exit, desk.out.text().as_str()),
        (Exit::Completed, "copy\n")
    );
    assert!(
        desk.err.text().contains("up to seq 7"),
        "{}",
        desk.err.text()
    );
    let mut desk = self::desk();
    desk.terminal = desk.terminal.with_input(EXPORT.as_bytes());
    let exit = ran(&client, &["log", "import", "-", "--as", "again"], &mut desk).await;
    assert_eq!(
        (exit, desk.out.text().as_str()),
        (Exit::Completed, "again\n")
    );
    let commands = fake.state().commands.clone();
    assert!(
        commands.iter().all(|(_, id)| !id.is_empty()),
        "{commands:?}"
    );
    let mut desk = self::desk();
    let exit = ran(&client, &["log", "import", "/nowhere/at/all"], &mut desk).await;
    assert_eq!(exit, Exit::Error);
}

#[tokio::test]
async fn a_fork_answers_with_its_id_and_a_deletion_asks_first() {
    let (fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();
    let line = [
        "log", "fork", "s1", "--at", "3", "--as", "f", "--label", "a=b",
    ];
    assert_eq!(ran(&client, &line, &mut desk).await, Exit::Completed);
    assert_eq!(desk.out.text(), "f\n");

    let deleted = || {
        let commands = &fake.state().commands;
        commands
            .iter()
            .filter(|(kind, _)| *kind == "delete")
            .count()
    };
    let rm = ["log", "rm", "s1"];
    assert_eq!(
        ran(&client, &rm, &mut desk).await,
        Exit::Usage,
        "nobody to ask"
    );
    for (answer, exit, count) in [
        ("n\n", Exit::Cancelled, 0),
        ("", Exit::Cancelled, 0),
        ("yes\n", Exit::Completed, 1),
    ] {
        let mut desk = self::desk();
        desk.terminal = desk.terminal.with_somebody(answer.as_bytes());
        assert_eq!(ran(&client, &rm, &mut desk).await, exit, "{answer:?}");
        assert_eq!(deleted(), count, "{answer:?}");
    }
    let exit = ran(&client, &["log", "rm", "s1", "--yes"], &mut desk).await;
    assert_eq!((exit, deleted()), (Exit::Completed, 2));
}
