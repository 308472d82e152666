//! Where the server is, who we are, and how long we wait for what.
//!
//! Boundary: turns options into a lazily connected channel; nothing is dialled here.

use std::fmt;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::Error;

/// Where a server listens unless it is told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7070";

/// Where the server is, who we are, and how long we wait for what.
#[derive(Clone)]
pub struct ClientOptions {
    /// `http://host:port` or `unix:/path/to/socket`. Default [`DEFAULT_URL`].
    pub url: String,
    /// Sent as `authorization: Bearer <token>` with every call; visible ASCII. Default none.
    pub token: Option<String>,
    /// Longest wait for one connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to one command, its retries included. Default 30 s.
    pub command_timeout: Duration,
    /// Times that a command is sent again when the server cannot be reached or says UNAVAILABLE; also
    /// the failures in a row after which a stream that never connected gives up. Default 5.
    pub retries: usize,
    /// Longest silence on a stream before it is taken as broken; servers send a heartbeat every 15 s.
    /// Default 45 s.
    pub silence_timeout: Duration,
    /// How long a stream that was connected once tries to come back. Default 5 min.
    pub reconnect_for: Duration,
    /// The wait before the first new try; doubles up to 5 s, with jitter. Default 100 ms.
    pub retry_delay: Duration,
}

/// Adds the credential to every call.
#[derive(Clone)]
pub(crate) struct Credential(Option<MetadataValue<Ascii>>);

impl ClientOptions {
    /// The defaults, with another address.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    /// The channel; it connects when it is first used. Must be called within a tokio runtime.
    pub(crate) fn channel(&self) -> Result<Channel, Error> {
        self.check_url()?;
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|error| self.bad_url(&format!("a valid address ({error})")))?;
        Ok(endpoint
            .user_agent(concat!("loopwright-client/", env!("CARGO_PKG_VERSION")))
            .expect("the user agent is plain ASCII")
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect_lazy())
    }

    pub(crate) fn credential(&self) -> Result<Credential, Error> {
        let Some(token) = &self.token else {
            return Ok(Credential(None));
        };
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}")
                .parse()
                .map_err(|_| Error::Options {
                    field: "token",
                    value: "(not shown)".to_owned(),
                    expected: "visible ASCII characters, without a line break".to_owned(),
                })?;
        value.set_sensitive(true);
        Ok(Credential(Some(value)))
    }

    fn check_url(&self) -> Result<(), Error> {
        let url = self.url.as_str();
        if url.starts_with("https://") {
            return Err(self.bad_url(
                "http:// or unix: (this client speaks no TLS yet; put a TLS proxy on this side)",
            ));
        }
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("unix://"))
            .or_else(|| url.strip_prefix("unix:"));
        match rest {
            Some(rest) if !rest.is_empty() => Ok(()),
            _ => Err(self.bad_url(&format!("such as {DEFAULT_URL} or unix:/path/to/socket"))),
        }
    }

    fn bad_url(&self, expected: &str) -> Error {
        Error::Options {
            field: "url",
            value: self.url.clone(),
            expected: expected.to_owned(),
        }
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            url: DEFAULT_URL.to_owned(),
            token: None,
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(30),
            retries: 5,
            silence_timeout: Duration::from_secs(45),
            reconnect_for: Duration::from_secs(300),
            retry_delay: Duration::from_millis(100),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "(not shown)"))
            .field("connect_timeout", &self.connect_timeout)
            .field("command_timeout", &self.command_timeout)
            .field("retries", &self.retries)
            .field("silence_timeout", &self.silence_timeout)
            .field("reconnect_for", &self.reconnect_for)
            .field("retry_delay", &self.retry_delay)
            .finish()
    }
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}
