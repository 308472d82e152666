//! The words of every error, by source.

use super::*;

/// The problems of a load, one a line, with the folder cut off.
pub(super) fn problems(sources: &Sources) -> Vec<String> {
    let dir = format!("{}/", sources.cwd.display());
    match load(sources) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .0
            .iter()
            .map(|e| e.to_string().replace(&dir, ""))
            .collect(),
    }
}

fn by_toml(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    problems(&with_file(dir.path(), "c.toml", text))
}

fn by_env(entries: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path());
    sources.env.extend(map(entries));
    problems(&sources)
}

pub(super) fn by_flag(entries: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path());
    sources.flags = map(entries);
    problems(&sources)
}

#[test]
fn token_counts_that_are_no_plain_numbers_never_open_the_gate() {
    let expected = "expected a whole number in plain digits, 0 or more, or none";
    for value in [
        "10k",
        "1e6",
        "-5",
        "18446744073709551616",
        "",
        " 5",
        "+5",
        "1_000",
        "NaN",
        "0x10",
    ] {
        assert_eq!(
            by_env(&[("LOOPWRIGHT_BUDGET__MAX_TOTAL_TOKENS", value)]),
            [format!(
                "LOOPWRIGHT_BUDGET__MAX_TOTAL_TOKENS: budget.max_total_tokens = {value:?}: \
                 {expected}"
            )]
        );
        assert_eq!(
            by_flag(&[("budget.max_total_tokens", value)]),
            [format!(
                "command line: budget.max_total_tokens = {value:?}: {expected}"
            )]
        );
    }
    for (written, shown) in [
        ("\"10k\"", "\"10k\""),
        ("1e6", "1000000.0"),
        ("-5", "-5"),
        ("nan", "NaN"),
        ("true", "true"),
        ("[1]", "a list"),
    ] {
        assert_eq!(
            by_toml(&format!("[budget]\nmax_total_tokens = {written}\n")),
            [format!(
                "c.toml:2: budget.max_total_tokens = {shown}: {expected}"
            )]
        );
    }
    assert_eq!(
        by_toml("[budget]\nmax_total_tokens = 99999999999999999999\n"),
        ["c.toml: line 2, max_total_tokens: not valid TOML: the number is too large for any key"]
    );
}

#[test]
fn numbers_times_and_sizes_say_what_they_take() {
    for (key, value, expected) in [
        (
            "loop.max_steps",
            "0",
            "a whole number in plain digits, 1 to 1000000",
        ),
        (
            "loop.deadline",
            "120",
            "a time with its unit (such as 50ms, 120s, 10m, 2h), 1ms to 8760h, or none",
        ),
        (
            "tools.timeout",
            "none",
            "a time with its unit (such as 50ms, 120s, 10m, 2h), 1ms to 24h",
        ),
        (
            "limits.session_bytes",
            "64MB",
            "bytes, plain or with KiB, MiB or GiB (such as 64MiB), 1MiB to 1TiB",
        ),
        (
            "session_log.sync",
            "sometimes",
            "one of always, none, 1ms to 10s",
        ),
        ("session_log.sync", "11s", "one of always, none, 1ms to 10s"),
        (
            "models.fast.price.input",
            "-1",
            "US dollars per million tokens, 0 to 1000000, or none",
        ),
        (
            "models.fast.price.input",
            "NaN",
            "US dollars per million tokens, 0 to 1000000, or none",
        ),
    ] {
        let message = format!("command line: {key} = {value:?}: expected {expected}");
        assert_eq!(by_flag(&[(key, value)]), [message]);
    }
}

#[test]
fn words_and_addresses_say_what_they_take() {
    for (key, value, expected) in [
        ("prompt_cache.enabled", "yes", "true or false"),
        ("prompt_cache.ttl", "6m", "one of 5m, 1h"),
        (
            "server.listen",
            "localhost:7070",
            "IP:PORT such as 127.0.0.1:7070, [::1]:7070 or 0.0.0.0:7070",
        ),
        (
            "server.cors_origins",
            "example.org",
            r#"a list such as ["https://example.org"], or ["*"], in a variable or flag a,b"#,
        ),
        (
            "telemetry.log_level",
            "loud",
            "a level (error, warn, info, debug, trace, off) or directives such as \
             info,loopwright_server=debug",
        ),
        (
            "telemetry.otlp_endpoint",
            "127.0.0.1:4317",
            "a URL such as http://127.0.0.1:4317, without user or password, or none",
        ),
    ] {
        let message = format!("command line: {key} = {value:?}: expected {expected}");
        assert_eq!(by_flag(&[(key, value)]), [message]);
    }
}

