//! What was said, rendered: the bytes of every turn, kept from one call to the next.
//!
//! Boundary: turns in, the pieces of a request body out; the protocols say how a turn is written.
//! Invariant: a cache. An empty transcript gives the same bytes as one that saw every step. What is
//! new is rendered, what was rendered is never touched again, so the body up to the end of the
//! messages of one call is a prefix of the next one's, `cache_control` members left aside. A note of
//! one call stands behind all messages and their breakpoints, and in no other call.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use loopwright_core::{
    agent::{Agent, ToolSet},
    message::Part,
    prompt::ModelRequest,
    state::{Conversation, Turn},
};

use super::{body::Pieces, protocol::Protocol};

/// Turns joined to one piece at a time, once no breakpoint can fall on them any more.
const SETTLE_AT: usize = 16;
/// Pieces below this are joined with what follows, bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The rendered turns of one session, by protocol.
#[derive(Debug, Default)]
pub struct Transcript {
    anthropic: Rendering,
    openai: Rendering,
}

/// The part of a body before its messages, and where a `cache_control` member may be put into it.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) bytes: Bytes,
    pub(super) marks: Vec<usize>,
}

/// What a body is made from, beside the conversation.
pub(super) struct Ask<'a> {
    pub(super) protocol: Protocol,
    /// The model's name at the provider.
    pub(super) id: &'a str,
    pub(super) request: &'a ModelRequest,
    /// How to ask the provider to keep prefixes; absent where it is not to be asked.
    pub(super) cache: Option<Breakpoints>,
    /// The part of the body behind its messages.
    pub(super) tail: Vec<u8>,
}

/// What marks the end of a prefix that the provider is to keep, and which ones are worth a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Breakpoints {
    /// The `cache_control` member, with its leading comma.
    pub(super) member: &'static str,
    /// The shortest prefix that the provider keeps, bytes of the body; a shorter one is not marked.
    pub(super) least_bytes: usize,
}

/// A body while it is put together.
struct Assembly {
    pieces: Pieces,
    /// Bytes so far, without the members that mark breakpoints.
    plain: usize,
    cache: Option<Breakpoints>,
}

#[derive(Debug, Default)]
struct Rendering {
    head: Option<(HeadKey, Head)>,
    seen: Option<Seen>,
    settled: Vec<Bytes>,
    recent: VecDeque<Rendered>,
}

#[derive(Debug)]
struct HeadKey {
    id: String,
    agent: Arc<Agent>,
    tools: Arc<ToolSet>,
}

/// How far the conversation was rendered.
#[derive(Debug)]
struct Seen {
    turns: usize,
    bytes: u64,
    last: Arc<Turn>,
}

/// One turn: a comma and its messages, or nothing where it says nothing.
#[derive(Debug)]
struct Rendered {
    bytes: Bytes,
    assistant: bool,
}

impl Transcript {
    /// The body of a request.
    pub(super) fn body(&mut self, ask: Ask<'_>) -> Result<Pieces, String> {
        let rendering = match ask.protocol {
            Protocol::Anthropic => &mut self.anthropic,
            Protocol::OpenAi => &mut self.openai,
        };
        rendering.extend(ask.protocol, &ask.request.conversation);
        let head = rendering.head(&ask)?;
        rendering.pieces(&head, ask)
    }
}

impl Rendering {
    fn extend(&mut self, protocol: Protocol, conversation: &Conversation) {
        let fresh = self.unseen(conversation);
        for turn in &fresh {
            let mut bytes = Vec::new();
            protocol.turn(&mut bytes, turn);
            let assistant = matches!(**turn, Turn::Assistant { .. });
            self.recent.push_back(Rendered {
                bytes: bytes.into(),
                assistant,
            });
        }
        if let Some(last) = conversation.last() {
            self.seen = Some(Seen {
                turns: conversation.len(),
                bytes: conversation.bytes(),
                last: Arc::clone(last),
            });
        }
        self.settle();
    }

