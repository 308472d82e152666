//! The built-in prices.
//!
//! Boundary: numbers as the providers publish them; see [`super::PRICES_SOURCES`] for where from and
//! [`super::PRICES_READ_ON`] for when. Invariant: no name stands twice for one provider.

use super::{LongRates, Rates, Tariff};
use crate::config::types::Provider;

/// One price, and the ids that have it.
pub(super) struct Row {
    pub(super) provider: Provider,
    pub(super) names: &'static [&'static str],
    pub(super) tariff: Tariff,
}

/// OpenAI's models with a large window charge more for prompts above this.
const OPENAI_LONG: u64 = 272_000;

/// All of them, the latest first.
pub(super) static ROWS: [Row; 38] = [
    claude(
        &["claude-fable-5-2", "claude-mythos-5-2"],
        8_000_000,
        200_000,
        40_000_000,
    ),
    claude(
        &["claude-fable-5-1", "claude-mythos-5-1"],
        10_000_000,
        250_000,
        50_000_000,
    ),
    claude(
        &["claude-fable-5", "claude-mythos-5"],
        10_000_000,
        1_000_000,
        50_000_000,
    ),
    claude(&["claude-opus-5-5"], 4_000_000, 200_000, 20_000_000),
    claude(
        &["claude-opus-5", "claude-opus-4-8", "claude-opus-4-7"],
        5_000_000,
        500_000,
        25_000_000,
    ),
    claude(
        &["claude-opus-4-6", "claude-opus-4-5"],
        5_000_000,
        500_000,
        25_000_000,
    ),
    claude(
        &["claude-opus-4-1", "claude-opus-4-0", "claude-opus-4"],
        15_000_000,
        1_500_000,
        75_000_000,
    ),
    claude(&["claude-sonnet-5-5"], 2_000_000, 100_000, 10_000_000),
    claude(&["claude-sonnet-5"], 2_000_000, 200_000, 10_000_000),
    claude(&["claude-sonnet-4-6"], 3_000_000, 300_000, 15_000_000),
    claude(
        &["claude-sonnet-4-5", "claude-sonnet-4-0", "claude-sonnet-4"],
        3_000_000,
        300_000,
        15_000_000,
    )
    .long(200_000, (2, 1), (3, 2)),
    claude(
        &["claude-3-7-sonnet", "claude-3-7-sonnet-latest"],
        3_000_000,
        300_000,
        15_000_000,
    ),
    claude(&["claude-haiku-5-5"], 100_000, 10_000, 500_000).long(100_000, (5, 1), (5, 1)),
    claude(&["claude-haiku-4-5"], 1_000_000, 100_000, 5_000_000),
    claude(
        &["claude-3-5-haiku", "claude-3-5-haiku-latest"],
        800_000,
        80_000,
        4_000_000,
    ),
    gpt(&["gpt-6.1-sol"], 2_000_000, 100_000, 10_000_000)
        .writes()
        .wide(),
    gpt(&["gpt-6.1-terra"], 1_000_000, 50_000, 5_000_000)
        .writes()
        .wide(),
    gpt(&["gpt-6-astra"], 10_000_000, 1_000_000, 50_000_000)
        .writes()
        .wide(),
    gpt(&["gpt-6-sol"], 2_000_000, 200_000, 10_000_000)
        .writes()
        .wide(),
    gpt(&["gpt-6-luna"], 100_000, 10_000, 500_000)
        .writes()
        .wide(),
    gpt(&["gpt-5.6-sol", "gpt-5.6"], 4_000_000, 400_000, 20_000_000)
        .writes()
        .wide(),
    gpt(&["gpt-5.6-terra"], 2_000_000, 200_000, 12_000_000)
        .writes()
        .wide(),
    gpt(&["gpt-5.6-luna"], 200_000, 20_000, 1_200_000)
        .writes()
        .wide(),
    gpt(
        &["gpt-5.5", "gpt-5.5-chat-latest"],
        5_000_000,
        500_000,
        30_000_000,
    )
    .wide(),
    gpt(&["gpt-5.4"], 2_500_000, 250_000, 15_000_000).wide(),
    gpt(&["gpt-5.4-mini"], 750_000, 75_000, 4_500_000),
    gpt(&["gpt-5.4-nano"], 200_000, 20_000, 1_250_000),
    gpt(
        &["gpt-5.2", "gpt-5.2-chat-latest"],
        1_750_000,
        175_000,
        14_000_000,
    ),
    gpt(
        &[
            "gpt-5.1",
            "gpt-5.1-chat-latest",
            "gpt-5",
            "gpt-5-chat-latest",
        ],
        1_250_000,
        125_000,
        10_000_000,
    ),
    gpt(&["gpt-5-mini"], 250_000, 25_000, 2_000_000),
    gpt(&["gpt-5-nano"], 50_000, 5_000, 400_000),
    gpt(&["gpt-4.1", "o3"], 2_000_000, 500_000, 8_000_000),
    gpt(&["gpt-4.1-mini"], 400_000, 100_000, 1_600_000),
    gpt(&["gpt-4.1-nano"], 100_000, 25_000, 400_000),
    gpt(&["gpt-4o"], 2_500_000, 1_250_000, 10_000_000),
    gpt(&["gpt-4o-2024-05-13"], 5_000_000, 5_000_000, 15_000_000),
    gpt(&["gpt-4o-mini"], 150_000, 75_000, 600_000),
    gpt(&["o4-mini"], 1_100_000, 275_000, 4_400_000),
];

impl Row {
    /// With other rates for prompts above so many tokens: those of the prompt times `input`, those of the
    /// reply times `output`, both as fractions.
    const fn long(mut self, above: u64, input: (u64, u64), output: (u64, u64)) -> Self {
        let base = self.tariff.base;
        self.tariff.long = Some(LongRates {
            above,
            rates: Rates {
                input: base.input * input.0 / input.1,
                cache_write: base.cache_write * input.0 / input.1,
                cache_write_1h: base.cache_write_1h * input.0 / input.1,
                cache_read: base.cache_read * input.0 / input.1,
                output: base.output * output.0 / output.1,
            },
        });
        self
    }

    /// An OpenAI model with a window of a million tokens.
    const fn wide(self) -> Self {
        self.long(OPENAI_LONG, (2, 1), (3, 2))
    }

    /// From GPT-5.6 on what is written to the cache costs a quarter more.
    const fn writes(mut self) -> Self {
        self.tariff.base.cache_write = self.tariff.base.input * 5 / 4;
        self.tariff.base.cache_write_1h = self.tariff.base.cache_write;
        self
    }
}

/// Cache writes cost a quarter more than input, for an hour twice as much.
const fn claude(names: &'static [&'static str], input: u64, cache_read: u64, output: u64) -> Row {
    let base = Rates {
        input,
        cache_write: input * 5 / 4,
        cache_write_1h: input * 2,
        cache_read,
        output,
    };
    Row {
        provider: Provider::Anthropic,
        names,
        tariff: Tariff { base, long: None },
    }
}

/// Cache writes cost what input does.
const fn gpt(names: &'static [&'static str], input: u64, cache_read: u64, output: u64) -> Row {
    let base = Rates {
        input,
        cache_write: input,
        cache_write_1h: input,
        cache_read,
        output,
    };
    Row {
        provider: Provider::OpenAi,
        names,
        tariff: Tariff { base, long: None },
    }
}
