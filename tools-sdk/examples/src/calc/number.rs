//! Numbers that stay exact as long as they can: fractions of 128-bit integers, and floats beyond that.
//!
//! No operation panics or yields an infinity or NaN: what has no value is an error in words.

use std::cmp::Ordering;

/// Digits after the point up to which a fraction is shown exactly.
const MAX_DECIMALS: u32 = 20;
/// Exponents up to which powers are computed exactly.
const MAX_EXACT_EXPONENT: u32 = 1024;

/// A number. An exact one is in lowest terms with a denominator above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Exact { num: i128, den: i128 },
    Float(f64),
}

/// What an operation yields, or why it has no value.
pub(super) type Valued = Result<Number, String>;

impl Number {
    pub(super) fn integer(num: i128) -> Self {
        Self::Exact { num, den: 1 }
    }

    pub(super) fn float(value: f64) -> Valued {
        if value.is_nan() {
            return Err("the result is not a real number".to_owned());
        }
        if value.is_infinite() {
            return Err("the result is too large".to_owned());
        }
        Ok(Self::Float(value))
    }

    /// Reads digits with at most one point and an optional exponent, as the parser found them.
    pub(super) fn literal(text: &str) -> Valued {
        if let Some(number) = exact_literal(text) {
            return Ok(number);
        }
        let value = text
            .parse()
            .map_err(|_| format!("`{text}` is not a number"))?;
        Self::float(value)
    }

    pub(super) fn add(self, other: Self) -> Valued {
        self.exactly(other, |(a, b), (c, d)| {
            let num = a.checked_mul(d)?.checked_add(c.checked_mul(b)?)?;
            fraction(num, b.checked_mul(d)?)
        })
        .map_or_else(|| Self::float(self.approximate() + other.approximate()), Ok)
    }

    pub(super) fn subtract(self, other: Self) -> Valued {
        self.add(other.negate())
    }

    pub(super) fn multiply(self, other: Self) -> Valued {
        self.exactly(other, |(a, b), (c, d)| {
            // Crosswise first, so that products overflow late.
            let (left, right) = (gcd(a, d), gcd(c, b));
            let num = (a / left).checked_mul(c / right)?;
            fraction(num, (b / right).checked_mul(d / left)?)
        })
        .map_or_else(|| Self::float(self.approximate() * other.approximate()), Ok)
    }

    pub(super) fn divide(self, other: Self) -> Valued {
        match other {
            _ if other.is_zero() => Err("division by zero".to_owned()),
            Self::Exact { num, den } => match fraction(den, num) {
                Some(inverse) => self.multiply(inverse),
                None => Self::float(self.approximate() / other.approximate()),
            },
            Self::Float(value) => Self::float(self.approximate() / value),
        }
    }

    /// The remainder with the sign of the divisor: -7 % 3 is 2.
    pub(super) fn remainder(self, other: Self) -> Valued {
        let whole = self.divide(other)?.floor()?;
        self.subtract(other.multiply(whole)?)
    }

    pub(super) fn power(self, exponent: Self) -> Valued {
        if let Self::Exact { num, den: 1 } = exponent {
            if num < 0 && self.is_zero() {
                return Err("division by zero".to_owned());
            }
            if let Some(power) = self.exact_power(num) {
                return Ok(power);
            }
        }
        Self::float(self.approximate().powf(exponent.approximate()))
    }

    pub(super) fn square_root(self) -> Valued {
        if let Self::Exact { num, den } = self
            && let (Some(num), Some(den)) = (exact_root(num), exact_root(den))
        {
            return Ok(Self::Exact { num, den });
        }
        Self::float(self.approximate().sqrt())
    }

    pub(super) fn negate(self) -> Self {
        match self {
            Self::Exact { num, den } => match num.checked_neg() {
                Some(num) => Self::Exact { num, den },
                None => Self::Float(-self.approximate()),
            },
            Self::Float(value) => Self::Float(-value),
        }
    }

    pub(super) fn absolute(self) -> Self {
        if self.approximate() < 0.0 {
            self.negate()
        } else {
            self
        }
    }

    pub(super) fn floor(self) -> Valued {
        match self {
            Self::Exact { num, den } => Ok(Self::integer(num.div_euclid(den))),
            Self::Float(value) => Self::float(value.floor()),
        }
    }

    pub(super) fn ceiling(self) -> Valued {
        Ok(self.negate().floor()?.negate())
    }

