//! The parser of events for the fuzz targets.

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};

use super::sse::Events;

/// Name and text of each event of a body that comes in these chunks, and whether it broke after them.
pub(crate) fn events(chunks: &[&[u8]]) -> (Vec<(String, String)>, bool) {
    let chunks = chunks.iter().map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
    let body: Vec<Result<Bytes, std::io::Error>> = chunks.collect();
    let mut events = Events::new(stream::iter(body));
    let mut all = Vec::new();
    loop {
        match events.next().now_or_never() {
            Some(Ok(Some(event))) => all.push((event.event, event.data)),
            Some(Ok(None)) => return (all, false),
            Some(Err(_)) => return (all, true),
            None => unreachable!("a body that is there never waits"),
        }
    }
}
