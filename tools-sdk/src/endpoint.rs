//! Addresses to dial: "http://host:port" and "unix:/path", and failures to reach them in words.

use std::error::Error;
use std::time::Duration;

use tonic::Status;
use tonic::transport::Endpoint;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection that calls run on is probed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Reads an address; the error says what is wrong with it.
pub(crate) fn parse(url: &str) -> Result<Endpoint, String> {
    if url.starts_with("https://") {
        return Err("TLS is not supported here yet".to_owned());
    }
    if !url.starts_with("http://") && !url.starts_with("unix:/") {
        return Err("it begins neither with http:// nor with unix:/".to_owned());
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| root_cause(&error))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .tcp_nodelay(true))
}

/// The innermost cause, which is what a person can act on.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A status in words: the cause of a broken connection, or code and message.
pub(crate) fn status_words(status: &Status) -> String {
    if status.source().is_some() {
        return root_cause(status);
    }
    match status.message() {
        "" => status.code().to_string(),
        message => format!("{message} ({:?})", status.code()),
    }
}
