//! What tokens cost, and what they can cost at most.
//!
//! Boundary: a tariff and counts in, micro-USD out. Invariant: what is reserved by [`most`] for the upper
//! bounds of a call's prompt and reply is never less than what [`of`] says of the call itself.

use loopwright_core::{
    budget::{LongPrice, Price},
    usage::Usage,
};

use crate::config::{CacheTtl, Rates, Tariff};

/// Tokens that a rate is given for.
const RATED_TOKENS: u128 = 1_000_000;

/// What a call cost, micro-USD rounded up: each class at its rate, all of them at those of long prompts
/// where the whole prompt is one.
pub(super) fn of(tariff: &Tariff, ttl: CacheTtl, usage: &Usage) -> u64 {
    let long = tariff.long.filter(|long| usage.prompt() > long.above);
    let rates = long.map_or(tariff.base, |long| long.rates);
    // A provider that was asked to keep all of it for an hour and does not say how much it did.
    let hour = match ttl {
        CacheTtl::OneHour if usage.cache_write_1h == 0 => usage.cache_write,
        CacheTtl::OneHour | CacheTtl::FiveMinutes => usage.cache_write_1h.min(usage.cache_write),
    };
    let classes = [
        (usage.input, rates.input),
        (usage.cache_write - hour, rates.cache_write),
        (hour, rates.cache_write_1h),
        (usage.cache_read, rates.cache_read),
        (usage.output, rates.output),
    ];
    let parts = classes
        .iter()
        .map(|&(tokens, rate)| u128::from(tokens).saturating_mul(rate.into()));
    let sum = parts.fold(0, u128::saturating_add);
    u64::try_from(sum.div_ceil(RATED_TOKENS)).unwrap_or(u64::MAX)
}

/// The most that tokens can cost: money is reserved by it.
pub(super) fn most(tariff: &Tariff, ttl: CacheTtl) -> Price {
    Price {
        input: dearest(&tariff.base, ttl),
        output: tariff.base.output,
        long: tariff.long.map(|long| LongPrice {
            above: long.above,
            input: dearest(&long.rates, ttl),
            output: long.rates.output,
        }),
    }
}

/// Of the classes of prompt tokens; nothing is written for an hour unless it is asked for.
fn dearest(rates: &Rates, ttl: CacheTtl) -> u64 {
    let hour = match ttl {
        CacheTtl::OneHour => rates.cache_write_1h,
        CacheTtl::FiveMinutes => 0,
    };
    rates
        .input
        .max(rates.cache_write)
        .max(rates.cache_read)
        .max(hour)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::LongRates;

    const RATES: Rates = Rates {
        input: 3_000_000,
        cache_write: 3_750_000,
        cache_write_1h: 6_000_000,
        cache_read: 300_000,
        output: 15_000_000,
    };
    const TARIFF: Tariff = Tariff {
        base: RATES,
        long: Some(LongRates {
            above: 200_000,
            rates: Rates {
                input: 6_000_000,
                cache_write: 7_500_000,
                cache_write_1h: 12_000_000,
                cache_read: 600_000,
                output: 22_500_000,
            },
        }),
    };

    #[test]
    fn every_class_has_its_rate() {
        let usage = Usage {
            input: 1_000,
            output: 100,
            cache_write: 10,
            cache_read: 1,
            cache_write_1h: 4,
        };
        let minutes = of(&TARIFF, CacheTtl::FiveMinutes, &usage);
        assert_eq!(minutes, 3_000 + 1_500 + 24 + 23, "22.5 and 0.3, rounded up");
        let unsaid = Usage {
            cache_write_1h: 0,
            ..usage
        };
        let hour = of(&TARIFF, CacheTtl::OneHour, &unsaid);
        assert_eq!(hour, 3_000 + 1_500 + 60 + 1);
    }

    #[test]
    fn the_whole_prompt_decides_whether_it_is_long() {
        let usage = |cache_read| Usage {
            input: 1_000,
            output: 1_000,
            cache_read,
            ..Usage::default()
        };
        let cost = |usage| of(&TARIFF, CacheTtl::FiveMinutes, &usage);
        assert_eq!(cost(usage(199_000)), 3_000 + 15_000 + 59_700);
        assert_eq!(
            cost(usage(199_001)),
            6_000 + 22_500 + 119_401,
            "cached tokens count, and all of it is dearer"
        );
    }

    fn rates() -> impl Strategy<Value = Rates> {
        proptest::array::uniform5(0_u64..40_000_000).prop_map(|rates| Rates {
            input: rates[0],
            cache_write: rates[1],
            cache_write_1h: rates[2],
            cache_read: rates[3],
            output: rates[4],
        })
    }

    proptest! {
        /// However a prompt falls into classes, and whatever the tariff is, what was reserved for its
        /// upper bound and for the cap covers what it costs.
        #[test]
        fn a_reservation_covers_the_call(
            base in rates(),
            long in proptest::option::of((0_u64..400_000, rates())),
            input in 0_u64..150_000, write in 0_u64..150_000, read in 0_u64..150_000,
            hour_share in 0_u64..=4, output in 0_u64..50_000,
            beyond in 0_u64..200_000, unused in 0_u64..10_000, asked_hour in any::<bool>(),
        ) {
            let long = long.map(|(above, rates)| LongRates { above, rates });
            let tariff = Tariff { base, long };
            let ttl = if asked_hour { CacheTtl::OneHour } else { CacheTtl::FiveMinutes };
            let usage = Usage {
                input,
                output,
                cache_write: write,
                cache_read: read,
                cache_write_1h: if asked_hour { write * hour_share / 4 } else { 0 },
            };
            let reserved = most(&tariff, ttl).cost(usage.prompt() + beyond, output + unused);
            prop_assert!(of(&tariff, ttl, &usage) <= reserved);
        }
    }
}
