//! The sources that the rules are held against.

use std::path::{Path, PathBuf};

use loopwright_tests::kit::root;

/// One source file.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    /// What it says.
    pub(crate) text: String,
}

/// Every Rust source that the repository tracks or would track.
pub(crate) fn rust() -> Vec<Source> {
    let mut found = Vec::new();
    for top in ["proto", "server", "client", "tools-sdk", "tests"] {
        walk(&root().join(top), &mut found);
    }
    assert!(
        found.len() > 50,
        "only {} sources were found: the walk is broken",
        found.len()
    );
    found
}

fn walk(dir: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(&path, found);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("a source is UTF-8");
            let path = path
                .strip_prefix(root())
                .expect("below the root")
                .to_owned();
            found.push(Source {
                path: path.to_string_lossy().replace('\\', "/"),
                text,
            });
        }
    }
}
