//! What a sidecar says of its tools, checked before anybody is offered one.
//!
//! Boundary: proto in, [`Described`] out; pure but for the compiled schemas. Invariant: every tool
//! of a [`Described`] has a name that is good on every provider's wire, unique within the sidecar;
//! a tool without `quarantined` has a schema that compiles.

use std::collections::BTreeMap;
use std::time::Duration;

use loopwright_core::agent::{EffectClass, ToolSpec};
use loopwright_core::message::clamp;
use loopwright_proto::v1::{DescribeResponse, EffectClass as Wire, ToolSpec as WireSpec};
use loopwright_proto::well_known;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::{Schemas, sha256_hex};
use crate::config::OnChange;
use crate::effects::tool::read_output::BUILT_IN;

/// Tools of one sidecar.
pub(crate) const MAX_TOOLS: usize = 128;
/// Names, descriptions and schemas of one sidecar, bytes: they are kept in one record.
const MAX_DEFINITIONS: usize = 384 << 10;
/// Characters of a description.
const MAX_DESCRIPTION: usize = 4096;
/// Longest version text, bytes.
const MAX_VERSION: usize = 128;

/// What a sidecar serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Described {
    /// Its version, in its own words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its tools, ordered by name.
    pub tools: Vec<KnownTool>,
}

/// One tool of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownTool {
    /// What a model is offered; its name is the one on the wire.
    pub spec: ToolSpec,
    /// Schema of its structured results; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output_schema: String,
    /// Most calls at a time; 0: no limit.
    #[serde(default)]
    pub max_concurrency: u32,
    /// Whether a cancelled call stops the work.
    #[serde(default)]
    pub cancel: bool,
    /// Whether a running call can be rejoined.
    #[serde(default)]
    pub attach: bool,
    /// Hash of what a model is told and asked for: description and schemas.
    pub fingerprint: String,
    /// Why it is not offered, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Quarantine>,
}

/// Why a tool is known and not offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quarantine {
    /// It cannot be used, for this reason.
    Unusable(String),
    /// It is not what it was when it was first seen.
    Changed,
}

/// The terms on which tools are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Deadline of a call whose tool declares none.
    pub timeout: Duration,
    /// The longest that a call may take.
    pub absolute_cap: Duration,
    /// What follows a change.
    pub on_change: OnChange,
}

impl KnownTool {
    /// Its own name, without the sidecar's.
    pub(crate) fn own_name(&self) -> &str {
        split(&self.spec.name).map_or(&self.spec.name, |(_, tool)| tool)
    }
}

impl Quarantine {
    /// Why, and what to do, for people.
    pub(crate) fn why(&self, sidecar: &str) -> String {
        match self {
            Self::Unusable(why) => why.clone(),
            Self::Changed => format!(
                "its description or schema is not what it was when it was first seen; to accept \
                 it, take sidecar `{sidecar}` out by name (DeregisterSidecar), after which it \
                 registers anew, or set tools.on_change = \"accept\""
            ),
        }
    }
}

/// `<sidecar>__<tool>` in its two parts. A sidecar's name may end in `_`, a tool's begins with a
/// letter, so the last `__` is the one between them.
pub(crate) fn split(wire_name: &str) -> Option<(&str, &str)> {
    wire_name.rsplit_once("__")
}

/// What is wrong with the name of a sidecar.
pub(crate) fn bad_sidecar_name(name: &str) -> Option<&'static str> {
    if name == BUILT_IN {
        return Some("`loopwright` is reserved for built-in tools");
    }
    (!good_name(name, 23)).then_some(
        "a sidecar's name is 1 to 23 characters of a-z, 0-9, '_' and '-', begins with a letter, \
         and has no `__`",
    )
}

/// Reads what `sidecar` says. `first_seen` holds the fingerprints of its tools when they were first
/// offered.
///
/// # Errors
/// What cannot be served at all: no tools, too many, names that are bad or double, or not one
/// usable tool. A tool that alone is at fault is quarantined instead.
pub(crate) fn check(
    sidecar: &str,
    answer: DescribeResponse,
    first_seen: &BTreeMap<String, String>,
    schemas: &Schemas,
    terms: Terms,
) -> Result<Described, String> {
    as_a_whole(&answer)?;
    let read = |wire| read_tool(sidecar, wire, first_seen, schemas, terms);
    let mut tools: Vec<KnownTool> = answer.tools.into_iter().map(read).collect();
    tools.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    if let Some(twice) = tools
        .windows(2)
        .find(|pair| pair[0].spec.name == pair[1].spec.name)
    {
        return Err(format!("it names tool `{}` twice", twice[0].own_name()));
    }
    let version = clamp(&answer.version, MAX_VERSION).to_owned();
    Ok(Described { version, tools })
}

