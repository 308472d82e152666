//! Tests of configuration as a whole: every key by every source, every error text, the file search.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

mod errors;
mod files;
mod resolving;
mod rules;
mod token_file;
mod walk;

/// Sources with a home and a working directory in `dir`, and nothing else.
fn sources(dir: &Path) -> Sources {
    Sources {
        config_path: None,
        env: map(&[("HOME", "/home/ada")]),
        cwd: dir.to_path_buf(),
        flags: BTreeMap::new(),
    }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn with_file(dir: &Path, name: &str, text: &str) -> Sources {
    std::fs::write(dir.join(name), text).unwrap();
    let mut sources = sources(dir);
    sources.config_path = Some(name.into());
    sources
}

#[test]
fn nothing_set_is_the_defaults_with_the_data_folder_of_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = load(&sources(dir.path())).unwrap();
    let mut expected = Config::default();
    expected.session_log.dir = "/home/ada/.local/share/loopwright".into();
    assert_eq!(
        loaded,
        Loaded {
            config: expected,
            provenance: Provenance::new(),
            file: None
        }
    );
}

#[test]
fn the_data_folder_follows_xdg_only_while_nobody_names_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path());
    sources
        .env
        .insert("XDG_DATA_HOME".into(), "/srv/data".into());
    assert_eq!(
        load(&sources).unwrap().config.session_log.dir,
        Path::new("/srv/data/loopwright")
    );
    sources.flags = map(&[("session_log.dir", "logs")]);
    assert_eq!(
        load(&sources).unwrap().config.session_log.dir,
        dir.path().join("logs")
    );
    sources.flags = map(&[("session_log.dir", "~/logs")]);
    assert_eq!(
        load(&sources).unwrap().config.session_log.dir,
        Path::new("/home/ada/logs")
    );
}

#[test]
fn later_sources_win_key_by_key_and_maps_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[loop]\nmax_steps = 10\nmax_output_tokens = 11\nmax_output_retries = 12\n\
                [models.fast]\nprovider = \"openai\"\nid = \"from-file\"\n";
    let mut sources = with_file(dir.path(), "c.toml", file);
    sources
        .env
        .insert("LOOPWRIGHT_LOOP__MAX_OUTPUT_TOKENS".into(), "21".into());
    sources
        .env
        .insert("LOOPWRIGHT_LOOP__MAX_OUTPUT_RETRIES".into(), "22".into());
    sources
        .env
        .insert("LOOPWRIGHT_MODELS__FAST__ID".into(), "from-env".into());
    sources.flags = map(&[("loop.max_output_retries", "32")]);
    let loaded = load(&sources).unwrap();
    let loops = &loaded.config.loops;
    assert_eq!(
        (
            loops.max_steps,
            loops.max_output_tokens,
            loops.max_output_retries
        ),
        (10, 21, 32)
    );
    let fast = &loaded.config.models["fast"];
    assert_eq!(
        (fast.provider, fast.id.as_deref()),
        (Some(Provider::OpenAi), Some("from-env"))
    );
}

#[test]
fn none_takes_a_limit_away_that_a_lower_source_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = with_file(dir.path(), "c.toml", "[budget]\nmax_total_tokens = 1000\n");
    assert_eq!(
        load(&sources).unwrap().config.budget.max_total_tokens,
        Some(1000)
    );
    sources
        .env
        .insert("LOOPWRIGHT_BUDGET__MAX_TOTAL_TOKENS".into(), "none".into());
    assert_eq!(load(&sources).unwrap().config.budget.max_total_tokens, None);
}

#[test]
fn the_largest_token_count_and_zero_are_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("0", 0),
        ("18446744073709551615", u64::MAX),
        ("5000000000", 5_000_000_000),
    ] {
        let mut sources = sources(dir.path());
        sources.flags = map(&[("budget.max_total_tokens", text)]);
        assert_eq!(
            load(&sources).unwrap().config.budget.max_total_tokens,
            Some(expected)
        );
    }
}

