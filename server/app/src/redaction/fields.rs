//! Fields of tools' arguments that watchers, exports and traces do not get to see.
//!
//! Boundary: one tool's arguments as JSON text. Invariants: what a rule names is replaced by
//! `"[redacted]"` in every copy of it (a name may stand twice in an object), and everything else stays
//! byte for byte; arguments that a rule cannot be followed through are replaced as far up as needed,
//! up to the whole: nothing is shown because it was written otherwise than expected.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use loopwright_core::{
    Entry,
    context::Recap,
    event::{Event, RejectReason},
    message::{CallPart, Part, Parts},
};
use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// What stands in place of a field.
const REDACTED: &str = "\"[redacted]\"";
/// Steps of a rule at most.
const MAX_STEPS: usize = 16;

/// One rule: `TOOL` or `TOOL/JSON/POINTER`, where `*` stands for every item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// The tool's name on the model's wire, `<sidecar>__<tool>`.
    pub tool: String,
    steps: Vec<Step>,
}

/// The rules by tool; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Fields(Option<Arc<BTreeMap<String, Vec<Vec<Step>>>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The member of that name, or the item with that index.
    Name(String),
    /// Every member or item.
    Each,
}

impl FieldRule {
    /// Reads a rule as it is written; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tool, pointer) = match text.find('/') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let (sidecar, name) = tool.split_once("__")?;
        let fine = |part: &str| {
            let mut bytes = part.bytes();
            bytes.next().is_some_and(|b| b.is_ascii_lowercase())
                && bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        };
        if !fine(sidecar) || !fine(name) || name.contains("__") {
            return None;
        }
        let steps = pointer.into_iter().flat_map(|pointer| pointer.split('/'));
        let steps: Vec<Step> = steps.map(step).collect::<Option<_>>()?;
        (steps.len() <= MAX_STEPS).then(|| Self {
            tool: tool.to_owned(),
            steps,
        })
    }
}

impl Fields {
    /// The rules of `tools.redact`; a text that is no rule is none, which the configuration refuses.
    #[must_use]
    pub fn new(rules: &[String]) -> Self {
        let mut by_tool: BTreeMap<String, Vec<Vec<Step>>> = BTreeMap::new();
        for rule in rules.iter().filter_map(|rule| FieldRule::parse(rule)) {
            by_tool.entry(rule.tool).or_default().push(rule.steps);
        }
        Self((!by_tool.is_empty()).then(|| Arc::new(by_tool)))
    }

    /// Whether nothing is ever redacted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether something of the tool's arguments is.
    #[must_use]
    pub fn covers(&self, tool: &str) -> bool {
        self.rules(tool).is_some()
    }

