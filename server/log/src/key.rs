//! Names of streams, parsed once: what holds a [`StreamKey`] can be put in a path or a subject.
//!
//! Invariant: no value of these types contains a separator, a dot, a capital or a control character.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// Longest id, in bytes.
const MAX_ID_BYTES: usize = 63;

/// A namespace or the id of a session, loop or budget: `[a-z0-9][a-z0-9_-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Arc<str>);

/// A text that is not an [`Id`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an id: 1 to 63 characters of a-z, 0-9, '_' and '-' that begin with a letter or a digit"
)]
pub struct InvalidId {
    /// What was given, cut to 80 characters.
    pub text: String,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// One conversation.
    Session,
    /// The budgets of a namespace.
    Ledger,
    /// Sidecar registrations.
    Registry,
    /// What the log has to say of itself.
    Log,
}

/// The name of one stream; displayed, and written in records, as `session/NAMESPACE/ID`.
#[derive(Clone)]
pub struct StreamKey {
    text: Arc<str>,
    kind: StreamKind,
    namespace_len: u8,
}

/// Which keys to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyQuery {
    /// Only this namespace; `None`: all.
    pub namespace: Option<Id>,
    /// Only this kind.
    pub kind: StreamKind,
    /// Only keys after this one.
    pub after: Option<StreamKey>,
    /// At most this many; 0 lists nothing.
    pub limit: usize,
}

/// One page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// In the order of (namespace, id).
    pub keys: Vec<StreamKey>,
    /// The bytes of all acknowledged records of each of them, as the log stores them; of a damaged
    /// stream, all bytes that there are. It changes with every append.
    pub sizes: Vec<u64>,
    /// Whether keys follow after the last one.
    pub more: bool,
}

impl Id {
    /// Parses an id.
    ///
    /// # Errors
    /// [`InvalidId`] for any other text.
    pub fn parse(text: &str) -> Result<Id, InvalidId> {
        let bytes = text.as_bytes();
        let good = !bytes.is_empty()
            && bytes.len() <= MAX_ID_BYTES
            && !matches!(bytes[0], b'_' | b'-')
            && bytes
                .iter()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if good {
            Ok(Id(text.into()))
        } else {
            Err(InvalidId {
                text: text.chars().take(80).collect(),
            })
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Id, InvalidId> {
        Id::parse(text)
    }
}

impl StreamKind {
    /// Every kind.
    pub const ALL: [StreamKind; 4] = [
        StreamKind::Session,
        StreamKind::Ledger,
        StreamKind::Registry,
        StreamKind::Log,
    ];

    /// The kind's word in keys and paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            StreamKind::Session => "session",
            StreamKind::Ledger => "ledger",
            StreamKind::Registry => "registry",
            StreamKind::Log => "log",
        }
    }

    fn parse(text: &str) -> Option<StreamKind> {
        StreamKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

impl StreamKey {
    /// Names a stream.
    #[must_use]
    pub fn new(kind: StreamKind, namespace: &Id, id: &Id) -> StreamKey {
        let text = format!("{}/{namespace}/{id}", kind.as_str()).into();
        let namespace_len = u8::try_from(namespace.0.len()).expect("an id has at most 63 bytes");
        StreamKey {
            text,
            kind,
            namespace_len,
        }
    }

    /// Names the stream of a session.
    #[must_use]
    pub fn session(namespace: &Id, id: &Id) -> StreamKey {
        StreamKey::new(StreamKind::Session, namespace, id)
    }

    /// Parses what `Display` writes.
    ///
    /// # Errors
    /// [`InvalidId`] with the part that is wrong.
    pub fn parse(text: &str) -> Result<StreamKey, InvalidId> {
        let whole = || InvalidId {
            text: text.chars().take(80).collect(),
        };
        let mut parts = text.splitn(3, '/');
        let kind = parts.next().and_then(StreamKind::parse).ok_or_else(whole)?;
        let namespace = Id::parse(parts.next().ok_or_else(whole)?)?;
        let id = Id::parse(parts.next().ok_or_else(whole)?)?;
        Ok(StreamKey::new(kind, &namespace, &id))
    }

    /// What the stream is for.
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// The tenant that owns it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        let start = self.kind.as_str().len() + 1;
        &self.text[start..start + usize::from(self.namespace_len)]
    }

    /// Its id within the namespace and kind.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.text[self.kind.as_str().len() + usize::from(self.namespace_len) + 2..]
    }

    /// `session/NAMESPACE/ID`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for StreamKey {
    fn eq(&self, other: &StreamKey) -> bool {
        self.text == other.text
    }
}

impl Eq for StreamKey {}

impl Hash for StreamKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for StreamKey {
    fn partial_cmp(&self, other: &StreamKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StreamKey {
    fn cmp(&self, other: &StreamKey) -> Ordering {
        (self.kind, self.namespace(), self.id()).cmp(&(other.kind, other.namespace(), other.id()))
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
