//! The tools of `files`, each in a folder of its own, with something precious outside of it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod escapes;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use loopwright_tools::serde_json::{Value, json};
use loopwright_tools::{Outcome, RemoteSidecar, Sidecar};

use super::*;

/// A folder `outside`, and within it the folder `root` that the sidecar works on.
struct Place {
    outside: tempfile::TempDir,
    sidecar: Sidecar,
}

impl Place {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let options = FilesOptions {
            root,
            append_delay: Duration::ZERO,
        };
        Self {
            sidecar: files("files", &options).unwrap(),
            outside,
        }
    }

    fn root(&self) -> PathBuf {
        self.outside.path().join("root")
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn content(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }

    async fn call(&self, tool: &str, args: Value) -> Outcome {
        self.sidecar.call(tool, args).await.unwrap()
    }

    /// The text of a call that succeeds.
    async fn said(&self, tool: &str, args: Value) -> String {
        let outcome = self.call(tool, args).await;
        assert!(outcome.is_success(), "{outcome:?}");
        outcome.text().to_owned()
    }

    /// The text of a call that does not succeed.
    async fn fault(&self, tool: &str, args: Value) -> String {
        let outcome = self.call(tool, args).await;
        assert!(!outcome.is_success(), "{outcome:?}");
        outcome.text().to_owned()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_written_is_read_listed_and_found() {
    let place = Place::new();
    let said = place
        .said(
            "write",
            json!({"path": "a/b/notes.txt", "content": "one\nTwo\n"}),
        )
        .await;
    assert_eq!(said, "Created the file a/b/notes.txt: it has 8 bytes now.");
    assert_eq!(place.content("a/b/notes.txt"), "one\nTwo\n");
    assert_eq!(
        place
            .said("read", json!({"path": "./a//b/notes.txt"}))
            .await,
        "one\nTwo\n"
    );
    let said = place.said("list", json!({})).await;
    assert_eq!(said, "The root folder has 1 entry:\na/ (folder)");
    let said = place.said("list", json!({"path": "a/b"})).await;
    assert_eq!(said, "The folder a/b has 1 entry:\nnotes.txt (8 bytes)");
    let said = place.said("search", json!({"text": "tWO"})).await;
    assert_eq!(
        said,
        "1 line contains \"tWO\" (1 file searched):\na/b/notes.txt:2: Two"
    );
    let said = place.said("search", json!({"text": "three"})).await;
    assert_eq!(said, "No line contains \"three\" (1 file searched).");
    let said = place
        .said("search", json!({"text": "one", "path": "a/b/notes.txt"}))
        .await;
    assert!(said.ends_with("a/b/notes.txt:1: one"), "{said}");
}

#[tokio::test]
async fn writing_replaces_the_whole_file_keeps_its_mode_and_leaves_no_draft() {
    let place = Place::new();
    place.put("run.sh", "a long old content");
    let file = place.root().join("run.sh");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o750)).unwrap();
    for _ in 0..2 {
        let said = place
            .said("write", json!({"path": "run.sh", "content": "new"}))
            .await;
        assert_eq!(said, "Replaced the file run.sh: it has 3 bytes now.");
    }
    assert_eq!(place.content("run.sh"), "new");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o750
    );
    assert_eq!(names(&place.root()), ["run.sh"]);
}

#[tokio::test]
async fn a_failed_write_leaves_the_folder_as_it_was() {
    let place = Place::new();
    place.put("folder/inner.txt", "kept");
    let fault = place
        .fault("write", json!({"path": "folder", "content": "x"}))
        .await;
    assert_eq!(fault, "folder is a folder, not a file.");
    let fault = place
        .fault(
            "write",
            json!({"path": "folder/inner.txt/x", "content": "x"}),
        )
        .await;
    assert_eq!(fault, "folder/inner.txt is a file, not a folder.");
    let fault = place
        .fault("write", json!({"path": ".", "content": "x"}))
        .await;
    assert!(fault.contains("the root folder"), "{fault}");
    let large = json!({"path": "large.txt", "content": "x".repeat(1024 * 1024 + 1)});
    let outcome = place.call("write", large).await;
    assert!(outcome.is_not_executed(), "{outcome:?}");
    assert_eq!(names(&place.root()), ["folder"]);
    assert_eq!(place.content("folder/inner.txt"), "kept");
}

#[tokio::test]
async fn long_files_are_read_in_pieces_that_join() {
    let place = Place::new();
    let lines: Vec<String> = (1..=5000)
        .map(|number| format!("line number {number} é"))
        .collect();
    let text = lines.join("\n");
    place.put("long.txt", &text);
    let (mut joined, mut start) = (String::new(), 1);
    loop {
        let said = place
            .said("read", json!({"path": "long.txt", "start_line": start}))
            .await;
        assert!(said.len() < 2 * MAX_ANSWER_BYTES);
        let (piece, note) = said.rsplit_once("\n[lines ").unwrap();
        joined.push_str(piece);
        joined.push('\n');
        match note.split_once("start_line ") {
            Some((_, next)) => start = next.trim_end_matches(']').parse().unwrap(),
            None => break assert!(note.ends_with("of 5000; that is the end]"), "{note}"),
        }
    }
    assert_eq!(joined.trim_end(), text);
    let some = place
        .said(
            "read",
            json!({"path": "long.txt", "start_line": 2, "max_lines": 1}),
        )
        .await;
    assert_eq!(
        some,
        "line number 2 é\n[lines 2 to 2 of 5000; go on with start_line 3]"
    );
    let fault = place
        .fault("read", json!({"path": "long.txt", "start_line": 5001}))
        .await;
    assert_eq!(fault, "long.txt has only 5000 lines.");
}

