//! The declaration of a sidecar, and the test harness: a tool called in the process, without a server.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use loopwright_proto::v1;
use serde_json::Value;

use crate::answer::Outcome;
use crate::error::DefinitionError;
use crate::listen::Listen;
use crate::tool::Tool;
use crate::toolbox::Toolbox;

/// The server that a sidecar registers with where nothing else is said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";
/// The environment variable that names the server.
const SERVER_VARIABLE: &str = "LOOPWRIGHT_SERVER";
/// The environment variable that holds the server's token.
const TOKEN_VARIABLE: &str = "LOOPWRIGHT_TOKEN";
/// How long running calls may go on at shutdown.
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Takes one line for a person.
pub(crate) type Notices = Arc<dyn Fn(&str) + Send + Sync>;

/// A process that serves tools. Declared by chaining; checked when it is first called or served.
#[derive(Clone)]
pub struct Sidecar {
    name: String,
    tools: Vec<Tool>,
    pub(crate) version: String,
    pub(crate) options: Options,
    toolbox: OnceLock<Arc<Toolbox>>,
    calls: Arc<AtomicU64>,
}

/// How a sidecar is served.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) listen: Listen,
    pub(crate) allow_remote: bool,
    pub(crate) advertise: Option<String>,
    pub(crate) server: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) drain: Duration,
    pub(crate) keyfile: Option<PathBuf>,
    pub(crate) notices: Notices,
}

impl Sidecar {
    /// A sidecar of this name, `[a-z][a-z0-9_-]{0,22}` without `__`; "loopwright" is reserved. It will
    /// listen on a free loopback port and register with the server of `LOOPWRIGHT_SERVER`, or
    /// `http://127.0.0.1:7070`, showing the token of `LOOPWRIGHT_TOKEN` where that is set.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let set = |variable| {
            std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())
        };
        Self {
            name: name.into(),
            tools: Vec::new(),
            version: String::new(),
            options: Options {
                listen: Listen::default(),
                allow_remote: false,
                advertise: None,
                server: Some(set(SERVER_VARIABLE).unwrap_or_else(|| DEFAULT_SERVER.to_owned())),
                token: set(TOKEN_VARIABLE),
                labels: BTreeMap::new(),
                drain: DEFAULT_DRAIN,
                keyfile: None,
                notices: Arc::new(to_stderr),
            },
            toolbox: OnceLock::new(),
            calls: Arc::default(),
        }
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self.toolbox = OnceLock::new();
        self
    }

    /// The version that the sidecar tells of itself, for people.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Where to listen; a free loopback port by default.
    #[must_use]
    pub fn listen(mut self, listen: Listen) -> Self {
        self.options.listen = listen;
        self
    }

    /// Allows an address beyond loopback. A sidecar asks its callers for no credential: whoever reaches
    /// the address can run its tools.
    #[must_use]
    pub fn allow_remote_callers(mut self) -> Self {
        self.options.allow_remote = true;
        self
    }

    /// The endpoint to register, where the server reaches the sidecar by another address than the one it
    /// listens on: "http://host:port" or "unix:/path".
    #[must_use]
    pub fn advertise(mut self, endpoint: impl Into<String>) -> Self {
        self.options.advertise = Some(endpoint.into());
        self
    }

    /// The Loopwright server to register with: "http://host:port" or "unix:/path".
    #[must_use]
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.options.server = Some(url.into());
        self
    }

    /// Serves without registering anywhere.
    #[must_use]
    pub fn without_server(mut self) -> Self {
        self.options.server = None;
        self
    }

    /// The token to show to the server, as `authorization: Bearer`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options.token = Some(token.into());
        self
    }

    /// Adds a label to find the sidecar by.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.labels.insert(key.into(), value.into());
        self
    }

    /// How long running calls may go on at shutdown before they are told to stop; 5 s by default.
    #[must_use]
    pub fn drain(mut self, time: Duration) -> Self {
        self.options.drain = time;
        self
    }

    /// Remembers calls of deduplicated and at-most-once tools in this file too, so that a restart forgets
    /// none. A deduplicated call that the sidecar's end interrupted is then answered with an error result
    /// that says so, and not run again; of an at-most-once call the server is told that its outcome is not
    /// known. With a file, and only with one, can a restarted sidecar say of a call that it never started:
    /// the name by which servers know what it remembers (its instance) is kept in the file.
    /// Each such call costs two synced writes. The file, and a lock beside it, are made when the first such
    /// call comes; one serving sidecar a file. Used when served, not by [`Self::call`].
    #[must_use]
    pub fn remember_in(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.keyfile = Some(path.into());
        self
    }

    /// Where the few lines for a person go (serving, waiting, registered); to stderr by default.
    #[must_use]
    pub fn notices(mut self, notice: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.options.notices = Arc::new(notice);
        self
    }

    /// The sidecar's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks names, descriptions, schemas and limits, as `call` and `serve` do before anything else.
    pub fn check(&self) -> Result<(), DefinitionError> {
        self.toolbox().map(|_| ())
    }

    /// Calls a tool in this process, as a server would but without one: for tests of tools. Each call has
    /// a key of its own; see [`Self::call_keyed`]. Needs a tokio runtime.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome, DefinitionError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.call_keyed(tool, arguments, &format!("local/test/c{number}"))
            .await
    }

    /// Calls a tool under a key: for tests of deduplicated tools.
    pub async fn call_keyed(
        &self,
        tool: &str,
        arguments: Value,
        key: &str,
    ) -> Result<Outcome, DefinitionError> {
        let request = v1::CallToolRequest {
            session_id: "test".to_owned(),
            call: key.rsplit('/').next().unwrap_or_default().to_owned(),
            key: key.to_owned(),
            attempt: 1,
            epoch: 1,
            tool: tool.to_owned(),
            arguments_json: arguments.to_string(),
            ..v1::CallToolRequest::default()
        };
        let lost = || Outcome::failed("The call was lost: its runtime went down.");
        match self.toolbox()?.begin(request, None, None) {
            Ok(listener) => Ok(listener.outcome().await.unwrap_or_else(lost)),
            Err(refused) => Ok(refused),
        }
    }

    pub(crate) fn toolbox(&self) -> Result<Arc<Toolbox>, DefinitionError> {
        if let Some(toolbox) = self.toolbox.get() {
            return Ok(Arc::clone(toolbox));
        }
        let checked = Arc::new(Toolbox::check(&self.name, &self.tools)?);
        Ok(Arc::clone(self.toolbox.get_or_init(|| checked)))
    }
}

impl fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No options: they hold the token.
        f.debug_struct("Sidecar")
            .field("name", &self.name)
            .field("tools", &self.tools)
            .finish_non_exhaustive()
    }
}

fn to_stderr(line: &str) {
    use std::io::Write as _;
    // Nobody to tell it to where stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
