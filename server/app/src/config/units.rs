//! The units that configuration is written in: periods of time, sizes in bytes, the sync policy.
//!
//! Boundary: text in, typed value out, and back; nothing here knows of keys or files.
//! Invariant: `parse(x.to_string()) == Some(x)` for every value, and whatever is not exactly in the
//! grammar is refused: no default unit, no fractions, no spaces, no silent overflow.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time, written as a whole number and one unit: `50ms`, `120s`, `10m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

/// A number of bytes, written as a whole number, or with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// When the session log makes its writes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncMode {
    /// Every fact is synced before it is acknowledged.
    Always,
    /// The operating system decides; a power cut may lose acknowledged facts.
    None,
    /// Synced once per interval; a power cut may lose the facts of the last one.
    Interval(Period),
}

const PERIOD_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 5] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl Period {
    /// A period of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A period of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The same span as the standard type.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Whole milliseconds. Never truncates: no period is longer than `u64::MAX` milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads `<whole number><unit>`; anything else, overflow included, is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        scaled(text, &PERIOD_UNITS, None).map(Self::from_millis)
    }
}

impl ByteSize {
    /// A size of whole bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of whole mebibytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Bytes as an index; saturates where an index is narrower than 64 bits.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads a whole number of bytes, or one with a unit; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        scaled(text, &SIZE_UNITS, Some(1)).map(Self)
    }
}

impl SyncMode {
    /// Reads `always`, `none` or a period.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "always" => Some(Self::Always),
            "none" => Some(Self::None),
            other => Period::parse(other).map(Self::Interval),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days are read but not written: "48h" is as plain as "2d" and compares with other values.
        let (unit, scale) = largest_unit(self.as_millis(), &PERIOD_UNITS[..4], "s");
        write!(f, "{}{unit}", self.as_millis() / scale)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = largest_unit(self.0, &SIZE_UNITS, "B");
        write!(f, "{}{unit}", self.0 / scale)
    }
}

impl fmt::Display for SyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::None => f.write_str("none"),
            Self::Interval(period) => period.fmt(f),
        }
    }
}

/// Serde and schema by the text form, for a type with `parse` and `Display`.
macro_rules! text_form {
    ($name:ident, $kind:literal, $expected:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| de::Error::custom(concat!("expected ", $expected)))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "x-kind": $kind })
            }
        }
    };
}

text_form!(
    Period,
    "period",
    "a time with its unit, such as 50ms, 120s or 10m"
);
text_form!(
    ByteSize,
    "size",
    "a number of bytes, such as 65536 or 64MiB"
);
text_form!(SyncMode, "sync", "always, none or an interval such as 50ms");

fn scaled(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale = if unit.is_empty() {
        bare?
    } else {
        units.iter().find(|(name, _)| *name == unit)?.1
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

fn largest_unit(value: u64, units: &[(&'static str, u64)], zero: &str) -> (&'static str, u64) {
    let fits = |&&(name, scale): &&(&str, u64)| {
        if value == 0 {
            name == zero
        } else {
            value.is_multiple_of(scale)
        }
    };
    units.iter().rev().find(fits).copied().unwrap_or(units[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_period_needs_one_known_unit_and_nothing_else() {
        for (text, millis) in [
            ("50ms", 50),
            ("120s", 120_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                Period::parse(text),
                Some(Period::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "120",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "1S",
            "1h30m",
            "1sec",
            "18446744073709551615d",
        ] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_binary_units_only() {
        for (text, bytes) in [
            ("65536", 65_536),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("7B", 7),
        ] {
            assert_eq!(ByteSize::parse(text), Some(ByteSize::new(bytes)), "{text}");
        }
        for text in [
            "",
            "MiB",
            "64MB",
            "64M",
            "64k",
            "1e6",
            "-5",
            "1.5GiB",
            "99999999TiB",
        ] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(n in 0..u64::MAX) {
            let (period, size) = (Period::from_millis(n), ByteSize::new(n));
            prop_assert_eq!(Period::parse(&period.to_string()), Some(period));
            prop_assert_eq!(ByteSize::parse(&size.to_string()), Some(size));
        }
    }
}
