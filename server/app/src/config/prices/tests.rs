#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use super::*;
use crate::config::models;

fn known(name: &str) -> Option<Tariff> {
    let (provider, id) = models::direct(name).unwrap();
    Tariff::known(provider, id)
}

#[test]
fn a_model_is_known_by_its_id_or_a_dated_snapshot_of_it_and_by_nothing_near() {
    let sonnet = known("anthropic/claude-sonnet-5-5").unwrap();
    let rates = sonnet.base;
    assert_eq!(
        (rates.input, rates.cache_write, rates.cache_write_1h),
        (2_000_000, 2_500_000, 4_000_000)
    );
    assert_eq!((rates.cache_read, rates.output), (100_000, 10_000_000));
    assert_eq!(sonnet.long, None);
    assert_eq!(known("anthropic/claude-sonnet-5-5-20260915"), Some(sonnet));
    assert_eq!(known("openai/gpt-5.5-2026-04-23"), known("openai/gpt-5.5"));
    let special = known("openai/gpt-4o-2024-05-13").unwrap();
    assert_eq!(
        special.base.input, 5_000_000,
        "before the dated name of gpt-4o"
    );
    for unknown in [
        "anthropic/claude-sonnet-5-6",
        "anthropic/claude-sonnet",
        "anthropic/claude-sonnet-5-5-fast",
        "anthropic/claude-sonnet-5-5-2026091",
        "openai/claude-sonnet-5-5",
        "openai/gpt-5.5-pro",
        "openai/gpt-5.55",
    ] {
        assert_eq!(known(unknown), None, "{unknown}");
    }
}

#[test]
fn no_name_stands_twice_and_the_defaults_are_there() {
    let mut names = BTreeSet::new();
    for row in &table::ROWS {
        for name in row.names {
            assert!(names.insert((row.provider.as_str(), name)), "{name} twice");
        }
        let Rates { input, output, .. } = row.tariff.base;
        assert!(input > 0 && output > input, "{:?}", row.names);
    }
    for default in [models::DEFAULT_ANTHROPIC, models::DEFAULT_OPENAI] {
        assert!(known(default).is_some(), "{default}");
    }
}

#[test]
fn long_prompts_have_their_own_rates_where_the_provider_says_so() {
    let haiku = known("anthropic/claude-haiku-5-5").unwrap().long.unwrap();
    assert_eq!((haiku.above, haiku.rates.input), (100_000, 500_000));
    assert_eq!(
        (haiku.rates.cache_read, haiku.rates.output),
        (50_000, 2_500_000)
    );
    let gpt = known("openai/gpt-5.5").unwrap().long.unwrap();
    assert_eq!(
        (gpt.above, gpt.rates.input, gpt.rates.output),
        (272_000, 10_000_000, 45_000_000)
    );
}

#[test]
fn a_configured_key_goes_before_the_table() {
    let price = PriceConfig {
        output: Some(8.0),
        ..PriceConfig::default()
    };
    let table = known("anthropic/claude-sonnet-5-5").unwrap();
    let tariff = Tariff::of(&price, Some(table)).unwrap();
    assert_eq!(tariff.base.output, 8_000_000);
    assert_eq!(tariff.base.input, table.base.input);
    assert_eq!(Tariff::of(&price, None), None, "the prompt has no price");
}

#[test]
fn without_the_table_a_class_without_a_price_is_input() {
    let mut price = PriceConfig {
        input: Some(3.0),
        output: Some(15.0),
        ..PriceConfig::default()
    };
    let rates = Tariff::of(&price, None).unwrap().base;
    assert_eq!(
        [rates.cache_write, rates.cache_write_1h, rates.cache_read],
        [3_000_000; 3]
    );
    price.cache_write = Some(3.75);
    price.long_context.input = Some(6.0);
    let tariff = Tariff::of(&price, None).unwrap();
    assert_eq!(tariff.base.cache_write_1h, 3_750_000);
    let long = tariff.long.unwrap();
    assert_eq!(long.above, 200_000);
    assert_eq!(
        (long.rates.input, long.rates.output),
        (6_000_000, 15_000_000)
    );
}

#[test]
fn another_endpoint_has_another_list() {
    let mut model = ModelConfig::default();
    let own = tariff(Provider::OpenAi, "gpt-5.5", &model);
    assert!(own.is_some());
    model.base_url = Some("https://gateway.example/v1".to_owned());
    assert_eq!(tariff(Provider::OpenAi, "gpt-5.5", &model), None);
}

#[test]
fn the_list_shows_date_source_and_every_model() {
    let mut config = Config::default();
    let model = ModelConfig {
        provider: Some(Provider::OpenAi),
        id: Some("own".to_owned()),
        ..ModelConfig::default()
    };
    config.models.insert("mine".to_owned(), model);
    let list = price_list(&config);
    for words in [
        PRICES_READ_ON,
        PRICES_SOURCES[0],
        "| `models.mine` | no price |",
        "| `anthropic/claude-sonnet-5-5` | 2.00 | 2.50 | 4.00 | 0.10 | 10.00 |",
        "| `anthropic/claude-haiku-5-5`, prompts over 100000 | 0.50 | 0.625 | 1.00 | 0.05 | 2.50 |",
    ] {
        assert!(list.contains(words), "no {words:?} in {list}");
    }
}
