//! No path leads out of the root, and the files outside stay as they are.

use std::os::unix::fs::symlink;

use super::*;

const SECRET: &str = "precious";

/// A place with a secret outside, and links to it from within.
fn tempting() -> Place {
    let place = Place::new();
    let outside = place.outside.path();
    std::fs::write(outside.join("secret.txt"), SECRET).unwrap();
    std::fs::create_dir(outside.join("folder")).unwrap();
    std::fs::write(outside.join("folder/secret.txt"), SECRET).unwrap();
    place.put("real/inside.txt", "inside");
    symlink(outside.join("secret.txt"), place.root().join("link.txt")).unwrap();
    symlink("../secret.txt", place.root().join("relative.txt")).unwrap();
    symlink(outside.join("folder"), place.root().join("door")).unwrap();
    symlink("../..", place.root().join("real/up")).unwrap();
    symlink(
        outside.join("not-yet.txt"),
        place.root().join("dangling.txt"),
    )
    .unwrap();
    symlink("loop", place.root().join("loop")).unwrap();
    place
}

fn hostile() -> Vec<String> {
    let long_name = "n".repeat(256);
    let paths = [
        "..",
        "../secret.txt",
        "real/../../secret.txt",
        "real/../real/inside.txt/../../../secret.txt",
        "./.././secret.txt",
        "/etc/passwd",
        "//etc/passwd",
        "/",
        "link.txt",
        "relative.txt",
        "door/secret.txt",
        "door/../secret.txt",
        "real/up/secret.txt",
        "real/up/root/real/inside.txt",
        "dangling.txt",
        "loop",
        "loop/x",
        "a\0b",
        "real/inside.txt\0/../../secret.txt",
        "line\nbreak",
        ".loopwright-keys.jsonl",
        "real/.loopwright-x/../y",
        ".loopwright-folder/x",
        "",
        ".",
        "./",
        long_name.as_str(),
    ];
    let mut paths: Vec<String> = paths.map(str::to_owned).to_vec();
    paths.push("a/".repeat(33));
    paths.push("a/b".repeat(400));
    paths.push("../".repeat(20) + "etc/passwd");
    paths
}

#[tokio::test]
async fn no_hostile_path_reads_or_writes_anything() {
    let place = tempting();
    let before = names(&place.root());
    for path in hostile() {
        for (tool, args) in [
            ("read", json!({"path": path})),
            ("write", json!({"path": path, "content": "overwritten"})),
            ("append_line", json!({"path": path, "line": "appended"})),
        ] {
            let outcome = place.call(tool, args).await;
            assert!(!outcome.is_success(), "{tool} {path:?}: {outcome:?}");
            assert!(
                !outcome.text().contains(SECRET),
                "{tool} {path:?}: {outcome:?}"
            );
            assert!(
                outcome.text().len() < 2000,
                "{tool}: {} bytes",
                outcome.text().len()
            );
        }
    }
    let outside = place.outside.path();
    assert_eq!(names(outside), ["folder", "root", "secret.txt"]);
    assert_eq!(names(&outside.join("folder")), ["secret.txt"]);
    for secret in ["secret.txt", "folder/secret.txt"] {
        assert_eq!(
            std::fs::read_to_string(outside.join(secret)).unwrap(),
            SECRET
        );
    }
    assert_eq!(place.content("real/inside.txt"), "inside");
    assert_eq!(names(&place.root()), before);
}

#[tokio::test]
async fn listing_and_searching_stay_inside_too() {
    let place = tempting();
    for path in ["..", "/", "door", "real/up", "real/../..", "loop", "a\0b"] {
        for (tool, args) in [
            ("list", json!({"path": path})),
            ("search", json!({"path": path, "text": SECRET})),
        ] {
            let outcome = place.call(tool, args).await;
            assert!(!outcome.is_success(), "{tool} {path:?}: {outcome:?}");
        }
    }
    let found = place.said("search", json!({"text": SECRET})).await;
    assert!(found.starts_with("No line contains"), "{found}");
    let listed = place.said("list", json!({})).await;
    assert!(
        listed.contains("door (symbolic link, not followed)"),
        "{listed}"
    );
}

#[tokio::test]
async fn the_root_stays_the_folder_that_it_was_when_its_name_is_taken_over() {
    let place = tempting();
    let outside = place.outside.path();
    std::fs::rename(place.root(), outside.join("moved")).unwrap();
    symlink(outside.join("folder"), place.root()).unwrap();
    let fault = place.fault("read", json!({"path": "secret.txt"})).await;
    assert!(fault.starts_with("There is no secret.txt"), "{fault}");
    place
        .said("write", json!({"path": "new.txt", "content": "new"}))
        .await;
    assert!(outside.join("moved/new.txt").exists());
    assert_eq!(names(&outside.join("folder")), ["secret.txt"]);
}

#[test]
fn a_root_that_is_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for root in [file, dir.path().join("nothing")] {
        let options = FilesOptions {
            root,
            append_delay: Duration::ZERO,
        };
        assert!(super::files("files", &options).is_err());
    }
}