    /// The turns that follow what was rendered; all of them, from the start, where the conversation
    /// is not the one that was rendered with more at its end.
    fn unseen(&mut self, conversation: &Conversation) -> Vec<Arc<Turn>> {
        if let Some(seen) = self
            .seen
            .take()
            .filter(|seen| seen.turns <= conversation.len())
        {
            let mut turns = conversation.since(seen.turns - 1);
            let fresh = turns.split_off(1);
            let added: u64 = fresh.iter().map(|turn| turn.bytes()).sum();
            let same = turns
                .first()
                .is_some_and(|turn| Arc::ptr_eq(turn, &seen.last));
            if same && seen.bytes.saturating_add(added) == conversation.bytes() {
                return fresh;
            }
        }
        self.settled.clear();
        self.recent.clear();
        conversation.turns()
    }

    /// Joins the turns before the older breakpoint, which only ever moves on.
    fn settle(&mut self) {
        let Some(before) = self.breakpoints().1.filter(|&at| at >= SETTLE_AT) else {
            return;
        };
        let small = self
            .settled
            .last()
            .is_some_and(|piece| piece.len() < PIECE_BYTES);
        let mut joined = Vec::new();
        if small && let Some(piece) = self.settled.pop() {
            joined.extend_from_slice(&piece);
        }
        for turn in self.recent.drain(..before) {
            joined.extend_from_slice(&turn.bytes);
        }
        self.settled.push(joined.into());
    }

    /// Where the rolling breakpoints fall among the recent turns: on the last turn that is not the
    /// model's, and on the one that was last in the call before, whose prefix the provider keeps.
    fn breakpoints(&self) -> (Option<usize>, Option<usize>) {
        let user = |turn: &Rendered| !turn.assistant && !turn.bytes.is_empty();
        let last = self.recent.iter().rposition(user);
        let said = self.recent.iter().rposition(|turn| turn.assistant);
        let before = said.and_then(|said| self.recent.iter().take(said).rposition(user));
        (last, before)
    }

    fn head(&mut self, ask: &Ask<'_>) -> Result<Head, String> {
        let request = ask.request;
        if let Some((key, head)) = &self.head
            && key.id == ask.id
            && Arc::ptr_eq(&key.agent, &request.agent)
            && Arc::ptr_eq(&key.tools, &request.tools)
        {
            return Ok(head.clone());
        }
        let head = ask.protocol.head(ask.id, request)?;
        let key = HeadKey {
            id: ask.id.to_owned(),
            agent: Arc::clone(&request.agent),
            tools: Arc::clone(&request.tools),
        };
        self.head = Some((key, head.clone()));
        Ok(head)
    }

    fn pieces(&self, head: &Head, ask: Ask<'_>) -> Result<Pieces, String> {
        let mut body = Assembly {
            pieces: Pieces::default(),
            plain: 0,
            cache: ask.cache,
        };
        body.push(&head.bytes, &head.marks);
        let mut first = head.bytes.ends_with(b"[");
        let mut said = false;
        // A turn begins with a comma; the first element of the array has none before it.
        let mut trim = |bytes: &Bytes| {
            if bytes.is_empty() {
                return bytes.clone();
            }
            said = true;
            bytes.slice(usize::from(std::mem::take(&mut first))..)
        };
        for piece in &self.settled {
            body.push(&trim(piece), &[]);
        }
        let (last, before) = self.breakpoints();
        for (at, turn) in self.recent.iter().enumerate() {
            let bytes = trim(&turn.bytes);
            let marked = Some(at) == last || Some(at) == before;
            let mark = ask.protocol.mark(&bytes).filter(|_| marked);
            body.push(&bytes, mark.as_slice());
        }
        if !said {
            return Err("there is nothing to send: every message is blank".to_owned());
        }
        if let Some(note) = &ask.request.note {
            let mut bytes = Vec::new();
            let parts = Arc::new(vec![Part::Text(note.clone())]);
            ask.protocol.turn(&mut bytes, &Turn::User(parts));
            body.push(&bytes.into(), &[]);
        }
        body.push(&ask.tail.into(), &[]);
        Ok(body.pieces)
    }
}

impl Assembly {
    /// Adds bytes, and the member at those of their `marks` whose prefix is long enough to be kept.
    fn push(&mut self, bytes: &Bytes, marks: &[usize]) {
        let mut from = 0;
        if let Some(cache) = self.cache {
            for &mark in marks {
                if self.plain + mark < cache.least_bytes {
                    continue;
                }
                self.pieces.push(bytes.slice(from..mark));
                self.pieces
                    .push(Bytes::from_static(cache.member.as_bytes()));
                from = mark;
            }
        }
        self.pieces.push(bytes.slice(from..));
        self.plain += bytes.len();
    }
}
