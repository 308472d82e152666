//! The clients in other languages under `tests/polyglot`, ready to run: their packages installed,
//! their stubs generated from the protos by the stock generators of each language.
//!
//! Boundary: as in [`crate::install`], None says that the test is to return.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    install::{self, Node, Python},
    kit::root,
};

const PYTHON_PACKAGES: &[&str] = &[
    "grpcio-tools==1.85.1",
    "grpcio-health-checking==1.85.1",
    "grpcio-reflection==1.85.1",
];
const NODE_PACKAGES: &[&str] = &[
    "@connectrpc/connect@2.1.2",
    "@connectrpc/connect-web@2.1.2",
    "@bufbuild/protobuf@2.17.0",
    "@bufbuild/protoc-gen-es@2.13.0",
];

/// Runs a script of `tests/polyglot/python` with stubs of plain grpcio.
#[must_use]
pub fn python(script: &str) -> Option<Command> {
    let python = install::python_venv("python", PYTHON_PACKAGES)?;
    let stubs = install::tool("python-stubs", &digest(&[]).ok()?, |dir| {
        let mut protoc = python.command();
        protoc
            .args(["-m", "grpc_tools.protoc"])
            .arg(out("python", dir));
        protoc_run(protoc.arg(out("grpc_python", dir)))
    })?;
    let mut command = python.command();
    command
        .arg(root().join("tests/polyglot/python").join(script))
        .env("PYTHONPATH", stubs);
    Some(command)
}

/// Runs a script of `tests/polyglot/node` with stubs for connect.
#[must_use]
pub fn node(script: &str) -> Option<Command> {
    let python = install::python_venv("python", PYTHON_PACKAGES)?;
    let node = install::npm("node", NODE_PACKAGES)?;
    let source = root().join("tests/polyglot/node").join(script);
    let version = digest(std::slice::from_ref(&source)).ok()?;
    let dir = install::tool("node-stubs", &version, |dir| {
        node_stubs(&python, &node, &source, dir)
    })?;
    let mut command = Command::new("node");
    command.arg(dir.join(script)).stdin(Stdio::null());
    Some(command)
}

/// Stubs, the script beside them, and the packages where the script looks for them.
fn node_stubs(python: &Python, node: &Node, source: &Path, dir: &Path) -> Result<()> {
    let mut plugin = std::ffi::OsString::from("--plugin=protoc-gen-es=");
    plugin.push(node.program("protoc-gen-es"));
    let mut protoc = python.command();
    protoc.args(["-m", "grpc_tools.protoc"]).arg(plugin);
    protoc
        .arg("--es_opt=target=js,import_extension=js")
        .arg(out("es", dir));
    protoc_run(&mut protoc)?;
    fs::write(dir.join("package.json"), "{\"type\": \"module\"}\n")?;
    fs::copy(
        source,
        dir.join(source.file_name().context("a script has a name")?),
    )?;
    std::os::unix::fs::symlink(node.dir().join("node_modules"), dir.join("node_modules"))?;
    Ok(())
}

fn out(language: &str, dir: &Path) -> String {
    format!("--{language}_out={}", dir.display())
}

fn protoc_run(protoc: &mut Command) -> Result<()> {
    let mut include = std::ffi::OsString::from("-I");
    include.push(root().join("proto"));
    install::output(protoc.arg(include).args(protos()?)).map(drop)
}

fn protos() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root().join("proto/loopwright/v1"))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|it| it == "proto"));
    files.sort();
    Ok(files)
}

/// Changes with the protos and with these files.
fn digest(files: &[PathBuf]) -> Result<String> {
    let mut digest = 0;
    for path in protos()?.iter().chain(files) {
        digest = crc32c::crc32c_append(digest, &fs::read(path)?);
    }
    Ok(format!(
        "{digest:08x} {PYTHON_PACKAGES:?} {NODE_PACKAGES:?}"
    ))
}
