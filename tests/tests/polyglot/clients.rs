//! Python and Go: the wire and the protos as stock grpcio and grpcurl see them.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::{install, polyglot};

use super::served::{Running, Served};

const SERVICES: [&str; 5] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "loopwright.v1.LoopService",
    "loopwright.v1.SessionLogService",
    "loopwright.v1.ToolService",
];

/// What the client says, with the sidecar listening at `listen`.
async fn client_and_sidecar(served: &Served, listen: &str) -> Result<Option<String>> {
    let (Some(mut sidecar), Some(mut client)) = (
        polyglot::python("sidecar.py"),
        polyglot::python("client.py"),
    ) else {
        return Ok(None);
    };
    let _sidecar = Running::start(sidecar.args([served.address(), listen]))?;
    served.offers("words__count").await?;
    let said = install::output(client.args([served.address(), "How many words?", "slow"]))?;
    Ok(Some(said))
}

#[tokio::test]
async fn a_python_client_starts_a_loop_watches_it_and_cancels_another() -> Result<()> {
    let served = Served::start(&[])?;
    let Some(said) = client_and_sidecar(&served, "127.0.0.1:0").await? else {
        return Ok(());
    };
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let asked = lines
        .iter()
        .position(|line| line.contains("words__count"))
        .context("a call")?;
    ensure!(lines[asked].contains("a fish is a fish"), "{said}");
    ensure!(
        lines[asked + 1].ends_with("The text has 5 words."),
        "{said}"
    );
    ensure!(
        said.contains("END_REASON_COMPLETED: The text has 5 words. Done."),
        "{said}"
    );
    ensure!(lines.last() == Some(&"END_REASON_CANCELLED"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_python_sidecar_is_called_over_a_unix_socket() -> Result<()> {
    let served = Served::start(&[])?;
    let socket = format!("unix:{}", served.server.dir().join("words.sock").display());
    let Some(said) = client_and_sidecar(&served, &socket).await? else {
        return Ok(());
    };
    ensure!(
        said.contains("END_REASON_COMPLETED: The text has 5 words. Done."),
        "{said}"
    );
    Ok(())
}

#[test]
fn python_reads_health_and_reflection() -> Result<()> {
    let served = Served::start(&[])?;
    let Some(mut python) = polyglot::python("health.py") else {
        return Ok(());
    };
    let said = install::output(python.arg(served.address()))?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines[..2] == ["SERVING", "SERVING"], "{said}");
    for service in SERVICES {
        ensure!(lines.contains(&service), "{service} is not listed:\n{said}");
    }
    ensure!(
        lines.last() == Some(&"loopwright/v1/loop_service.proto"),
        "{said}"
    );
    Ok(())
}

#[test]
fn grpcurl_lists_the_services_and_calls_one() -> Result<()> {
    let package = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3";
    let Some(grpcurl) = install::go_tool("grpcurl", package) else {
        return Ok(());
    };
    let served = Served::start(&[])?;
    let call = |arguments: &[&str]| {
        install::output(
            Command::new(&grpcurl)
                .args(["-plaintext", served.address()])
                .args(arguments),
        )
    };
    let listed = call(&["list"])?;
    for service in SERVICES {
        ensure!(
            listed.lines().any(|line| line == service),
            "{service} is not listed:\n{listed}"
        );
    }
    let sessions = call(&["loopwright.v1.SessionLogService/ListSessions"])?;
    ensure!(sessions.trim() == "{}", "{sessions}");
    Ok(())
}
