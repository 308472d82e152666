//! Secrets that are known by their form: where they stand in a text.
//!
//! Boundary: texts and places only. Invariants: places are in order, do not overlap and lie on character
//! boundaries; where two secrets overlap, all that either covers is one place. Every search is linear:
//! no pattern may scan far behind a place where it can still fail, which is why blocks of PEM are put
//! together from their two ends, and card numbers are found by hand.

use std::{borrow::Cow, ops::Range, sync::LazyLock};

use regex::Regex;

use super::cards;
use crate::config::SecretKind;

/// How often what is left is looked at again.
const MAX_ROUNDS: usize = 8;

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(u16);

/// One place, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: Range<usize>,
    pub(super) kind: SecretKind,
}

impl Kinds {
    pub(super) fn of(kinds: &[SecretKind]) -> Self {
        Self(kinds.iter().fold(0, |all, kind| all | bit(*kind)))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has(self, kind: SecretKind) -> bool {
        self.0 & bit(kind) != 0
    }
}

/// Every place of a secret in `text`.
pub(super) fn find(kinds: Kinds, text: &str) -> Vec<Found> {
    let mut found = find_once(kinds, text);
    // What stood right beside a secret begins or ends anew once that is out, and may be one itself.
    for _ in 0..MAX_ROUNDS {
        let more = between(kinds, text, &found);
        if more.is_empty() {
            break;
        }
        found.extend(more);
        found = merged(found);
    }
    found
}

fn between(kinds: Kinds, text: &str, found: &[Found]) -> Vec<Found> {
    let mut more = Vec::new();
    let starts = found.iter().map(|one| one.at.end);
    let ends = found.iter().skip(1).map(|one| one.at.start);
    let gaps = starts.zip(ends.chain([text.len()]));
    let first = found.first().map(|one| (0, one.at.start));
    for (start, end) in first.into_iter().chain(gaps) {
        more.extend(find_once(kinds, &text[start..end]).into_iter().map(|one| {
            let at = start + one.at.start..start + one.at.end;
            Found { at, ..one }
        }));
    }
    more
}

fn find_once(kinds: Kinds, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for kind in SecretKind::ALL.into_iter().filter(|kind| kinds.has(*kind)) {
        let mut take = |at: Range<usize>| found.push(Found { at, kind });
        match kind {
            SecretKind::PrivateKey => private_keys(text, take),
            SecretKind::CreditCard => cards::find(text, take),
            SecretKind::BearerToken => {
                let tokens = pattern(kind).find_iter(text);
                tokens.filter_map(|m| token(text, m.range())).for_each(take);
            }
            SecretKind::AwsAccessKey => {
                pattern(kind).find_iter(text).for_each(|m| take(m.range()));
                // Of `name = value` the value is the secret.
                let named = AWS_SECRET.find_iter(text);
                named.for_each(|m| take(m.end() - AWS_SECRET_LENGTH..m.end()));
            }
            _ => pattern(kind).find_iter(text).for_each(|m| take(m.range())),
        }
    }
    merged(found)
}

/// As [`find`] for each of the pieces, and for all of them as one text.
pub(super) fn find_split(kinds: Kinds, pieces: &[String]) -> Vec<Vec<Found>> {
    let mut all: Vec<Vec<Found>> = pieces.iter().map(|piece| find(kinds, piece)).collect();
    if pieces.len() < 2 {
        return all;
    }
    let joined = pieces.concat();
    let mut over = find(kinds, &joined).into_iter().peekable();
    let mut start = 0;
    for (piece, found) in pieces.iter().zip(&mut all) {
        let end = start + piece.len();
        while let Some(one) = over.peek().filter(|one| one.at.start < end) {
            let within = one.at.start.max(start) - start..one.at.end.min(end) - start;
            if !within.is_empty() {
                found.push(Found {
                    at: within,
                    kind: one.kind,
                });
            }
            if one.at.end > end {
                break;
            }
            over.next();
        }
        start = end;
        *found = merged(std::mem::take(found));
    }
    all
}

/// `text` with a word in each of the places.
pub(super) fn replaced<'a>(text: &'a str, found: &[Found]) -> Cow<'a, str> {
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut redacted = String::with_capacity(text.len());
    let mut done = 0;
    for Found { at, kind } in found {
        redacted.push_str(&text[done..at.start]);
        redacted.push_str("[redacted:");
        redacted.push_str(kind.as_str());
        redacted.push(']');
        done = at.end;
    }
    redacted.push_str(&text[done..]);
    Cow::Owned(redacted)
}

fn bit(kind: SecretKind) -> u16 {
    1 << kind as u16
}