#[tokio::test]
async fn odd_files_are_told_apart() {
    let place = Place::new();
    place.put("empty.txt", "");
    place.put("binary", [0xff, 0xfe, 0x00]);
    place.put("wide.txt", "é".repeat(MAX_ANSWER_BYTES));
    place.put("folder/x", "x");
    assert_eq!(
        place.said("read", json!({"path": "empty.txt"})).await,
        "empty.txt is empty."
    );
    assert_eq!(
        place.fault("read", json!({"path": "binary"})).await,
        "binary is not a text file."
    );
    let cut = place.said("read", json!({"path": "wide.txt"})).await;
    assert!(cut.ends_with("\n[line 1 of 1 is cut here: it is too long]"));
    let fault = place.fault("read", json!({"path": "folder"})).await;
    assert_eq!(fault, "folder is not a file.");
    let fault = place.fault("read", json!({"path": "nothing.txt"})).await;
    assert_eq!(
        fault,
        "There is no nothing.txt. The tool `list` shows what there is."
    );
    let fault = place.fault("list", json!({"path": "empty.txt"})).await;
    assert_eq!(fault, "empty.txt is a file, not a folder.");
    let pipe = std::process::Command::new("mkfifo")
        .arg(place.root().join("pipe"))
        .status();
    assert!(pipe.unwrap().success());
    let fault = place.fault("read", json!({"path": "pipe"})).await;
    assert_eq!(fault, "pipe is not a file.");
    let found = place.said("search", json!({"text": "x"})).await;
    assert!(
        found.contains("folder/x:1: x") && found.contains("skipped"),
        "{found}"
    );
}

#[tokio::test]
async fn answers_are_bounded() {
    let place = Place::new();
    for number in 0..700 {
        place.put(&format!("f{number:03}.txt"), "needle\nneedle\n");
    }
    let listed = place.said("list", json!({})).await;
    assert!(
        listed.starts_with("The root folder has 700 entries:"),
        "{listed}"
    );
    assert!(listed.ends_with("[200 more are not shown]"), "{listed}");
    let found = place.said("search", json!({"text": "needle"})).await;
    assert!(found.starts_with("100 lines contain"), "{found}");
    assert!(found.contains("there may be more"), "{found}");
    assert!(found.len() < 2 * MAX_ANSWER_BYTES);
}

#[tokio::test]
async fn a_line_is_appended_on_its_own_and_once_for_a_key() {
    let place = Place::new();
    let line = |line: &str| json!({"path": "log/a.txt", "line": line});
    assert_eq!(
        place.said("append_line", line("one")).await,
        "Appended the line to log/a.txt."
    );
    place.put("log/a.txt", "one");
    place.said("append_line", line("two")).await;
    assert_eq!(place.content("log/a.txt"), "one\ntwo\n");
    for _ in 0..3 {
        let again = place
            .sidecar
            .call_keyed("append_line", line("three"), "n/s/c9")
            .await
            .unwrap();
        assert!(again.is_success(), "{again:?}");
    }
    assert_eq!(place.content("log/a.txt"), "one\ntwo\nthree\n");
    let broken = place.call("append_line", line("a\nb")).await;
    assert!(broken.is_not_executed(), "{broken:?}");
}

#[tokio::test]
async fn an_appended_line_is_not_appended_again_after_a_restart() {
    let place = Place::new();
    let options = FilesOptions {
        root: place.root(),
        append_delay: Duration::ZERO,
    };
    for _ in 0..2 {
        let sidecar = files("files", &options)
            .unwrap()
            .without_server()
            .notices(|_| ());
        let serving = sidecar.spawn().await.unwrap();
        let mut remote = RemoteSidecar::connect(serving.endpoint()).await.unwrap();
        let args = r#"{"path":"a.txt","line":"once"}"#;
        let outcome = remote
            .call_keyed("append_line", args, "n/s/c1", |_| ())
            .await
            .unwrap();
        assert_eq!(outcome.text(), "Appended the line to a.txt.");
        serving.shutdown().await.unwrap();
    }
    assert_eq!(place.content("a.txt"), "once\n");
    let listed = place.said("list", json!({})).await;
    assert_eq!(listed, "The root folder has 1 entry:\na.txt (5 bytes)");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_append_waits_its_time() {
    let root = tempfile::tempdir().unwrap();
    let append_delay = Duration::from_secs(60);
    let options = FilesOptions {
        root: root.path().to_owned(),
        append_delay,
    };
    let sidecar = files("files", &options).unwrap();
    let started = tokio::time::Instant::now();
    let args = json!({"path": "a.txt", "line": "late"});
    assert!(
        sidecar
            .call("append_line", args)
            .await
            .unwrap()
            .is_success()
    );
    assert_eq!(started.elapsed().as_secs(), MAX_APPEND_DELAY.as_secs());
}