    /// The arguments of a call of `tool` as others may see them. Those that are no JSON are replaced as
    /// a whole where the tool has a rule.
    #[must_use]
    pub fn arguments<'a>(&self, tool: &str, arguments: &'a str) -> Cow<'a, str> {
        let Some(rules) = self.rules(tool) else {
            return Cow::Borrowed(arguments);
        };
        if arguments.trim().is_empty() {
            return Cow::Borrowed(arguments);
        }
        let Ok(raw) = serde_json::from_str::<&RawValue>(arguments) else {
            return Cow::Borrowed(REDACTED);
        };
        let rules: Vec<&[Step]> = rules.iter().map(Vec::as_slice).collect();
        let mut out = String::with_capacity(arguments.len());
        write(raw, &rules, &mut out);
        Cow::Owned(out)
    }

    /// An entry as others may see it; `None` where it is the same.
    #[must_use]
    pub fn entry(&self, entry: &Entry) -> Option<Entry> {
        self.0.as_ref()?;
        let hides = |event: &Event| match event {
            Event::ModelCallCompleted(reply) => reply.parts.iter().any(|part| self.hides(part)),
            Event::ContextCompacted(e) => {
                e.recap.as_deref().is_some_and(|r| self.recap(r).is_some())
            }
            _ => false,
        };
        if !entry.events.iter().any(hides) {
            return None;
        }
        let mut shown = entry.clone();
        // The calls whose arguments have rules, to know their rejections by.
        let (mut calls, mut parts) = (Vec::new(), Parts::default());
        for event in &mut shown.events {
            match event {
                Event::ModelCallCompleted(reply) => {
                    parts = Arc::clone(&reply.parts);
                    reply.parts = Arc::new(parts.iter().map(|part| self.part(part)).collect());
                }
                Event::ToolCallRequested(e) => {
                    let part = parts.get(e.index as usize);
                    calls.extend(part.is_some_and(|part| self.hides(part)).then_some(e.call));
                }
                // It quotes what does not fit.
                Event::ToolCallRejected(e)
                    if e.reason == RejectReason::InvalidArguments && calls.contains(&e.call) =>
                {
                    e.message = "the arguments do not fit the tool's schema".to_owned();
                }
                Event::ContextCompacted(e) => {
                    if let Some(recap) = e.recap.as_deref().and_then(|recap| self.recap(recap)) {
                        e.recap = Some(Arc::new(recap));
                    }
                }
                _ => {}
            }
        }
        Some(shown)
    }

    fn hides(&self, part: &Part) -> bool {
        matches!(part, Part::ToolCall(call) if self.covers(&call.tool))
    }

    /// What is remembered of calls, in one line each, without what stood behind the tool's name.
    fn recap(&self, recap: &Recap) -> Option<Recap> {
        let tool_of = |text: &str| {
            let (name, _) = text.split_once('(')?;
            // The call's handle stands before it.
            let tool = name.split_once(' ').map_or(name, |(_, tool)| tool);
            self.covers(tool).then(|| name.to_owned())
        };
        let mut shown: Option<Recap> = None;
        for (at, item) in recap.items.iter().enumerate() {
            if let Some(name) = tool_of(&item.text) {
                shown.get_or_insert_with(|| recap.clone()).items[at].text =
                    format!("{name}([redacted])");
            }
        }
        shown
    }

    fn part(&self, part: &Part) -> Part {
        match part {
            Part::ToolCall(call) => Part::ToolCall(CallPart {
                arguments: self.arguments(&call.tool, &call.arguments).into_owned(),
                ..call.clone()
            }),
            other => other.clone(),
        }
    }

    fn rules(&self, tool: &str) -> Option<&Vec<Vec<Step>>> {
        self.0.as_ref()?.get(tool)
    }
}

/// One step of a pointer, with its escapes read.
fn step(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::Each);
    }
    let mut name = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '~' => name.push(match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            c if c.is_control() => return None,
            c => name.push(c),
        }
    }
    Some(Step::Name(name))
}

/// Writes the value with what the rules name replaced. Goes as deep as the rules and no deeper.
fn write(raw: &RawValue, rules: &[&[Step]], out: &mut String) {
    if rules.is_empty() {
        return out.push_str(raw.get());
    }
    if rules.iter().any(|rule| rule.is_empty()) {
        return out.push_str(REDACTED);
    }
    match raw.get().as_bytes().first() {
        Some(b'{') => match serde_json::from_str::<Members<'_>>(raw.get()) {
            Ok(Members(members)) => write_object(&members, rules, out),
            Err(_) => out.push_str(REDACTED),
        },
        Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
            Ok(items) => write_array(&items, rules, out),
            Err(_) => out.push_str(REDACTED),
        },
        // What should have been inside cannot be told apart from the whole any more.
        Some(b'"' | b'-' | b'0'..=b'9') => out.push_str(REDACTED),
        _ => out.push_str(raw.get()),
    }
}

fn write_object(members: &[(String, &RawValue)], rules: &[&[Step]], out: &mut String) {
    out.push('{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::to_string(name).expect("a string is JSON"));
        out.push(':');
        let within = below(
            rules,
            |step| matches!(step, Step::Name(asked) if asked == name),
        );
        write(value, &within, out);
    }
    out.push('}');
}

fn write_array(items: &[&RawValue], rules: &[&[Step]], out: &mut String) {
    out.push('[');
    for (at, value) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        // A name that is no index is meant for an object: the list that stands here goes item by item.
        let within = below(rules, |step| match step {
            Step::Name(asked) => asked.parse().map_or(true, |index: usize| index == at),
            Step::Each => true,
        });
        write(value, &within, out);
    }
    out.push(']');
}

/// What is left of the rules whose first step is taken.
fn below<'a>(rules: &[&'a [Step]], takes: impl Fn(&Step) -> bool) -> Vec<&'a [Step]> {
    let rest = |rule: &&'a [Step]| {
        let (first, rest) = rule.split_first()?;
        (*first == Step::Each || takes(first)).then_some(rest)
    };
    rules.iter().filter_map(rest).collect()
}

/// The members of an object in order, those that stand twice included.
pub(super) struct Members<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Visit)
    }
}

struct Visit;

impl<'de> Visitor<'de> for Visit {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests;