#[test]
fn names_that_are_no_keys_are_refused_with_the_nearest() {
    let table = [
        (
            "[loop]\nmax_stpes = 1\n",
            "c.toml:2: loop.max_stpes is not a key; did you mean loop.max_steps?",
        ),
        (
            "[lop]\nmax_steps = 1\n",
            "c.toml:1: lop is not a key; did you mean loop?",
        ),
        (
            "loop.max_stpes = 1\n",
            "c.toml:1: loop.max_stpes is not a key; did you mean loop.max_steps?",
        ),
        (
            "[loop]\nturbo_encabulator = 1\n",
            "c.toml:2: loop.turbo_encabulator is not a key; `loopwright config show` lists the \
             keys",
        ),
        (
            "max_steps = 1\n",
            "c.toml:1: max_steps is not a key; did you mean loop.max_steps?",
        ),
        (
            "loop = 5\n",
            "c.toml:1: loop: is a section; it takes keys, not a value",
        ),
        (
            "[models.fast]\napi_key = \"hunter2\"\n",
            "c.toml:2: models.fast.api_key is not a key; did you mean models.fast.api_key_env?",
        ),
        (
            "[models.Fast]\nid = \"m\"\n",
            "c.toml:1: models.Fast is not a key; did you mean models.fast?",
        ),
    ];
    for (text, message) in table {
        assert_eq!(by_toml(text), [message]);
    }
    assert_eq!(
        by_env(&[("LOOPWRIGHT_LOOP__MAX_STEP", "1")]),
        ["LOOPWRIGHT_LOOP__MAX_STEP is not a key; did you mean LOOPWRIGHT_LOOP__MAX_STEPS?"]
            .map(|m| format!("LOOPWRIGHT_LOOP__MAX_STEP: {m}"))
    );
    assert_eq!(
        by_flag(&[("loop.max_step", "1")]),
        ["command line: loop.max_step is not a key; did you mean loop.max_steps?"]
    );
}

#[test]
fn variables_without_two_underscores_matter_only_when_they_are_a_folded_key() {
    assert_eq!(
        by_env(&[
            ("LOOPWRIGHT_SERVICE_HOST", "10.0.0.1"),
            ("LOOPWRIGHT_SERVER_SERVICE_PORT", "7070"),
            ("LOOPWRIGHT_PORT_7070_TCP_ADDR", "10.0.0.1"),
            ("LOOPWRIGHT_RIG", "full"),
            ("OTHER__THING", "1"),
        ]),
        [""; 0]
    );
    for (name, right) in [
        ("LOOPWRIGHT_LOOP_MAX_STEPS", "LOOPWRIGHT_LOOP__MAX_STEPS"),
        ("LOOPWRIGHT_SERVER_LISTEN", "LOOPWRIGHT_SERVER__LISTEN"),
        ("LOOPWRIGHT_SERVERLISTEN", "LOOPWRIGHT_SERVER__LISTEN"),
        (
            "LOOPWRIGHT_MODELS_FAST_BASE_URL",
            "LOOPWRIGHT_MODELS__FAST__BASE_URL",
        ),
        ("LOOPWRIGHT_server__listen", "LOOPWRIGHT_SERVER__LISTEN"),
    ] {
        assert_eq!(
            by_env(&[(name, "1")]),
            [format!(
                "{name}: {name} is not a key; did you mean {right}?"
            )]
        );
    }
}

#[test]
fn what_may_be_a_secret_is_never_quoted() {
    let name = "expected the name of an environment variable that holds the key; the key itself \
     does \
                not belong in configuration, or none";
    assert_eq!(
        by_toml("[models.fast]\napi_key_env = \"hunter2-key\"\n"),
        [format!(
            "c.toml:2: models.fast.api_key_env = (not shown): {name}"
        )]
    );
    for text in [
        "[models.fast]\nbase_url = \"https://ada:hunter2@h/v1\"\n",
        "[models.fast.headers]\nx-team = \"hunter2\\u0007\"\n",
        "[models.fast]\nprovider = \"openai\"\nid = \"m\"\n[models.fast.headers]\nauthorization \
         = \"hunter2\"\n",
        "[models.fast]\napi_key_env = \"hunter2\n",
        "[models.fast]\napi_key = hunter2\n",
        "[server.auth]\ntoken = \"hunter2\"\n",
        "[models.fast.headers]\nx-a = 1979-05-27\nx-b = \"hunter2\"\n",
    ] {
        let all = by_toml(text).join("\n");
        assert!(!all.is_empty() && !all.contains("hunter2"), "{text}: {all}");
    }
    let yaml = tempfile::tempdir().unwrap();
    for text in [
        "models:\n  fast:\n    api_key_env: \"hunter2\n",
        "models: {a: hunter2, a: hunter2}\n",
        "hunter2\n",
    ] {
        let all = problems(&with_file(yaml.path(), "c.yaml", text)).join("\n");
        assert!(!all.is_empty() && !all.contains("hunter2"), "{text}: {all}");
    }
}

#[test]
fn all_problems_of_all_sources_come_at_once_even_where_a_higher_one_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = with_file(
        dir.path(),
        "c.toml",
        "[loop]\nmax_steps = \"x\"\nmax_stpes = 1\n",
    );
    sources
        .env
        .extend(map(&[("LOOPWRIGHT_LOOP__DEADLINE", "soon")]));
    sources.flags = map(&[("loop.max_steps", "5"), ("a.b", "c")]);
    assert_eq!(problems(&sources).len(), 4, "{:?}", problems(&sources));
    let text = load(&sources).unwrap_err().to_string();
    assert!(
        text.starts_with("the configuration cannot be used, 4 problems:\n  "),
        "{text}"
    );
}

#[test]
fn without_a_home_folder_the_message_names_the_variable_to_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path());
    sources.env.clear();
    assert_eq!(
        problems(&sources),
        [
            "default: session_log.dir: ~/.local/share/loopwright starts at the home folder, and \
             HOME is not \
          set; set HOME, or LOOPWRIGHT_SESSION_LOG__DIR to a full path"
        ]
    );
    sources.flags = map(&[("session_log.dir", "/srv")]);
    assert_eq!(problems(&sources), [""; 0]);
}
