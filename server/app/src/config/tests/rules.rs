//! Rules between keys: the guarded bind, ceilings, and settings that would do nothing.

use super::errors::by_flag;

const OPENAI: [(&str, &str); 2] = [("models.fast.provider", "openai"), ("models.fast.id", "m")];
const SCRIPTED: [(&str, &str); 2] = [
    ("models.fast.provider", "scripted"),
    ("models.fast.script", "/s.yaml"),
];

#[track_caller]
fn assert_refused(before: &[(&str, &str)], key: &str, value: &str, problem: &str) {
    let all: Vec<(&str, &str)> = before.iter().copied().chain([(key, value)]).collect();
    assert_eq!(by_flag(&all), [format!("command line: {key}: {problem}")]);
}

#[test]
fn a_bind_beyond_loopback_needs_a_guard_or_a_word() {
    for listen in [
        "0.0.0.0:7070",
        "[::]:7070",
        "192.168.1.5:7070",
        "[::ffff:10.0.0.1]:7070",
    ] {
        let problem = format!(
            "{listen} is reachable from other machines; set server.auth.token_file to say who \
             may call, \
             or server.auth.insecure = true to let everybody, or listen on 127.0.0.1"
        );
        assert_refused(&[], "server.listen", listen, &problem);
        for (key, value) in [
            ("server.auth.token_file", "/srv/tokens"),
            ("server.auth.insecure", "true"),
        ] {
            assert_eq!(by_flag(&[("server.listen", listen), (key, value)]), [""; 0]);
        }
    }
    for listen in [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        assert_eq!(by_flag(&[("server.listen", listen)]), [""; 0]);
    }
    assert_refused(
        &[("server.auth.token_file", "/t")],
        "server.auth.insecure",
        "true",
        "does nothing beside server.auth.token_file; leave one of them out",
    );
}

#[test]
fn a_default_above_its_limit_names_both_keys() {
    for (key, value, problem) in [
        (
            "loop.max_steps",
            "10001",
            "10001 is more than limits.max_steps, which is 10000",
        ),
        (
            "loop.max_parallel_tool_calls",
            "65",
            "65 is more than limits.max_parallel_tool_calls, which is 64",
        ),
        (
            "tools.timeout",
            "1h",
            "1h is more than tools.absolute_cap, which is 30m",
        ),
        (
            "retry.base_delay",
            "2m",
            "2m is more than retry.max_delay, which is 1m",
        ),
    ] {
        assert_refused(&[], key, value, problem);
    }
    let limit = [
        ("limits.max_output_tokens", "100"),
        ("limits.max_parallel_tool_calls", "2"),
    ];
    assert_eq!(
        by_flag(&limit),
        [
            "default: loop.max_output_tokens: 4096 is more than limits.max_output_tokens, which \
             is 100",
            "default: loop.max_parallel_tool_calls: 8 is more than \
             limits.max_parallel_tool_calls, \
             which is 2",
        ]
    );
    assert_eq!(
        by_flag(&[("loop.max_steps", "10001"), ("limits.max_steps", "none")]),
        [""; 0]
    );
}

#[test]
fn a_default_answer_needs_a_time_at_which_it_is_given() {
    assert_refused(
        &[],
        "tools.approval_default",
        "allow",
        "does nothing without tools.approval_timeout, since a call then waits without end; set how \
         long it waits",
    );
    let both = [
        ("tools.approval_default", "allow"),
        ("tools.approval_timeout", "1h"),
    ];
    assert_eq!(by_flag(&both), [""; 0]);
    assert_eq!(by_flag(&[("tools.approval_default", "deny")]), [""; 0]);
}

#[test]
fn a_model_setting_that_would_do_nothing_is_refused() {
    assert_refused(
        &OPENAI,
        "models.fast.script",
        "/s",
        "does nothing unless provider = \"scripted\"",
    );
    assert_refused(
        &SCRIPTED,
        "models.fast.base_url",
        "http://h",
        "does nothing for a scripted model",
    );
    assert_refused(
        &OPENAI,
        "models.fast.headers.x-api-key",
        "k",
        "is a header that the server sets; a key goes into the variable or file that api_key_env \
         or \
         api_key_file names",
    );
    let both = [OPENAI[0], OPENAI[1], ("models.fast.api_key_file", "/k")];
    assert_refused(
        &both,
        "models.fast.api_key_env",
        "K",
        "does nothing beside api_key_file; leave one of them out",
    );
    assert_refused(
        &OPENAI,
        "loop.model",
        "fsat",
        "\"fsat\" is neither an alias of models (did you mean fast?) nor provider/id such as \
         anthropic/claude-sonnet-5-5",
    );
}

#[test]
fn a_model_that_is_not_complete_says_what_is_missing() {
    for (key, value, problem) in [
        (
            "id",
            "m",
            "provider: is missing; it is one of anthropic, openai, scripted",
        ),
        (
            "provider",
            "anthropic",
            "id: is missing; it is the model's name at anthropic",
        ),
        (
            "provider",
            "scripted",
            "script: is missing; a scripted model takes its turns from that YAML or JSON file",
        ),
    ] {
        let key = format!("models.fast.{key}");
        assert_eq!(
            by_flag(&[(&key, value)]),
            [format!("default: models.fast.{problem}")]
        );
    }
}