#[test]
fn the_commented_file_sets_nothing_and_shows_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let plain = load(&sources(dir.path())).unwrap();
    let text = init_text();
    let read = load(&with_file(dir.path(), "a.toml", &text)).unwrap();
    assert_eq!((&read.config, read.provenance.len()), (&plain.config, 0));

    // Without its `#`, each line must load, and be the default; the entry in models is an example.
    let bare = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let text: Vec<String> = text.lines().map(bare).collect();
    let mut read = load(&with_file(dir.path(), "b.toml", &text.join("\n"))).unwrap();
    assert_eq!(read.provenance.len(), schema().len());
    assert_eq!(read.config.models.keys().collect::<Vec<_>>(), ["fast"]);
    read.config.models.clear();
    assert_eq!(read.config, plain.config);
}

#[test]
fn show_names_each_value_and_its_source_and_hides_headers() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[models.fast]\nprovider = \"openai\"\nid = \
     \"m\"\n\n[models.fast.headers]\nx-team = \"s3cret\"\n";
    let mut sources = with_file(dir.path(), "c.toml", file);
    sources
        .env
        .insert("LOOPWRIGHT_LOOP__DEADLINE".into(), "10m".into());
    sources.flags = map(&[("loop.max_steps", "9")]);
    let text = show(&load(&sources).unwrap());
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let path = dir.path().join("c.toml");
    for expected in [
        format!("# file: {}", path.display()),
        "loop.max_steps = 9 # command line".to_owned(),
        "loop.deadline = \"10m\" # LOOPWRIGHT_LOOP__DEADLINE".to_owned(),
        "loop.max_output_tokens = 4096 # default".to_owned(),
        "budget.max_total_tokens = none # default".to_owned(),
        format!("models.fast.id = \"m\" # {}:3", path.display()),
        format!(
            "models.fast.headers.x-team = (not shown) # {}:6",
            path.display()
        ),
    ] {
        assert!(lines.contains(&expected), "{expected} is not in\n{text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn every_key_has_two_levels_a_description_and_a_row_in_the_table() {
    let table = markdown();
    for key in schema() {
        assert!(key.segments().count() >= 2, "{}", key.path);
        assert!(key.doc.len() > 5, "{} has no description", key.path);
        assert!(
            table.contains(&format!("| `{}` | {}", key.path, key.default)),
            "{}",
            key.path
        );
    }
    assert_eq!(table.lines().count(), schema().len() + 2);
}

#[test]
fn every_default_is_within_its_own_range() {
    let dir = tempfile::tempdir().unwrap();
    for key in schema()
        .iter()
        .filter(|key| !key.path.starts_with("models."))
    {
        let mut sources = sources(dir.path());
        let default = key.default.trim_matches(['[', ']']);
        sources.flags = map(&[(&key.path, default)]);
        let loaded = load(&sources).unwrap_or_else(|e| panic!("{}: {e}", key.path));
        assert_eq!(loaded.provenance.get(&key.path), Some(&Source::Flag));
    }
}

#[test]
fn set_arguments_are_split_at_the_first_equals_sign() {
    assert_eq!(parse_set("a.b=c=d"), Ok(("a.b".into(), "c=d".into())));
    assert_eq!(parse_set("a.b="), Ok(("a.b".into(), String::new())));
    assert!(parse_set("a.b").unwrap_err().contains("KEY=VALUE"));
    assert!(parse_set("=x").is_err());
}

#[test]
fn a_header_is_one_header_however_its_name_is_spelled() {
    let dir = tempfile::tempdir().unwrap();
    let file =
        "[models.fast]\nprovider = \"openai\"\nid = \"m\"\nheaders = { X-Team = \"file\" }\n";
    let mut sources = with_file(dir.path(), "c.toml", file);
    sources.env.insert(
        "LOOPWRIGHT_MODELS__FAST__HEADERS__X_TEAM".into(),
        "env".into(),
    );
    let headers = load(&sources).unwrap().config.models["fast"]
        .headers
        .clone();
    assert_eq!(headers, map(&[("x-team", "env")]));
}

#[test]
fn a_variable_of_ours_that_is_not_text_is_an_error_and_a_foreign_one_is_not() {
    use std::os::unix::ffi::OsStringExt;
    let variable = |name: &str| (OsString::from(name), OsString::from_vec(vec![0xff]));
    assert_eq!(
        readable([variable("OTHER")].into_iter()).unwrap(),
        BTreeMap::new()
    );
    let error = readable([variable("LOOPWRIGHT_LOOP__MODEL")].into_iter()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "LOOPWRIGHT_LOOP__MODEL is not UTF-8; set it anew"
    );
}
