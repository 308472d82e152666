//! The payloads beside a log: which ones its entries name.
//!
//! Boundary: reads the line alone. Invariant: whatever names a payload is found, in events that this
//! version does not know too, since a name is an object with the members `sha256` and `bytes`.

use std::collections::BTreeMap;

use loopwright_log::{BlobRef, Record, Seq};
use serde_json::Value;

/// Payloads that one request looks after.
pub(crate) const MOST_BLOBS: usize = 65_536;

/// The payloads that the entries of a log name, each with its length and the first entry that does.
#[derive(Debug, Default)]
pub(crate) struct Named(BTreeMap<String, (u64, Seq)>);

/// A log names more than [`MOST_BLOBS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Named {
    /// Takes note of what an entry names; those that no entry before it did.
    pub(crate) fn note(&mut self, record: &Record) -> Result<Vec<BlobRef>, TooMany> {
        let mut news = Vec::new();
        for blob in named(record.line()) {
            if !self.0.contains_key(&blob.sha256) {
                let of = (blob.bytes, record.seq);
                self.0.insert(blob.sha256.clone(), of);
                news.push(blob);
            }
        }
        if self.0.len() > MOST_BLOBS {
            return Err(TooMany);
        }
        Ok(news)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, with the first entry that names each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (BlobRef, Seq)> {
        self.0.iter().map(|(sha256, &(bytes, seq))| {
            let sha256 = sha256.clone();
            (BlobRef { sha256, bytes }, seq)
        })
    }

    /// The length of one, where it is named.
    pub(crate) fn bytes_of(&self, sha256: &str) -> Option<u64> {
        self.0.get(sha256).map(|&(bytes, _)| bytes)
    }
}

fn named(line: &[u8]) -> Vec<BlobRef> {
    let mut found = Vec::new();
    // Nearly all lines name none, and are not parsed for it.
    let may = std::str::from_utf8(line).is_ok_and(|text| text.contains("\"sha256\""));
    if may && let Ok(value) = serde_json::from_slice::<Value>(line) {
        collect(&value, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<BlobRef>) {
    match value {
        Value::Object(members) => {
            if let (Some(Value::String(sha256)), Some(bytes)) = (
                members.get("sha256"),
                members.get("bytes").and_then(Value::as_u64),
            ) {
                let sha256 = sha256.clone();
                let blob = BlobRef { sha256, bytes };
                found.extend(Some(blob).filter(BlobRef::is_well_formed));
            }
            members.values().for_each(|member| collect(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand_and_nothing_else_is() {
        let (one, two) = ("a".repeat(64), "b".repeat(64));
        let line = format!(
            r#"{{"events":[{{"Later":{{"x":[{{"sha256":"{one}","bytes":3}}]}}}},
            {{"sha256":"{two}","bytes":"3"}},{{"sha256":"{two}"}},{{"sha256":"../x","bytes":1}},
            "{{\"sha256\":\"{two}\",\"bytes\":1}}"]}}"#
        );
        let found = named(line.as_bytes());
        assert_eq!(
            found,
            [BlobRef {
                sha256: one,
                bytes: 3
            }]
        );
    }
}
