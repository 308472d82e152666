//! References to payloads that are too large for a record, addressed by their content.
//!
//! Boundary: naming and checking only; where the bytes lie is each backend's.

use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::BlobError;

/// Largest payload of one blob: 64 MiB.
pub const MAX_BLOB_BYTES: u64 = 64 * 1024 * 1024;

/// The name of a blob, as records carry it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct BlobRef {
    /// SHA-256 of the payload, 64 lower-case hex digits.
    pub sha256: String,
    /// Size of the payload.
    pub bytes: u64,
}

impl BlobRef {
    /// The reference of a payload.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] above [`MAX_BLOB_BYTES`].
    pub fn of(payload: &[u8]) -> Result<BlobRef, BlobError> {
        let bytes = payload.len() as u64;
        if bytes > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge {
                size: bytes,
                limit: MAX_BLOB_BYTES,
            });
        }
        Ok(BlobRef {
            sha256: hex(&Sha256::digest(payload)),
            bytes,
        })
    }

    /// Whether the name can be a file's: exactly 64 lower-case hex digits. References come from
    /// records, and a record may come from an import.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.sha256.len() == 64
            && self
                .sha256
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    pub(crate) fn check(&self, payload: Bytes) -> Result<Bytes, BlobError> {
        if payload.len() as u64 == self.bytes && hex(&Sha256::digest(&payload)) == self.sha256 {
            Ok(payload)
        } else {
            Err(BlobError::Damaged {
                sha256: self.sha256.clone(),
            })
        }
    }

    pub(crate) fn missing(&self) -> BlobError {
        BlobError::Missing {
            sha256: self.sha256.chars().take(80).collect(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
    }
    text
}
