//! Fields of requests: each is looked at, and all that is wrong is told at once.
//!
//! Invariant: a violation names the field, the value and the way out.

use std::collections::BTreeMap;

use loopwright_core::ids::{CallId, LoopId};
use loopwright_log::{Id, StreamKey};
use uuid::Uuid;

/// Labels of one session or loop, or of one filter.
pub const MAX_LABELS: usize = 32;
/// Characters of a label's value.
pub const MAX_LABEL_CHARS: usize = 256;
/// Characters of a request id.
pub const MAX_REQUEST_ID: usize = 128;
/// Characters of the reason of a cancel or of an answer.
pub const MAX_REASON_CHARS: usize = 1_024;
/// Items of a page where the request does not say.
pub const DEFAULT_PAGE: usize = 50;
/// Most items of a page.
pub const MAX_PAGE: usize = 500;

/// One field that cannot be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, `agent.limits.max_steps`.
    pub field: String,
    /// The value, what is wrong with it, and the way out.
    pub problem: String,
}

/// All violations of one request, in the order of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// One more.
    pub fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        let (field, problem) = (field.into(), problem.into());
        self.0.push(Violation { field, problem });
    }

    /// `value` where nothing was wrong.
    ///
    /// # Errors
    /// All violations, where there is one.
    pub fn check<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// A request with one violation.
    #[must_use]
    pub fn one(field: impl Into<String>, problem: impl Into<String>) -> Self {
        let mut all = Self::default();
        all.add(field, problem);
        all
    }
}

/// A value as a violation shows it: quoted, and cut where it is long.
#[must_use]
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    let dots = if cut.len() < text.len() { ".." } else { "" };
    format!("{cut:?}{dots}")
}

/// A required id.
pub fn id(field: &str, text: &str, all: &mut Violations) -> Option<Id> {
    if text.is_empty() {
        all.add(field, "is empty; name one");
        return None;
    }
    optional_id(field, text, all)
}

/// The stream of a session, where nothing of its request is wrong.
///
/// # Errors
/// All violations.
pub fn key(namespace: &Id, id: Option<Id>, all: Violations) -> Result<StreamKey, Violations> {
    match id {
        Some(id) if all.0.is_empty() => Ok(StreamKey::session(namespace, &id)),
        _ => Err(all),
    }
}

/// An id that may be left out.
pub fn optional_id(field: &str, text: &str, all: &mut Violations) -> Option<Id> {
    if text.is_empty() {
        return None;
    }
    let parsed = Id::parse(text);
    if parsed.is_err() {
        all.add(
            field,
            format!(
                "{} does not match [a-z0-9][a-z0-9_-]{{0,62}}; use such an id",
                shown(text)
            ),
        );
    }
    parsed.ok()
}

/// A loop's id that may be left out.
pub fn optional_loop(field: &str, text: &str, all: &mut Violations) -> Option<LoopId> {
    if text.is_empty() {
        return None;
    }
    let parsed = text.parse().ok().filter(|id| *id != LoopId(0));
    if parsed.is_none() {
        let problem = "is no loop's id; they are \"l1\", \"l2\" and so on, or leave it empty";
        all.add(field, format!("{} {problem}", shown(text)));
    }
    parsed
}

/// A call's id that may be left out.
pub fn optional_call(field: &str, text: &str, all: &mut Violations) -> Option<CallId> {
    if text.is_empty() {
        return None;
    }
    let parsed = text.parse().ok().filter(|id| *id != CallId(0));
    if parsed.is_none() {
        let problem = "is no call's id; they are \"c1\", \"c2\" and so on, or leave it empty";
        all.add(field, format!("{} {problem}", shown(text)));
    }
    parsed
}

/// A required tool call's id.
pub fn call(field: &str, text: &str, all: &mut Violations) -> CallId {
    if text.is_empty() {
        all.add(field, "is empty; name the tool call, such as \"c7\"");
        return CallId(0);
    }
    let parsed = text.parse().ok().filter(|id| *id != CallId(0));
    parsed.unwrap_or_else(|| {
        let problem = "is no call's id; they are \"c1\", \"c2\" and so on";
        all.add(field, format!("{} {problem}", shown(text)));
        CallId(0)
    })
}

/// The client's request id; where it sent none, one of our own that nobody else has.
pub fn request_id(text: &str, all: &mut Violations) -> String {
    if text.is_empty() {
        return format!("auto-{}", Uuid::now_v7().simple());
    }
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if text.len() > MAX_REQUEST_ID || !printable {
        all.add(
            "request_id",
            format!(
                "{} is not 1 to {MAX_REQUEST_ID} printable ASCII characters; a UUID is a good one",
                shown(text)
            ),
        );
    }
    text.to_owned()
}

/// Labels of a session or a loop, or of a filter.
pub fn labels(labels: BTreeMap<String, String>, all: &mut Violations) -> BTreeMap<String, String> {
    if labels.len() > MAX_LABELS {
        let problem = format!(
            "has {} labels; at most {MAX_LABELS} are taken",
            labels.len()
        );
        all.add("labels", problem);
    }
    for (key, value) in labels.iter().take(MAX_LABELS) {
        if !is_label_key(key) {
            all.add(
                "labels",
                format!(
                    "the key {} does not match [a-z0-9][a-z0-9._/-]{{0,62}}",
                    shown(key)
                ),
            );
        }
        let chars = value.chars().count();
        if chars > MAX_LABEL_CHARS {
            all.add(
                "labels",
                format!(
                    "the value of {} has {chars} characters; at most {MAX_LABEL_CHARS} are taken",
                    shown(key)
                ),
            );
        }
    }
    labels
}

/// How many items a page has.
pub fn page_size(asked: i32, all: &mut Violations) -> usize {
    match usize::try_from(asked) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => {
            let problem = format!("{asked} is negative; leave it out for {DEFAULT_PAGE}");
            all.add("page_size", problem);
            DEFAULT_PAGE
        }
    }
}

/// A filter by enum values: `name` tells the values that the field may have; the unspecified one,
/// 0, means any.
pub fn states<E: TryFrom<i32> + Copy + PartialEq>(
    asked: &[i32],
    field: &str,
    all: &mut Violations,
) -> Vec<E> {
    let mut wanted = Vec::new();
    for &value in asked {
        match E::try_from(value) {
            Ok(_) if value == 0 => return Vec::new(),
            Ok(state) => wanted.push(state),
            Err(_) => all.add(
                field,
                format!("{value} is no value of this enum; leave it out"),
            ),
        }
    }
    wanted
}

/// The reason of a cancel or of an answer.
pub fn reason(text: &str, all: &mut Violations) -> String {
    let chars = text.chars().count();
    if chars > MAX_REASON_CHARS {
        let problem = format!("has {chars} characters; at most {MAX_REASON_CHARS} are taken");
        all.add("reason", problem);
    }
    text.to_owned()
}

fn is_label_key(key: &str) -> bool {
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let later = |b: u8| first(b) || b"._/-".contains(&b);
    let bytes = key.as_bytes();
    bytes.first().is_some_and(|&b| first(b)) && bytes.len() <= 63 && bytes.iter().all(|&b| later(b))
}
