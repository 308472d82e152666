//! What the mock says to a request.

use serde_json::Value;

/// An answer to one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A reply, streamed in the protocol of the request.
    Reply(Reply),
    /// These bytes as an event stream.
    Raw {
        /// How they are sent.
        shape: Shape,
        /// The bytes.
        body: Vec<u8>,
    },
    /// Another status than 200.
    Status {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
}

/// A reply of a model.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// What it thinks, with the signature that Anthropic's protocol carries.
    pub thinking: Option<(String, String)>,
    /// What it says.
    pub text: String,
    /// A block of a kind that no client knows; Anthropic only.
    pub block: Option<Value>,
    /// The tools that it asks for.
    pub calls: Vec<MockCall>,
    /// Why it stops, in the protocol's word; by default as fits the calls.
    pub stop: Option<String>,
    /// What is counted; by default what a cache that works would count.
    pub usage: Option<Usage>,
    /// An error event instead of the end, as JSON text of the event.
    pub error: Option<String>,
    /// How it is sent.
    pub shape: Shape,
}

/// A tool call of a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MockCall {
    /// The provider's id.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments, as text.
    pub arguments: String,
    /// Further members of the call, a JSON object; OpenAI only.
    pub own: Option<Value>,
}

/// Counters as the protocols have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens outside of the cache.
    pub input: u64,
    /// Generated tokens.
    pub output: u64,
    /// Prompt tokens written to the cache.
    pub cache_write: u64,
    /// Prompt tokens read from the cache.
    pub cache_read: u64,
    /// Of those written, what is kept for an hour.
    pub cache_write_1h: u64,
    /// Whether counters that are 0 are sent as null.
    pub nulls: bool,
    /// Whether no usage is sent at all.
    pub absent: bool,
}

/// How a stream is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes in one write; absent: all in one.
    pub piece: Option<usize>,
    /// The connection breaks after so many bytes.
    pub cut: Option<usize>,
    /// The body ends after so many bytes, as if it were whole.
    pub end: Option<usize>,
    /// Nothing more comes after so many bytes.
    pub stall: Option<usize>,
    /// Nothing more comes from the last place of this text on.
    pub stall_before: Option<&'static str>,
}

impl Reply {
    /// A reply that says something.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// A reply that asks for tools, by name and arguments.
    #[must_use]
    pub fn calls<'a>(calls: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let call = |(at, (name, arguments)): (usize, (&str, &str))| MockCall {
            id: format!("toolu_{at}"),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            own: None,
        };
        Self {
            calls: calls.into_iter().enumerate().map(call).collect(),
            ..Self::default()
        }
    }

    /// The same, said to stop for this reason.
    #[must_use]
    pub fn stop(mut self, word: &str) -> Self {
        self.stop = Some(word.to_owned());
        self
    }

    /// The same, with these counters.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// The same, in writes of so many bytes.
    #[must_use]
    pub fn in_pieces(mut self, bytes: usize) -> Self {
        self.shape.piece = Some(bytes);
        self
    }

    /// The same, but the connection breaks after so many bytes.
    #[must_use]
    pub fn cut_at(mut self, bytes: usize) -> Self {
        self.shape.cut = Some(bytes);
        self
    }

    /// The same, but the body ends after so many bytes.
    #[must_use]
    pub fn end_at(mut self, bytes: usize) -> Self {
        self.shape.end = Some(bytes);
        self
    }

    /// The same, but for its end: that it stopped, and why, is never said.
    #[must_use]
    pub fn without_end(mut self) -> Self {
        self.shape.stall_before = Some("\"finish_reason\":\"");
        self
    }

    /// The same, but nothing more comes after so many bytes.
    #[must_use]
    pub fn stall_at(mut self, bytes: usize) -> Self {
        self.shape.stall = Some(bytes);
        self
    }
}

impl Answer {
    /// A refusal with this status and body.
    #[must_use]
    pub fn status(status: u16, body: &str) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self::Status {
            status,
            headers,
            body: body.to_owned(),
        }
    }

    /// The same with one more header. Does nothing to a reply.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Status { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }

    /// These bytes as an event stream.
    #[must_use]
    pub fn raw(body: impl Into<Vec<u8>>) -> Self {
        Self::Raw {
            shape: Shape::default(),
            body: body.into(),
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}
