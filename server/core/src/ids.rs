//! Identities and instants that the core works with: small, `Copy`, ordered.
//!
//! Loops and calls are numbered by the session itself, in the order in which they were decided, so
//! that a replay gives every one of them the same name.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How often an effect was tried, from 1. A retry keeps the call's id and raises the attempt.
pub type Attempt = u32;

/// Position of an entry in its session's log, dense from 1; 0 stands before the first.
pub type Seq = u64;

/// Generation of the driver that wrote an entry: every attach raises it by one. 0 before the first.
pub type Epoch = u64;

/// An instant: milliseconds since the Unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This instant and `millis` more, saturating.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Whether it is no instant at all: what nobody wrote down.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Milliseconds from `earlier` to this instant; 0 where it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Why a loop's or a call's id could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}<number>`, such as `{prefix}1`")]
pub struct IdError {
    text: String,
    prefix: char,
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let refuse = || IdError { text: text.chars().take(80).collect(), prefix: $prefix };
                let digits = text.strip_prefix($prefix).ok_or_else(refuse)?;
                let canonical = digits == "0" || !digits.starts_with('0');
                if !canonical || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(refuse());
                }
                digits.parse().map($name).map_err(|_: ParseIntError| refuse())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

numbered!(
    /// A loop of a session, written `l1`, `l2`, ...: unique within the session.
    LoopId,
    'l'
);
numbered!(
    /// A model call or a tool call of a session, written `c1`, `c2`, ...: one count for both.
    CallId,
    'c'
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write_and_nothing_else() {
        assert_eq!("c17".parse(), Ok(CallId(17)));
        assert_eq!(CallId(17).to_string(), "c17");
        for bad in [
            "",
            "c",
            "l1",
            "c-1",
            "c+1",
            "c01",
            "c4294967296",
            "c1 ",
            "C1",
        ] {
            assert!(bad.parse::<CallId>().is_err(), "{bad:?} was read as a call");
        }
    }

    #[test]
    fn time_saturates() {
        assert_eq!(Timestamp(5).plus(u64::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).since(Timestamp(9)), 0);
    }

    proptest::proptest! {
        #[test]
        fn an_id_is_read_if_it_is_what_would_be_written(text in "[cl]?[0-9+-]{0,11}| ?[a-z]0?[0-9]{1,3} ?") {
            let read = text.parse::<CallId>();
            let number = text.strip_prefix('c').and_then(|digits| digits.parse::<u32>().ok());
            let canonical = number.filter(|n| format!("c{n}") == text).map(CallId);
            proptest::prop_assert_eq!(read.ok(), canonical, "{:?}", text);
        }
    }
}
