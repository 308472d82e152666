//! The real server as a child process, with a data directory of its own.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use anyhow::{Context as _, Result, bail};

/// Which build of the binary to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Build {
    /// `cargo build`.
    #[default]
    Debug,
    /// `cargo build --release`.
    Release,
}

/// A server that is to be started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which build.
    pub build: Build,
    /// Configuration, as variables `LOOPWRIGHT_A__B`.
    pub env: BTreeMap<String, String>,
    /// More arguments of `loopwright serve`.
    pub args: Vec<String>,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    options: Options,
    dir: PathBuf,
    _temp: Option<tempfile::TempDir>,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
}

impl Options {
    /// Sets one configuration key, such as `session_log.sync`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.insert(variable(key), value.into());
        self
    }

    /// Starts a server on a free port, in a new data directory.
    ///
    /// # Errors
    /// Where the binary cannot be built or does not come up; with what it said.
    pub fn start(self) -> Result<Server> {
        let temp = tempfile::tempdir()?;
        let dir = temp.path().to_owned();
        let mut server = self.start_in(&dir)?;
        server._temp = Some(temp);
        Ok(server)
    }

    /// Starts a server on a data directory that may hold sessions already.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_in(self, dir: &Path) -> Result<Server> {
        let (child, url) = self.spawn(dir, "127.0.0.1:0")?;
        Ok(Server {
            child,
            options: self,
            dir: dir.to_owned(),
            _temp: None,
            url,
        })
    }

    fn spawn(&self, dir: &Path, listen: &str) -> Result<(Child, String)> {
        let mut command = Command::new(binary(self.build)?);
        command.arg("serve").args(&self.args);
        without_loopwright(&mut command);
        command
            .env(variable("session_log.dir"), dir.join("log"))
            .env(variable("tools.unix_dir"), dir)
            .env(variable("server.listen"), listen)
            .envs(&self.env)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(match std::env::var_os("LOOPWRIGHT_TEST_STDERR") {
                Some(_) => Stdio::inherit(),
                None => Stdio::from(std::fs::File::create(dir.join("stderr.log"))?),
            });
        let mut child = command.spawn().context("the server could not be started")?;
        let stdout = child.stdout.take().context("a piped stdout")?;
        match announced(stdout) {
            Some(url) => Ok((child, url)),
            None => {
                let status = child.wait()?;
                let said = std::fs::read_to_string(dir.join("stderr.log")).unwrap_or_default();
                bail!("the server ended with {status} before it listened:\n{said}")
            }
        }
    }
}

impl Server {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it keeps its things: `log/` and what it said in `stderr.log`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it said on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr.log")).unwrap_or_default()
    }

    /// Kills it as a power cut would: no signal handler runs.
    ///
    /// # Errors
    /// Where the process cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has: its exit code.
    ///
    /// # Errors
    /// Where it was ended by a signal.
    pub fn terminate(&mut self) -> Result<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?.code().context("ended by a signal")
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// As the system says.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Starts it again after it has ended, on the same data and the same address.
    ///
    /// # Errors
    /// See [`Options::start`].
    pub fn restart(&mut self) -> Result<()> {
        let listen = self.url.trim_start_matches("http://").to_owned();
        let (child, url) = self.options.spawn(&self.dir, &listen)?;
        self.child = child;
        self.url = url;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sidecar of the binary's own, as a child process. Dropping it kills it.
#[derive(Debug)]
pub struct Sidecar(Child);

impl Sidecar {
    /// Starts `loopwright sidecar ARGS`, to register with `server`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(server: &Server, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary(server.options.build)?);
        without_loopwright(&mut command);
        command
            .arg("sidecar")
            .args(args)
            .args(["--server", &server.url]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(match std::env::var_os("LOOPWRIGHT_TEST_STDERR") {
            Some(_) => Stdio::inherit(),
            None => Stdio::null(),
        });
        Ok(Self(
            command
                .spawn()
                .context("the sidecar could not be started")?,
        ))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the server offers these tools.
///
/// # Errors
/// Where it does not within half a minute.
pub async fn wait_for_tools(client: &loopwright_client::Client, tools: &[&str]) -> Result<()> {
    let all = async {
        loop {
            let listed = client.list_tools(Default::default()).await?.tools;
            let names: Vec<&str> = listed
                .iter()
                .filter_map(|one| one.tool.as_ref())
                .map(|t| t.name.as_str())
                .collect();
            if tools.iter().all(|tool| names.contains(tool)) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, all)
        .await
        .with_context(|| format!("no {tools:?}"))?
}

/// An HTTP client, with the provider of TLS that it asks for.
///
/// # Errors
/// Where it cannot be built.
pub fn http() -> Result<reqwest::Client> {
    // Fails only where a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().tcp_nodelay(true).build()?)
}

/// Says by name that a test did not run, and why.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write as _;
    // Past the capture of the test runner: a skip must be seen.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Registers a sidecar that a test serves itself.
///
/// # Errors
/// Where the server refuses it.
pub async fn register(server: &str, name: &str, endpoint: &str) -> Result<()> {
    use loopwright_proto::v1::{RegisterSidecarRequest, tool_service_client::ToolServiceClient};
    let mut tools = ToolServiceClient::connect(server.to_owned()).await?;
    let request = RegisterSidecarRequest {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        ..RegisterSidecarRequest::default()
    };
    tools.register_sidecar(request).await?;
    Ok(())
}

/// The binary of a build, built once for all tests of this process.
///
/// # Errors
/// Where cargo fails; with what it said.
pub fn binary(build: Build) -> Result<PathBuf> {
    static BUILT: OnceLock<Mutex<BTreeMap<Build, PathBuf>>> = OnceLock::new();
    let mut built = BUILT
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = built.get(&build) {
        return Ok(path.clone());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo tells a test of its package would make build scripts run again.
    let told = |name: &str| {
        [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
        ]
        .iter()
        .any(|p| name.starts_with(p))
    };
    for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
        command.env_remove(name);
    }
    command.args(["build", "--bin", "loopwright", "--message-format=json"]);
    if build == Build::Release {
        command.arg("--release");
    }
    command
        .current_dir(root())
        .stderr(Stdio::inherit())
        .stdin(Stdio::null());
    let output = command.output().context("cargo could not be run")?;
    if !output.status.success() {
        bail!(
            "`cargo build --bin loopwright` failed with {}",
            output.status
        );
    }
    let path = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .next_back()
        .context("cargo named no executable")?;
    built.insert(build, path.clone());
    Ok(path)
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Takes from a command what would configure the server behind a test's back.
pub fn without_loopwright(command: &mut Command) {
    let names = std::env::vars().map(|(name, _)| name);
    for name in names.filter(|name| {
        name.starts_with("LOOPWRIGHT_")
            || ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"].contains(&&**name)
    }) {
        command.env_remove(name);
    }
}

/// The variable that sets a configuration key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("LOOPWRIGHT_{}", key.replace('.', "__").to_uppercase())
}

/// The address in the server's first line, and a thread that reads on so that the pipe never fills.
fn announced(stdout: std::process::ChildStdout) -> Option<String> {
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"))?
        .to_owned();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        // What it prints later is of no interest; an error is the end of the process.
        let _ = reader.read_to_end(&mut rest);
    });
    Some(url)
}
