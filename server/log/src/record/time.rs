//! Time of a record: Unix milliseconds, written as RFC 3339 in UTC with three decimals.
//!
//! Invariant: what is written is read back as the same value; no clock is read here.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999Z
const LAST: u64 = 253_402_300_799_999;

/// Milliseconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From Unix milliseconds; later than the year 9999 becomes its last millisecond.
    #[must_use]
    pub fn from_unix_ms(ms: u64) -> Timestamp {
        Timestamp(ms.min(LAST))
    }

    /// Unix milliseconds.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    pub(crate) fn to_text(self) -> [u8; 24] {
        let (days, ms) = (self.0 / DAY, self.0 % DAY);
        let (year, month, day) = civil(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (at, width, value) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, ms / 3_600_000),
            (14, 2, ms / 60_000 % 60),
            (17, 2, ms / 1000 % 60),
            (20, 3, ms % 1000),
        ] {
            let mut rest = value;
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).expect("a remainder of ten is a digit");
                rest /= 10;
            }
        }
        text
    }

    /// Reads exactly what [`Timestamp::to_text`] writes.
    pub(crate) fn parse(text: &[u8]) -> Option<Timestamp> {
        let text: &[u8; 24] = text.try_into().ok()?;
        let number = |at: usize, width: usize| {
            text[at..at + width].iter().try_fold(0u64, |value, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| value * 10 + u64::from(digit - b'0'))
            })
        };
        let days = days_from_civil(number(0, 4)?, number(5, 2)?, number(8, 2)?)?;
        let ms = number(11, 2)? * 3_600_000
            + number(14, 2)? * 60_000
            + number(17, 2)? * 1000
            + number(20, 3)?;
        let time = Timestamp(days * DAY + ms);
        (time.0 <= LAST && time.to_text() == *text).then_some(time)
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become 1970.
    fn from(time: SystemTime) -> Timestamp {
        let ms = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).expect("the text is ASCII"))
    }
}

/// Days since 1970 as (year, month, day), by the era arithmetic of the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    days.checked_sub(719_468)
}
