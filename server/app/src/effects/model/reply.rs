//! What bounds a reply, whoever sends it.
//!
//! Invariant: a reply that passes [`check_size`] fits into one record of the log together with all
//! that core writes down beside it.

use loopwright_core::{
    message::{Part, clamp, text_of},
    outcome::ModelFailureKind,
};
use loopwright_log::MAX_RECORD_BYTES;

use super::failure::Fault;

/// Blocks, or tool calls, in one reply.
pub(super) const MAX_BLOCKS: usize = 512;
/// Tool calls in one reply: each takes part in the entry with its request, its start or refusal.
const MAX_CALLS: usize = 128;
/// Room in the entry for one tool call, beside its arguments.
const CALL_BYTES: usize = 1024;
/// Room in the entry for everything else.
const ENTRY_BYTES: usize = 16 * 1024;
/// What core keeps of the text when the loop ends.
const RESULT_BYTES: usize = 64 * 1024;

/// Counts the bytes of a reply while it comes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    taken: usize,
}

impl Meter {
    /// Counts `bytes` more of content; the reply is given up as soon as it cannot fit any more.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > MAX_RECORD_BYTES {
            return Err(too_large(self.taken));
        }
        Ok(())
    }
}

/// Whether the reply fits into an entry, as the log will write it.
pub(super) fn check_size(parts: &[Part]) -> Result<(), Fault> {
    let calls = parts
        .iter()
        .filter(|part| matches!(part, Part::ToolCall(_)))
        .count();
    if calls > MAX_CALLS {
        let text = format!("the reply asks for {calls} tools; at most {MAX_CALLS} are taken");
        return Err(Fault::new(ModelFailureKind::TooLarge, text));
    }
    let text = text_of(parts);
    let bytes = written(parts)
        .saturating_add(written(clamp(&text, RESULT_BYTES)))
        .saturating_add(calls * CALL_BYTES + ENTRY_BYTES);
    if bytes > MAX_RECORD_BYTES {
        return Err(too_large(bytes));
    }
    Ok(())
}

/// A fault for a stream that does not follow its protocol.
pub(super) fn malformed(what: &str) -> Fault {
    Fault::new(
        ModelFailureKind::Malformed,
        format!("the reply is malformed: {what}"),
    )
}

/// A fault for a reply of so many bytes.
pub(super) fn too_large(bytes: usize) -> Fault {
    let text = format!(
        "the reply takes {bytes} bytes or more; {MAX_RECORD_BYTES} fit into one entry of the log; \
         lower loop.max_output_tokens"
    );
    Fault::new(ModelFailureKind::TooLarge, text)
}

/// Bytes of a value's JSON text.
fn written<T: serde::Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}
