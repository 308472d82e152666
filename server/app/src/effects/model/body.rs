//! A request body made of shared pieces.
//!
//! Boundary: bytes to hyper. Invariant: its length is known before the first byte leaves, so that
//! the request carries a content-length, and no piece is copied to send it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// The pieces of a body that are still to be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    pieces: std::collections::VecDeque<Bytes>,
    left: u64,
}

/// The body of a request, to be shown.
#[derive(Clone, Debug)]
pub struct RequestBody {
    /// Who answers for the model: `anthropic`, `openai` or `scripted`.
    pub provider: &'static str,
    pub(super) pieces: Pieces,
}

impl RequestBody {
    /// Its length, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.left
    }

    /// CRC32C of it, 8 hexadecimal digits.
    #[must_use]
    pub fn crc(&self) -> String {
        self.pieces.crc()
    }

    /// Its pieces in order, of any length.
    pub fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        self.pieces.pieces.into_iter()
    }
}

impl Pieces {
    /// Adds a piece at the end.
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.left += piece.len() as u64;
            self.pieces.push_back(piece);
        }
    }

    /// CRC32C of all that is left, 8 hexadecimal digits.
    pub(super) fn crc(&self) -> String {
        let crc = self
            .pieces
            .iter()
            .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        format!("{crc:08x}")
    }

    /// All that is left, in one piece.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.pieces
            .iter()
            .flat_map(|piece| piece.iter().copied())
            .collect()
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces.pop_front();
        if let Some(piece) = &next {
            self.left -= piece.len() as u64;
        }
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
