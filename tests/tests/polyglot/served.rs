//! A server with scripted models, and programs in other languages beside it.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use loopwright_tests::kit::{self, Server};

/// One step with a tool of the sidecar `words`, then the answer that its result gives.
const COUNTS: &str = r#"
- text: I count.
  tool_calls:
    - {tool: words__count, arguments: {text: "a fish is a fish"}}
- text: "{{last_result}} Done."
"#;
/// Says nothing for a minute.
const SLOW: &str = "- {text: late, delay_ms: 60000}\n";
/// Answers without a tool, in pieces, once a watcher had time to come.
const SPEAKS: &str = "- {text: one two three, delay_ms: 1500, chunk: {chars: 4, delay_ms: 20}}\n";

/// A server; its default model is `counts`, and there are `slow` and `speaks`.
pub(crate) struct Served {
    /// The server.
    pub(crate) server: Server,
    _scripts: tempfile::TempDir,
}

/// A program that is ended with its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts it, with standard output piped.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("{command:?}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Served {
    /// Starts it, with more configuration.
    pub(crate) fn start(more: &[(&str, &str)]) -> Result<Self> {
        let scripts = tempfile::tempdir()?;
        let mut options = kit::Options::default().set("loop.model", "counts");
        for (name, script) in [("counts", COUNTS), ("slow", SLOW), ("speaks", SPEAKS)] {
            let path = scripts.path().join(format!("{name}.yaml"));
            std::fs::write(&path, script)?;
            options = options
                .set(&format!("models.{name}.provider"), "scripted")
                .set(&format!("models.{name}.script"), path.display().to_string());
        }
        for (key, value) in more {
            options = options.set(key, *value);
        }
        let server = options.start()?;
        Ok(Self {
            server,
            _scripts: scripts,
        })
    }

    /// `HOST:PORT`, as gRPC's own clients name it.
    pub(crate) fn address(&self) -> &str {
        self.server.url.trim_start_matches("http://")
    }

    /// Waits until the server offers a tool.
    pub(crate) async fn offers(&self, tool: &str) -> Result<()> {
        use loopwright_client::{Client, ClientOptions};
        let client = Client::connect(ClientOptions::at(&self.server.url))?;
        kit::wait_for_tools(&client, &[tool]).await
    }
}
