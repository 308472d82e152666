//! Who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};
use loopwright_tests::kit::root;

use super::sources;

/// What each crate may know of the others; dev-dependencies are free.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("loopwright-proto", &[]),
    ("loopwright-core", &[]),
    ("loopwright-log", &[]),
    ("loopwright-client", &["loopwright-proto"]),
    ("loopwright-tools", &["loopwright-proto"]),
    ("loopwright-sidecars", &["loopwright-tools"]),
    (
        "loopwright-server",
        &[
            "loopwright-proto",
            "loopwright-core",
            "loopwright-log",
            "loopwright-client",
            "loopwright-tools",
            "loopwright-sidecars",
        ],
    ),
    (
        "loopwright-tests",
        &[
            "loopwright-proto",
            "loopwright-core",
            "loopwright-log",
            "loopwright-client",
            "loopwright-tools",
        ],
    ),
];

fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = root().join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec();
    let metadata = metadata.expect("cargo describes the workspace");
    metadata
        .packages
        .iter()
        .map(|package| {
            let normal = |d: &&cargo_metadata::Dependency| d.kind == DependencyKind::Normal;
            let names = package
                .dependencies
                .iter()
                .filter(normal)
                .map(|d| d.name.clone());
            (package.name.to_string(), names.collect())
        })
        .collect()
}

#[test]
fn crates_know_only_what_they_may() {
    let all = normal_dependencies();
    let allowed: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    for (name, dependencies) in &all {
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is not in the rules"));
        for dependency in dependencies.iter().filter(|d| d.starts_with("loopwright-")) {
            assert!(
                may.contains(&dependency.as_str()),
                "{name} may not depend on {dependency}"
            );
        }
    }
    assert_eq!(all.len(), MAY_KNOW.len(), "a crate of the rules is gone");
}

#[test]
fn the_core_depends_on_three_crates() {
    let core = &normal_dependencies()["loopwright-core"];
    let names: Vec<_> = core.iter().map(String::as_str).collect();
    assert_eq!(names, ["serde", "serde_json", "thiserror"]);
}

#[test]
fn only_the_server_knows_the_network_on_the_server_side() {
    let all = normal_dependencies();
    for name in ["loopwright-core", "loopwright-log"] {
        for outside in ["tonic", "reqwest", "figment", "axum", "prost"] {
            assert!(
                !all[name].contains(outside),
                "{name} may not depend on {outside}"
            );
        }
    }
}

/// Sources of the server in which neither tests nor benches are.
fn server_sources() -> impl Iterator<Item = sources::Source> {
    sources::rust().into_iter().filter(|source| {
        source.path.starts_with("server/app/src/") && !source.path.contains("tests")
    })
}

/// Where the wire is turned into what the core knows: towards clients, whole logs and
/// budgets among them, and towards sidecars.
const EDGES: [&str; 5] = [
    "server/app/src/service/convert",
    "server/app/src/service/session_log",
    "server/app/src/service/budgets",
    "server/app/src/effects/tool",
    "server/app/src/sidecars/",
];

#[test]
fn proto_meets_core_at_the_edges_alone() {
    for source in server_sources() {
        let both =
            source.text.contains("loopwright_proto") && source.text.contains("loopwright_core");
        let at_edge = EDGES.iter().any(|edge| source.path.starts_with(edge));
        assert!(
            !both || at_edge,
            "{} knows proto and core; only {EDGES:?} may",
            source.path
        );
    }
}

#[test]
fn statuses_are_built_in_one_place() {
    let built = [
        "Status::new(",
        "Status::with_",
        "Status::invalid_argument(",
        "Status::internal(",
    ];
    for source in server_sources() {
        let here = source.path.starts_with("server/app/src/service/status");
        for call in built {
            let found = source.text.contains(call);
            assert!(
                !found || here,
                "{} builds a status with {call}",
                source.path
            );
        }
    }
}

#[test]
fn readers_know_nothing_of_drivers() {
    for source in server_sources().filter(|s| s.path.starts_with("server/app/src/service/watch")) {
        assert!(
            !source.text.contains("driver"),
            "{} speaks of drivers",
            source.path
        );
    }
}
