//! What the tokens of a model cost: a built-in table, and what the configuration says instead.
//!
//! Boundary: from a model's name and its keys to a tariff; charges nobody. Invariant: a price is known
//! or it is not: nothing is derived from the name of a model that the table does not have, and the
//! table is of the providers' own endpoints, not of another `base_url`.

use std::fmt::Write as _;

use super::types::{Config, LongContextConfig, ModelConfig, PriceConfig, Provider};

mod table;

/// When the built-in table was taken down.
pub const PRICES_READ_ON: &str = "2026-11-22";
/// Where from: the providers' lists for standard processing, as the data set genai-prices 0.2.3 has them.
pub const PRICES_SOURCES: [&str; 2] = [
    "platform.claude.com/docs/en/about-claude/pricing",
    "developers.openai.com/api/docs/pricing",
];

/// What a long prompt begins above, where `price.long_context` is set and nothing says otherwise.
const LONG_ABOVE: u64 = 200_000;

/// What the tokens of a model cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    /// Of calls whose prompt is not long.
    pub base: Rates,
    /// Of the others, where the provider makes a difference.
    pub long: Option<LongRates>,
}

/// Micro-USD for a million tokens, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Prompt tokens that no cache is involved in.
    pub input: u64,
    /// Prompt tokens written to the provider's cache.
    pub cache_write: u64,
    /// The same, kept for an hour.
    pub cache_write_1h: u64,
    /// Prompt tokens read from the provider's cache.
    pub cache_read: u64,
    /// Generated tokens.
    pub output: u64,
}

/// The rates of calls with long prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongRates {
    /// Prompts of more tokens than this are long, cached ones included.
    pub above: u64,
    /// For all tokens of such a call.
    pub rates: Rates,
}

impl Tariff {
    /// The built-in one of a provider's model: by its exact id, or by it with the date of a snapshot.
    #[must_use]
    pub fn known(provider: Provider, id: &str) -> Option<Self> {
        let ours = || table::ROWS.iter().filter(|row| row.provider == provider);
        let exact = ours().find(|row| row.names.contains(&id));
        let row = exact
            .or_else(|| ours().find(|row| row.names.iter().any(|name| is_snapshot(id, name))))?;
        Some(row.tariff)
    }

    /// What `price` says, over what is known; `None` where neither has a price for both prompt and reply.
    #[must_use]
    pub fn of(price: &PriceConfig, known: Option<Self>) -> Option<Self> {
        let base = match known {
            Some(known) => known.base,
            None => {
                let (input, output) = (micro(price.input?), micro(price.output?));
                Rates::flat(input, output, price)
            }
        };
        let base = Rates {
            input: or(price.input, base.input),
            cache_write: or(price.cache_write, base.cache_write),
            cache_write_1h: or(price.cache_write_1h, base.cache_write_1h),
            cache_read: or(price.cache_read, base.cache_read),
            output: or(price.output, base.output),
        };
        let long = known.and_then(|known| known.long);
        let long = match price.long_context == LongContextConfig::default() {
            true => long,
            false => Some(price.long_context.over(long.unwrap_or(LongRates {
                above: LONG_ABOVE,
                rates: base,
            }))),
        };
        Some(Self { base, long })
    }
}

impl Rates {
    /// A class without a price of its own costs what input does; what is kept longer, never less.
    fn flat(input: u64, output: u64, price: &PriceConfig) -> Self {
        let cache_write = or(price.cache_write, input);
        Self {
            input,
            cache_write,
            cache_write_1h: cache_write,
            cache_read: input,
            output,
        }
    }
}

impl LongContextConfig {
    fn over(&self, known: LongRates) -> LongRates {
        let rates = known.rates;
        LongRates {
            above: self.above.unwrap_or(known.above),
            rates: Rates {
                input: or(self.input, rates.input),
                cache_write: or(self.cache_write, rates.cache_write),
                cache_write_1h: or(self.cache_write_1h, rates.cache_write_1h),
                cache_read: or(self.cache_read, rates.cache_read),
                output: or(self.output, rates.output),
            },
        }
    }
}

/// The tariff of a configured model.
pub(super) fn tariff(provider: Provider, id: &str, model: &ModelConfig) -> Option<Tariff> {
    let own = model.base_url.is_none();
    let known = own.then(|| Tariff::known(provider, id)).flatten();
    Tariff::of(&model.price, known)
}

/// The models of a configuration and the built-in table, in US dollars, as Markdown.
#[must_use]
pub fn price_list(config: &Config) -> String {
    let mut out = format!(
        "US dollars per million tokens, taken down on {PRICES_READ_ON} from {}, standard processing.\n\
         models.<alias>.price sets other ones.\n\n\
         | model | input | cache write | kept 1 h | cache read | output |\n|---|---|---|---|---|---|\n",
        PRICES_SOURCES.join(" and ")
    );
    for (alias, model) in &config.models {
        let provider = model.provider.unwrap_or(Provider::Scripted);
        let id = model.id.as_deref().unwrap_or(alias);
        match tariff(provider, id, model) {
            Some(tariff) => rows(&mut out, &format!("models.{alias}"), &tariff),
            None => {
                let _ = writeln!(out, "| `models.{alias}` | no price | | | | |");
            }
        }
    }
    for row in &table::ROWS {
        let names: Vec<String> = row
            .names
            .iter()
            .map(|name| format!("{}/{name}", row.provider.as_str()))
            .collect();
        rows(&mut out, &names.join("`, `"), &row.tariff);
    }
    out
}

fn rows(out: &mut String, name: &str, tariff: &Tariff) {
    let long = tariff.long.map(|long| {
        let above = format!(", prompts over {}", long.above);
        (above, long.rates)
    });
    for (which, rates) in [(String::new(), tariff.base)].into_iter().chain(long) {
        let cells = [
            rates.input,
            rates.cache_write,
            rates.cache_write_1h,
            rates.cache_read,
            rates.output,
        ];
        let cells = cells.map(dollars).join(" | ");
        let _ = writeln!(out, "| `{name}`{which} | {cells} |");
    }
}

/// Whether `id` is `name` with a date: `-20251001`, or `-2026-04-23`.
fn is_snapshot(id: &str, name: &str) -> bool {
    let date = id
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('-'));
    date.is_some_and(|date| {
        let form: String = date
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        form == "00000000" || form == "0000-00-00"
    })
}

fn or(dollars: Option<f64>, else_micro: u64) -> u64 {
    dollars.map_or(else_micro, micro)
}

/// Of US dollars, which the configuration holds to be finite, not negative and at most a million.
fn micro(dollars: f64) -> u64 {
    (dollars * 1e6).round() as u64
}

fn dollars(micro: u64) -> String {
    let mut text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    while text.ends_with('0') && text.find('.').is_some_and(|at| text.len() > at + 3) {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests;
