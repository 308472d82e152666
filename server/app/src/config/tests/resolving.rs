//! Which model a name means, and which key goes where.

use super::*;
use crate::config::models::{ModelError, resolve};

fn config(entries: &[(&str, &str)]) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path());
    sources.flags = map(entries);
    load(&sources).unwrap().config
}

#[test]
fn without_any_model_the_answer_names_every_way_out() {
    let text = resolve(&config(&[]), &map(&[("OPENAI_API_KEY", " ")]), None)
        .unwrap_err()
        .to_string();
    for way in [
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "models.<alias>",
        "loop.model",
        "loopwright demo",
    ] {
        assert!(text.contains(way), "{text}");
    }
}

#[test]
fn a_key_in_the_environment_registers_its_provider() {
    let anthropic = map(&[("ANTHROPIC_API_KEY", "a-key"), ("OPENAI_API_KEY", "o-key")]);
    let model = resolve(&config(&[]), &anthropic, None).unwrap();
    assert_eq!(
        (model.provider, model.id.as_str()),
        (Provider::Anthropic, "claude-sonnet-5-5")
    );
    assert_eq!(
        (model.api_key.unwrap().expose(), model.base_url.as_str()),
        ("a-key", "https://api.anthropic.com")
    );

    let openai = map(&[("OPENAI_API_KEY", "o-key\n")]);
    let model = resolve(&config(&[]), &openai, None).unwrap();
    assert_eq!(
        (model.provider, model.id.as_str()),
        (Provider::OpenAi, "gpt-5.5")
    );
    let model = resolve(&config(&[]), &openai, Some("openai/org/some-model")).unwrap();
    assert_eq!(model.id, "org/some-model");
    assert_eq!(model.api_key.unwrap().expose(), "o-key");
}

#[test]
fn the_configured_default_goes_before_the_environments() {
    let config = config(&[("loop.model", "openai/m")]);
    let env = map(&[("ANTHROPIC_API_KEY", "a"), ("OPENAI_API_KEY", "o")]);
    assert_eq!(resolve(&config, &env, None).unwrap().alias, "openai/m");
    assert_eq!(
        resolve(&config, &env, Some("anthropic/x")).unwrap().alias,
        "anthropic/x"
    );
}

#[test]
fn an_unnamed_key_never_goes_to_an_endpoint_of_the_configuration() {
    let env = map(&[("OPENAI_API_KEY", "o"), ("OTHER", "x")]);
    let mut entries = vec![
        ("models.near.provider", "openai"),
        ("models.near.id", "m"),
        ("models.near.base_url", "http://127.0.0.1:1/v1/"),
    ];
    let model = resolve(&config(&entries), &env, Some("near")).unwrap();
    assert_eq!(
        (model.api_key, model.base_url.as_str()),
        (None, "http://127.0.0.1:1/v1")
    );
    entries.push(("models.near.api_key_env", "OTHER"));
    let model = resolve(&config(&entries), &env, Some("near")).unwrap();
    assert_eq!(model.api_key.unwrap().expose(), "x");
}

#[test]
fn a_missing_key_is_named_by_variable_or_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let path = file.display().to_string();
    let by_file = config(&[
        ("models.a.provider", "anthropic"),
        ("models.a.id", "m"),
        ("models.a.api_key_file", &path),
    ]);
    let failed = |text: &str| {
        std::fs::write(&file, text).unwrap();
        resolve(&by_file, &BTreeMap::new(), Some("a"))
            .unwrap_err()
            .to_string()
    };
    let head =
        format!("model \"a\" needs an API key, and models.a.api_key_file names {path}, which");
    assert_eq!(failed(" \n"), format!("{head} is empty"));
    assert_eq!(
        failed("one\ntwo\n"),
        format!("{head} holds more than one line")
    );
    std::fs::write(&file, "k-1\n").unwrap();
    let model = resolve(&by_file, &BTreeMap::new(), Some("a")).unwrap();
    assert_eq!(model.api_key.as_ref().unwrap().expose(), "k-1");
    assert!(!format!("{model:?}").contains("k-1"));

    let error = resolve(&config(&[]), &BTreeMap::new(), Some("openai/m")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model \"openai/m\" needs an API key, and OPENAI_API_KEY is not set: set it, or describe \
         the model \
         as models.<alias> with a key of its own"
    );
}

#[test]
fn an_unknown_name_lists_what_is_there() {
    let config = config(&[
        ("models.fast.provider", "scripted"),
        ("models.fast.script", "/s.yaml"),
    ]);
    let error = resolve(&config, &BTreeMap::new(), Some("fsat")).unwrap_err();
    assert!(matches!(error, ModelError::Unknown { .. }));
    assert_eq!(
        error.to_string(),
        "there is no model \"fsat\" (did you mean \"fast\"?): name an alias of models (fast), or \
         provider/id such as anthropic/claude-sonnet-5-5"
    );
    // The scripted provider is there by alias only: a name alone must never pick a fake model.
    assert!(resolve(&config, &BTreeMap::new(), Some("scripted/x")).is_err());
    let model = resolve(&config, &BTreeMap::new(), Some("fast")).unwrap();
    assert_eq!(
        (model.provider, model.script.as_deref()),
        (Provider::Scripted, Some(Path::new("/s.yaml")))
    );
}

#[test]
fn check_finds_missing_keys_scripts_and_token_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path());
    sources.flags = map(&[
        ("models.a.provider", "scripted"),
        ("models.a.script", "turns.yaml"),
        ("models.b.provider", "anthropic"),
        ("models.b.id", "m"),
        ("loop.model", "openai/m"),
        ("server.auth.token_file", "tokens"),
    ]);
    let loaded = load(&sources).unwrap();
    assert_eq!(check(&loaded, &sources.env).unwrap_err().len(), 4);
    assert_eq!(
        check(
            &load(&Sources {
                flags: BTreeMap::new(),
                ..sources.clone()
            })
            .unwrap(),
            &sources.env
        ),
        Ok(())
    );
}
