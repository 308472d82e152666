//! What can go wrong with a sidecar itself. A failing call is no error here: see `Outcome`.

use std::io;
use std::path::PathBuf;

/// A sidecar or tool that cannot be served as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The sidecar's name breaks a rule.
    #[error("the sidecar name {name:?} cannot be used: {why}")]
    SidecarName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        why: String,
    },
    /// A tool's name breaks a rule.
    #[error("the tool name {name:?} cannot be used: {why}")]
    ToolName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        why: String,
    },
    /// Two tools have one name.
    #[error("two tools are named {0:?}; tool names are unique within a sidecar")]
    DuplicateTool(String),
    /// There is no tool.
    #[error("the sidecar {0:?} has no tools; add one with .tool(Tool::new(..))")]
    NoTools(String),
    /// Something else of a tool cannot be served.
    #[error("the tool {tool:?} cannot be served: {why}")]
    Tool {
        /// The tool.
        tool: String,
        /// What is wrong and what is allowed.
        why: String,
    },
}

/// Why a sidecar could not be served, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The sidecar is not declared well.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file of remembered keys cannot be used.
    #[error("cannot remember calls in {}: {source}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// An option has a value that cannot be used.
    #[error("{option} {value:?} cannot be used: {why}")]
    Option {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong and what is allowed.
        why: String,
    },
    /// The server refused to register the sidecar, and would again.
    #[error("the Loopwright server at {server} refused to register this sidecar: {why}")]
    Refused {
        /// The server's address.
        server: String,
        /// The server's words, and the way out where it is known.
        why: String,
    },
    /// Serving stopped by itself.
    #[error("serving stopped: {0}")]
    Stopped(String),
}

/// Why a sidecar elsewhere could not be called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The address is none.
    #[error(
        "the sidecar address {url:?} cannot be used: {why}; \
         write http://HOST:PORT or unix:/PATH"
    )]
    Address {
        /// The address as it was given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody answers there.
    #[error(
        "no sidecar answers at {url}: {why}; is it running, and is that the address it printed?"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What the system said.
        why: String,
    },
    /// It answered with a gRPC status, or broke the stream off.
    #[error("the sidecar at {url} broke the call off: {why}")]
    Broken {
        /// The address.
        url: String,
        /// Code and message.
        why: String,
    },
}