fn as_a_whole(answer: &DescribeResponse) -> Result<(), String> {
    let count = answer.tools.len();
    if count == 0 {
        return Err("it has no tools".to_owned());
    }
    if count > MAX_TOOLS {
        return Err(format!(
            "it has {count} tools, over the limit of {MAX_TOOLS}"
        ));
    }
    if let Some(bad) = answer.tools.iter().find(|tool| !good_name(&tool.name, 38)) {
        return Err(format!(
            "tool name {:?}: expected 1 to 38 characters of a-z, 0-9, '_' and '-' that begin with \
             a letter, without `__`",
            bad.name.chars().take(80).collect::<String>()
        ));
    }
    let bytes =
        |t: &WireSpec| t.description.len() + t.input_schema_json.len() + t.output_schema_json.len();
    let total: usize = answer.tools.iter().map(bytes).sum();
    if total > MAX_DEFINITIONS {
        return Err(format!(
            "its descriptions and schemas are {total} bytes, over the limit of {MAX_DEFINITIONS}"
        ));
    }
    Ok(())
}

fn read_tool(
    sidecar: &str,
    wire: WireSpec,
    first_seen: &BTreeMap<String, String>,
    schemas: &Schemas,
    terms: Terms,
) -> KnownTool {
    let fingerprint = fingerprint(&wire);
    let name = format!("{sidecar}__{}", wire.name);
    let fault = fault(&wire, schemas);
    let changed = first_seen
        .get(&wire.name)
        .is_some_and(|first| *first != fingerprint);
    if fault.is_none() && changed && terms.on_change == OnChange::Accept {
        tracing::warn!(tool = %name, "the tool is not what it was when it was first seen");
    }
    let quarantined = fault.map(Quarantine::Unusable).or_else(|| {
        (changed && terms.on_change == OnChange::Quarantine).then_some(Quarantine::Changed)
    });
    let cap = millis(terms.absolute_cap);
    let declared = wire.timeout.and_then(positive);
    KnownTool {
        spec: ToolSpec {
            name,
            effect: effect(&wire),
            destructive: wire.destructive,
            lookup: wire.supports_lookup,
            timeout_ms: declared.unwrap_or(millis(terms.timeout)).min(cap),
            absolute_cap_ms: cap,
            description: wire.description,
            input_schema: wire.input_schema_json,
        },
        output_schema: wire.output_schema_json,
        max_concurrency: wire.max_concurrency,
        cancel: wire.supports_cancel,
        attach: wire.supports_attach,
        fingerprint,
        quarantined,
    }
}

/// Why this one tool cannot be used.
fn fault(wire: &WireSpec, schemas: &Schemas) -> Option<String> {
    if wire.description.chars().count() > MAX_DESCRIPTION {
        return Some(format!(
            "its description is longer than {MAX_DESCRIPTION} characters"
        ));
    }
    if let Err(problem) = schemas.check(&wire.input_schema_json) {
        return Some(format!("input_schema_json: {problem}"));
    }
    let deduplicated = wire.effect_class == Wire::Deduplicated as i32;
    if deduplicated && wire.retention.and_then(positive).is_none() {
        return Some("effect_class DEDUPLICATED needs a `retention` above zero".to_owned());
    }
    if wire.timeout.is_some() && wire.timeout.and_then(positive).is_none() {
        return Some("`timeout` must be above zero; leave it out for the default".to_owned());
    }
    None
}

/// A class that this version does not know is taken for the one that promises nothing.
fn effect(wire: &WireSpec) -> EffectClass {
    match Wire::try_from(wire.effect_class) {
        Ok(Wire::ReadOnly) => EffectClass::ReadOnly,
        Ok(Wire::Idempotent) => EffectClass::Idempotent,
        Ok(Wire::Deduplicated) => match wire.retention.and_then(positive) {
            Some(retention_ms) => EffectClass::Deduplicated { retention_ms },
            None => EffectClass::AtMostOnce,
        },
        Ok(Wire::AtMostOnce | Wire::Unspecified) | Err(_) => EffectClass::AtMostOnce,
    }
}

fn fingerprint(wire: &WireSpec) -> String {
    let input = canonical(&wire.input_schema_json);
    let output = canonical(&wire.output_schema_json);
    // Lengths keep text from moving over from one part to the next unseen.
    let parts = [&wire.description, &input, &output].map(|part| format!("{}:{part}", part.len()));
    sha256_hex(&parts.concat())
}

/// Schemas that differ in the order of members, or in spaces, are the same schema.
fn canonical(schema: &str) -> String {
    match serde_json::from_str::<Value>(schema) {
        Ok(mut value) => {
            value.sort_all_objects();
            value.to_string()
        }
        Err(_) => schema.to_owned(),
    }
}

fn good_name(name: &str, longest: usize) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.len() <= longest
        && bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        && !name.contains("__")
}

/// Milliseconds of a duration above zero, at least 1.
fn positive(duration: well_known::Duration) -> Option<u64> {
    let duration = Duration::try_from(duration).ok()?;
    (!duration.is_zero()).then(|| millis(duration).max(1))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
