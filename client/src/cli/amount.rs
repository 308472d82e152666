//! Amounts as people write them on a command line: `50k`, `1.5M`, `0.25`, `90m`.
//!
//! Boundary: text in, a number or words out; nowhere else are suffixes taken. Invariant: what is read is
//! exact; what would be rounded, or is too large, is refused.

/// A count: digits, a fraction of at most as many places as the suffix has, and `k`, `M` or `G`.
///
/// # Errors
/// In words, with the value.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is not a count such as 50000, 50k or 1.5M");
    let (digits, places) = match text.strip_suffix(['k', 'M', 'G']) {
        Some(digits) if text.ends_with('k') => (digits, 3),
        Some(digits) if text.ends_with('M') => (digits, 6),
        Some(digits) => (digits, 9),
        None => (text, 0),
    };
    fixed(digits, places).ok_or_else(refused)
}

/// US dollars, with or without `$`, as millionths of one.
///
/// # Errors
/// In words, with the value.
pub(super) fn money(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is not an amount of US dollars such as 0.25 or 10");
    fixed(text.strip_prefix('$').unwrap_or(text), 6).ok_or_else(refused)
}

/// A span with its unit, `s`, `m`, `h` or `d`, in seconds.
///
/// # Errors
/// In words, with the value.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is not a span such as 90s, 15m, 24h or 30d");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        Some(b'd') => 86_400,
        _ => return Err(refused()),
    };
    let whole = fixed(&text[..text.len() - 1], 0).ok_or_else(refused)?;
    whole.checked_mul(unit).ok_or_else(refused)
}

/// Where a limit moves to: an amount, or away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// To this.
    To(u64),
    /// It is removed: `none`.
    None,
}

/// A count, or `none`.
///
/// # Errors
/// In words, with the value.
pub(super) fn count_or_none(text: &str) -> Result<Moved, String> {
    or_none(text, count)
}

/// US dollars, or `none`.
///
/// # Errors
/// In words, with the value.
pub(super) fn money_or_none(text: &str) -> Result<Moved, String> {
    or_none(text, money)
}

/// A span, or `none`.
///
/// # Errors
/// In words, with the value.
pub(super) fn seconds_or_none(text: &str) -> Result<Moved, String> {
    or_none(text, seconds)
}

impl Moved {
    /// The amount; none where the limit is removed.
    pub(super) fn amount(self) -> Option<u64> {
        match self {
            Self::To(amount) => Some(amount),
            Self::None => None,
        }
    }
}

fn or_none(text: &str, read: fn(&str) -> Result<u64, String>) -> Result<Moved, String> {
    if text == "none" {
        return Ok(Moved::None);
    }
    read(text)
        .map(Moved::To)
        .map_err(|error| format!("{error}, nor `none`, which removes the limit"))
}

/// A decimal number times ten to the `places`, if that is whole and fits.
fn fixed(text: &str, places: u32) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let has_point = text.contains('.');
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || (has_point && !is_number(fraction)) {
        return None;
    }
    let missing = places.checked_sub(u32::try_from(fraction.len()).ok()?)?;
    let scaled = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(10_u64.checked_pow(places)?)?;
    let rest = match fraction {
        "" => 0,
        fraction => fraction
            .parse::<u64>()
            .ok()?
            .checked_mul(10_u64.checked_pow(missing)?)?,
    };
    scaled.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, value) in [
            ("0", 0),
            ("50000", 50_000),
            ("50k", 50_000),
            ("1.5M", 1_500_000),
            ("0.001k", 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(count(text), Ok(value), "{text}");
        }
        assert_eq!(money("0.25"), Ok(250_000));
        assert_eq!(money("$10"), Ok(10_000_000));
        assert_eq!(money("0.000001"), Ok(1));
        assert_eq!(seconds("24h"), Ok(86_400));
    }

    #[test]
    fn a_limit_is_an_amount_or_none() {
        assert_eq!(count_or_none("50k"), Ok(Moved::To(50_000)));
        assert_eq!(money_or_none("0"), Ok(Moved::To(0)), "nothing is not none");
        assert_eq!(seconds_or_none("none"), Ok(Moved::None));
        for bad in ["None", "", "no", "1e6"] {
            let error = count_or_none(bad).expect_err("it is no count");
            assert!(error.contains("`none`"), "{error}");
        }
    }

    #[test]
    fn what_is_not_exact_is_refused() {
        for bad in [
            "",
            "k",
            "-5",
            "+5",
            "1e6",
            "10K",
            "1.0005k",
            "1.5",
            ".5k",
            "5.k",
            "1 k",
            "1,000",
            "18446744073709551616",
            "99999999999G",
            "∞",
            "0x10",
            "1.2.3M",
        ] {
            assert!(count(bad).is_err(), "{bad:?} was read as {:?}", count(bad));
        }
        for bad in [
            "",
            "$",
            "0.0000001",
            "-1",
            "1e2",
            "0,25",
            "$$1",
            "99999999999999999999",
        ] {
            assert!(money(bad).is_err(), "{bad:?} was read as {:?}", money(bad));
        }
        for bad in ["", "10", "d", "1.5h", "-1s", "999999999999999999d", "5 m"] {
            assert!(
                seconds(bad).is_err(),
                "{bad:?} was read as {:?}",
                seconds(bad)
            );
        }
    }
}
