//! The lines of an export that are not records: payloads in pieces, and the last line.
//!
//! ```text
//! {"v":1,"stream":"session/..","seq":1,..,"prev":"..","crc":".."}     the log's own, as stored
//! {"v":1,"blob":SHA256,"bytes":SIZE,"offset":OFFSET,"base64":".."}    a piece of a payload
//! {"v":1,"blob":SHA256,"bytes":SIZE,"missing":true}                   a payload that is lost
//! {"v":1,"export":"session/..","tail_seq":SEQ,"blobs":N}              the export is whole
//! ```
//!
//! Invariant: no line is longer than [`MOST_LINE`].

use base64::{Engine as _, engine::general_purpose::STANDARD};
use loopwright_log::{BlobRef, Seq};
use serde::{Deserialize, Serialize};

/// Longest line of an export, without its newline.
pub(crate) const MOST_LINE: usize = 1 << 20;
/// Bytes of a payload in one line; with base64 and the names it stays below [`MOST_LINE`].
const PIECE: usize = 512 << 10;
/// The version that these lines have.
const VERSION: u32 = 1;

/// A piece of a payload, or word that it is lost.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobLine {
    v: u32,
    /// SHA-256 of the whole payload.
    pub(crate) blob: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Where this piece begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// True where there is no payload any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) missing: bool,
}

/// The last line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndLine {
    v: u32,
    /// The session's stream.
    pub(crate) export: String,
    /// The last record.
    pub(crate) tail_seq: Seq,
    /// Payloads, those that are missing included.
    pub(crate) blobs: u64,
    /// Whether arguments of tools were left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) redacted: bool,
}

/// What a line of an import is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A record, still to be checked.
    Record,
    /// A piece of a payload.
    Blob(BlobLine),
    /// The end.
    End(EndLine),
}

impl Line {
    /// Tells what a line is.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let parsed = |kind: &str, error: serde_json::Error| {
            format!("it begins as {kind} of an export and cannot be read as one: {error}")
        };
        let version = |v: u32| {
            let newer = format!("it has version {v}, this release reads version {VERSION}");
            (v == VERSION).then_some(()).ok_or(newer)
        };
        if line.starts_with(b"{\"v\":1,\"blob\":") {
            let blob: BlobLine =
                serde_json::from_slice(line).map_err(|e| parsed("a payload", e))?;
            return version(blob.v).map(|()| Self::Blob(blob));
        }
        if line.starts_with(b"{\"v\":1,\"export\":") {
            let end: EndLine = serde_json::from_slice(line).map_err(|e| parsed("the end", e))?;
            return version(end.v).map(|()| Self::End(end));
        }
        if line.starts_with(b"{\"v\":") {
            return Ok(Self::Record);
        }
        Err("it is neither a record of a log nor a line of an export".to_owned())
    }
}

impl BlobLine {
    /// The lines of a payload.
    pub(crate) fn of<'a>(blob: &'a BlobRef, payload: &'a [u8]) -> impl Iterator<Item = Self> + 'a {
        // An empty payload has one piece all the same.
        let pieces = payload.len().div_ceil(PIECE).max(1);
        (0..pieces).map(move |at| {
            let start = at * PIECE;
            let piece = &payload[start..payload.len().min(start + PIECE)];
            Self {
                v: VERSION,
                blob: blob.sha256.clone(),
                bytes: blob.bytes,
                offset: Some(start as u64),
                base64: Some(STANDARD.encode(piece)),
                missing: false,
            }
        })
    }

    /// The line of a payload that is lost.
    pub(crate) fn missing(blob: BlobRef) -> Self {
        Self {
            v: VERSION,
            blob: blob.sha256,
            bytes: blob.bytes,
            offset: None,
            base64: None,
            missing: true,
        }
    }

    /// The bytes of the piece.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn piece(&self) -> Result<Vec<u8>, String> {
        let text = self.base64.as_deref();
        let text = text.ok_or_else(|| "it has no member base64".to_owned())?;
        STANDARD
            .decode(text)
            .map_err(|error| format!("its base64 cannot be read: {error}"))
    }
}

impl EndLine {
    /// The last line of an export.
    pub(crate) fn new(export: &str, tail_seq: Seq, blobs: u64, redacted: bool) -> Self {
        Self {
            v: VERSION,
            export: export.to_owned(),
            tail_seq,
            blobs,
            redacted,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_payload_comes_back_from_its_lines_and_no_line_is_too_long() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let payload: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
            let blob = BlobRef::of(&payload).unwrap();
            let mut back = Vec::new();
            for piece in BlobLine::of(&blob, &payload) {
                let line = serde_json::to_vec(&piece).unwrap();
                assert!(line.len() <= MOST_LINE, "{}", line.len());
                let Line::Blob(read) = Line::parse(&line).unwrap() else {
                    panic!("no payload");
                };
                assert_eq!(read.offset, Some(back.len() as u64));
                back.extend(read.piece().unwrap());
            }
            assert_eq!(back, payload);
        }
    }

    #[test]
    fn lines_are_told_apart() {
        let end = EndLine::new("session/default/s", 7, 2, false);
        let text = serde_json::to_string(&end).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"export":"session/default/s","tail_seq":7,"blobs":2}"#
        );
        assert_eq!(Line::parse(text.as_bytes()), Ok(Line::End(end)));
        assert_eq!(Line::parse(b"{\"v\":1,\"stream\":\"x\""), Ok(Line::Record));
        for bad in ["", "hello", "{}", "[1]", r#"{"v":1,"blob":7}"#, "\u{0}"] {
            assert!(Line::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