/// In order, without overlaps: of those that overlap the first one names them all.
fn merged(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|one| (one.at.start, one.kind));
    let mut merged: Vec<Found> = Vec::with_capacity(found.len());
    for one in found {
        match merged.last_mut() {
            Some(last) if one.at.start < last.at.end => {
                last.at.end = last.at.end.max(one.at.end);
            }
            _ => merged.push(one),
        }
    }
    merged
}

/// The pattern of a kind, compiled when it is first looked for.
fn pattern(kind: SecretKind) -> &'static Regex {
    static PATTERNS: [LazyLock<Regex>; 9] = [
        LazyLock::new(|| compiled(r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?-u:\b)")),
        LazyLock::new(|| {
            compiled(r"(?:gh[pousr]_[A-Za-z0-9]{30}|github_pat_[A-Za-z0-9_]{30})[A-Za-z0-9_]*")
        }),
        LazyLock::new(|| compiled(r"(?-u:\b)sk-ant-[A-Za-z0-9_-]{20,}")),
        LazyLock::new(|| {
            compiled(
                r"(?-u:\b)sk-(?:(?:proj|svcacct|admin|service|None)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20,})",
            )
        }),
        LazyLock::new(|| {
            compiled(
                r"xox[abeoprs](?:\.xox[abeoprs])?-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{20,}",
            )
        }),
        LazyLock::new(|| compiled(r"AIza[A-Za-z0-9_-]{35}")),
        LazyLock::new(|| {
            compiled(
                r"eyJ[A-Za-z0-9_-]{8,}\.(?:eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+){3})",
            )
        }),
        LazyLock::new(|| compiled(r"(?i-u:bearer)[ \t]+[A-Za-z0-9._~+/-]{16,}=*")),
        LazyLock::new(|| {
            compiled(r"[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*\.\p{L}{2,}")
        }),
    ];
    let at = match kind {
        // The two that are found by hand have none.
        SecretKind::AwsAccessKey | SecretKind::PrivateKey | SecretKind::CreditCard => 0,
        SecretKind::GithubToken => 1,
        SecretKind::AnthropicKey => 2,
        SecretKind::OpenaiKey => 3,
        SecretKind::SlackToken => 4,
        SecretKind::GoogleApiKey => 5,
        SecretKind::Jwt => 6,
        SecretKind::BearerToken => 7,
        SecretKind::Email => 8,
    };
    &PATTERNS[at]
}

/// Characters of a secret access key of AWS, which has no form but its length.
const AWS_SECRET_LENGTH: usize = 40;
static AWS_SECRET: LazyLock<Regex> = LazyLock::new(|| {
    compiled(
        r#"(?i-u:aws_?secret_?(?:access_?)?key|secret_?access_?key)["']?[ \t]*[:=][ \t]*["']?[A-Za-z0-9/+]{40}"#,
    )
});

fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant that the tests compile")
}

/// Of `Bearer TOKEN` the token, unless it is a word: prose speaks of bearers, too.
fn token(text: &str, at: Range<usize>) -> Option<Range<usize>> {
    let whole = &text[at.clone()];
    let start = whole.rfind([' ', '\t'])? + 1;
    let token = &whole[start..];
    token
        .contains(|c: char| c.is_ascii_digit())
        .then(|| at.start + start..at.end)
}

/// From each first line of a key to its last; where that is missing, as far as lines of a key follow.
fn private_keys(text: &str, mut take: impl FnMut(Range<usize>)) {
    static LINE: LazyLock<Regex> = LazyLock::new(|| {
        compiled(r"-----(?:BEGIN|END) (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
    });
    // Line ends may be written as in JSON; a header of an encrypted key may come first.
    static BODY: LazyLock<Regex> = LazyLock::new(|| {
        compiled(
            r"\A(?:(?:\s|\\[nrt])+[A-Z][A-Za-z-]{1,30}: [^\n\\]{0,200})*(?:(?:(?:\s|\\[nrt])+[A-Za-z0-9+/=]{24,})+(?:(?:\s|\\[nrt])+[A-Za-z0-9+/=]+)?)?",
        )
    });
    let mut open: Option<Range<usize>> = None;
    for line in LINE.find_iter(text) {
        let begins = line.as_str().starts_with("-----BEGIN");
        match open.take() {
            Some(first) if !begins => take(first.start..line.end()),
            Some(first) => take(cut_off(&BODY, text, first, line.start())),
            None => {}
        }
        if begins {
            open = Some(line.range());
        }
    }
    if let Some(first) = open {
        take(cut_off(&BODY, text, first, text.len()));
    }
}

/// A key without its end: up to where its lines stop, before `limit`.
fn cut_off(body: &Regex, text: &str, first: Range<usize>, limit: usize) -> Range<usize> {
    let rest = &text[first.end..limit];
    let long = body.find(rest).map_or(0, |m| m.end());
    first.start..first.end + long
}
