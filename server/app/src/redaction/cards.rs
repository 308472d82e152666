//! Card numbers: digits of a known issuer, alone or in groups, whose check digit is right.
//!
//! Invariant: a number is found within a longer row of groups (its expiry date may follow), but never
//! inside a longer row of digits.

use std::ops::Range;

/// Digits of the shortest and the longest number.
const DIGITS: Range<usize> = 14..20;

/// A run of digits.
struct Group {
    at: Range<usize>,
}

/// Tells every card number's place.
pub(super) fn find(text: &str, mut take: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut row: Vec<Group> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let end = end_of_digits(bytes, at);
        let follows = row
            .last()
            .is_some_and(|last| is_gap(&bytes[last.at.end..at]));
        if !follows {
            numbers(bytes, &row, &mut take);
            row.clear();
        }
        row.push(Group { at: at..end });
        at = end;
    }
    numbers(bytes, &row, &mut take);
}

fn end_of_digits(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    at + rest
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(rest.len())
}

/// What may stand between two groups of one number.
fn is_gap(between: &[u8]) -> bool {
    // A no-break space is two bytes.
    matches!(between, b" " | b"-" | b"." | [0xc2, 0xa0])
}

/// The numbers in a row of groups: each from the first group that one can begin with.
fn numbers(bytes: &[u8], row: &[Group], take: &mut impl FnMut(Range<usize>)) {
    let mut first = 0;
    while first < row.len() {
        match number_from(bytes, &row[first..]) {
            Some(groups) => {
                let last = &row[first + groups - 1];
                take(row[first].at.start..last.at.end);
                first += groups;
            }
            None => first += 1,
        }
    }
}

/// How many of the groups make a number, the longest first.
fn number_from(bytes: &[u8], row: &[Group]) -> Option<usize> {
    let mut digits = Vec::with_capacity(DIGITS.end);
    let mut best = None;
    for (count, group) in (1..).zip(row) {
        if digits.len() + group.at.len() >= DIGITS.end {
            break;
        }
        digits.extend(bytes[group.at.clone()].iter().map(|b| u32::from(b - b'0')));
        if DIGITS.contains(&digits.len()) && is_issued(&digits) && passes_luhn(&digits) {
            best = Some(count);
        }
    }
    best
}

/// Whether an issuer gives out numbers that begin so and are so long.
fn is_issued(digits: &[u32]) -> bool {
    let head = |n: usize| digits[..n].iter().fold(0, |all, digit| all * 10 + digit);
    let (two, three, four, six) = (head(2), head(3), head(4), head(6));
    match digits.len() {
        14 => two == 36 || two == 38 || two == 39 || (300..=305).contains(&three),
        15 => two == 34 || two == 37,
        16 => {
            digits[0] == 4
                || (51..=55).contains(&two)
                || (2221..=2720).contains(&four)
                || is_discover(two, three, four, six)
                || (3528..=3589).contains(&four)
                || two == 62
        }
        19 => digits[0] == 4 || two == 62 || is_discover(two, three, four, six),
        17 | 18 => two == 62,
        _ => false,
    }
}

fn is_discover(two: u32, three: u32, four: u32, six: u32) -> bool {
    two == 65 || four == 6011 || (644..=649).contains(&three) || (622_126..=622_925).contains(&six)
}

fn passes_luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| match (at % 2, digit * 2) {
            (0, _) => digit,
            (_, twice @ 0..=9) => twice,
            (_, twice) => twice - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}