    /// To the nearest integer, halves away from zero.
    pub(super) fn round(self) -> Valued {
        let half = Self::Exact { num: 1, den: 2 };
        let rounded = self.absolute().add(half)?.floor()?;
        Ok(if self.approximate() < 0.0 {
            rounded.negate()
        } else {
            rounded
        })
    }

    pub(super) fn compare(self, other: Self) -> Ordering {
        let difference = self.subtract(other).map_or(0.0, Self::approximate);
        difference.total_cmp(&0.0)
    }

    pub(super) fn approximate(self) -> f64 {
        match self {
            Self::Exact { num, den } => num as f64 / den as f64,
            Self::Float(value) => value,
        }
    }

    /// The number for a reader, and whether that is exactly it.
    pub(super) fn shown(self) -> (String, bool) {
        match self {
            Self::Exact { num, den: 1 } => (num.to_string(), true),
            Self::Exact { num, den } => match decimal(num, den) {
                Some(text) => (text, true),
                None => (shown_float(self.approximate()), false),
            },
            Self::Float(value) => (shown_float(value), false),
        }
    }

    fn is_zero(self) -> bool {
        match self {
            Self::Exact { num, .. } => num == 0,
            Self::Float(value) => value == 0.0,
        }
    }

    fn exactly(
        self,
        other: Self,
        operation: impl FnOnce((i128, i128), (i128, i128)) -> Option<Self>,
    ) -> Option<Self> {
        match (self, other) {
            (Self::Exact { num: a, den: b }, Self::Exact { num: c, den: d }) => {
                operation((a, b), (c, d))
            }
            _ => None,
        }
    }

    fn exact_power(self, exponent: i128) -> Option<Self> {
        let Self::Exact { num, den } = self else {
            return None;
        };
        let times = u32::try_from(exponent.unsigned_abs()).ok()?;
        let trivial = den == 1 && (-1..=1).contains(&num);
        if times > MAX_EXACT_EXPONENT && !trivial {
            return None;
        }
        let (num, den) = (num.checked_pow(times)?, den.checked_pow(times)?);
        if exponent < 0 {
            fraction(den, num)
        } else {
            fraction(num, den)
        }
    }
}

fn fraction(num: i128, den: i128) -> Option<Number> {
    let common = gcd(num, den);
    let (num, den) = (num.checked_div(common)?, den.checked_div(common)?);
    match den {
        0 => None,
        1.. => Some(Number::Exact { num, den }),
        _ => Some(Number::Exact {
            num: num.checked_neg()?,
            den: den.checked_neg()?,
        }),
    }
}

/// The greatest common divisor, at least 1; 1 where it does not fit.
fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i128::try_from(a).unwrap_or(1).max(1)
}

fn exact_root(value: i128) -> Option<i128> {
    let root = value.checked_isqrt()?;
    (root * root == value).then_some(root)
}

fn exact_literal(text: &str) -> Option<Number> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let num: i128 = format!("{whole}{decimals}").parse().ok()?;
    let shift = exponent.checked_sub(i32::try_from(decimals.len()).ok()?)?;
    let scale = 10_i128.checked_pow(shift.unsigned_abs())?;
    if shift < 0 {
        fraction(num, scale)
    } else {
        fraction(num.checked_mul(scale)?, 1)
    }
}

/// A fraction as a finite decimal; `None` where it has none of a bearable length.
fn decimal(num: i128, den: i128) -> Option<String> {
    let mut rest = num.unsigned_abs() % den.unsigned_abs();
    let mut decimals = String::new();
    while rest != 0 {
        if decimals.len() >= MAX_DECIMALS as usize {
            return None;
        }
        let shifted = rest.checked_mul(10)?;
        decimals.push(char::from_digit(
            u32::try_from(shifted / den.unsigned_abs()).ok()?,
            10,
        )?);
        rest = shifted % den.unsigned_abs();
    }
    let sign = if num < 0 { "-" } else { "" };
    Some(format!(
        "{sign}{}.{decimals}",
        num.unsigned_abs() / den.unsigned_abs()
    ))
}

fn shown_float(value: f64) -> String {
    // 15 digits are what a float surely holds: 0.30000000000000004 is 0.3.
    let rounded: f64 = format!("{value:.14e}").parse().unwrap_or(value);
    let size = rounded.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        return format!("{rounded:e}");
    }
    // No "-0".
    format!("{}", rounded + 0.0)
}
