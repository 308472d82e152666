//! A prompt cache that counts: how much of a request was seen before.
//!
//! A token is four bytes here. Anthropic's keeps prefixes that end at a breakpoint and finds them
//! from one up to 20 blocks later ("Prompt caching", "How automatic prefix checking works"), unless
//! they are too short ("Cache limitations"); OpenAI's finds the longest prefix of any earlier request.

use std::collections::HashSet;

use serde_json::Value;

use super::Protocol;

const BYTES_PER_TOKEN: usize = 4;
/// Blocks that a breakpoint looks back.
const LOOK_BACK: usize = 20;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Prefixes that ended at a breakpoint, without the members that mark them.
    prefixes: HashSet<String>,
    bodies: Vec<Vec<u8>>,
}

/// Tokens of a prompt, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cached {
    pub(super) input: u64,
    pub(super) write: u64,
    pub(super) read: u64,
    /// Whether what is written is kept for an hour.
    pub(super) hour: bool,
}

impl Cache {
    pub(super) fn look(&mut self, protocol: Protocol, request: &Value, body: &[u8]) -> Cached {
        match protocol {
            Protocol::Anthropic => self.blocks(request),
            Protocol::OpenAi => self.prefix(body),
        }
    }

    fn blocks(&mut self, request: &Value) -> Cached {
        let least = least(request);
        let mut hour = false;
        let mut text = String::new();
        // The end of the prefix after each block, and whether the block is a breakpoint.
        let mut ends: Vec<(usize, bool)> = Vec::new();
        for block in blocks(request) {
            let mut plain = block.clone();
            let mark = plain
                .as_object_mut()
                .and_then(|b| b.remove("cache_control"));
            hour |= mark.as_ref().is_some_and(|mark| mark["ttl"] == "1h");
            text.push_str(&plain.to_string());
            let kept = mark.is_some() && tokens(text.len()) >= least;
            ends.push((text.len(), kept));
        }
        let marks: Vec<usize> = (0..ends.len()).filter(|&at| ends[at].1).collect();
        let read = marks
            .iter()
            .flat_map(|&at| at.saturating_sub(LOOK_BACK)..=at)
            .map(|at| ends[at].0)
            .filter(|&end| self.prefixes.contains(&text[..end]))
            .max()
            .unwrap_or(0);
        let written = marks.last().map_or(0, |&at| ends[at].0);
        self.prefixes
            .extend(marks.iter().map(|&at| text[..ends[at].0].to_owned()));
        Cached {
            input: tokens(text.len() - written.max(read)),
            write: tokens(written.saturating_sub(read)),
            read: tokens(read),
            hour,
        }
    }

    fn prefix(&mut self, body: &[u8]) -> Cached {
        let shared = |old: &Vec<u8>| shared_prefix(old, body);
        let read = self.bodies.iter().map(shared).max().unwrap_or(0);
        self.bodies.push(body.to_vec());
        Cached {
            input: tokens(body.len() - read),
            write: 0,
            read: tokens(read),
            hour: false,
        }
    }
}

/// How many bytes two texts begin with alike. By blocks: a rig compares with thousands of requests.
fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 256;
    let alike = |(a, b): &(&[u8], &[u8])| a == b;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK));
    let whole = blocks.take_while(alike).count() * BLOCK;
    let rest = a[whole..].iter().zip(&b[whole..]);
    whole + rest.take_while(|(a, b)| a == b).count()
}

/// Tokens of the shortest prefix that is kept, "Cache limitations".
fn least(request: &Value) -> u64 {
    match request["model"].as_str().unwrap_or_default() {
        id if id.starts_with("claude-haiku-4-5") || id.starts_with("claude-opus-4-6") => 4_096,
        id if id.starts_with("claude-opus-4-7") => 2_048,
        id if id.starts_with("claude-sonnet-4") => 1_024,
        _ => 512,
    }
}

fn tokens(bytes: usize) -> u64 {
    (bytes / BYTES_PER_TOKEN) as u64
}

fn blocks(request: &Value) -> Vec<&Value> {
    let array = |value: &'static str| request[value].as_array().into_iter().flatten();
    let said = array("messages").flat_map(|m| m["content"].as_array().into_iter().flatten());
    array("tools").chain(array("system")).chain(said).collect()
}
