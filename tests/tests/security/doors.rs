//! What stops the start, what anybody may ask, and where no sidecar is dialled.

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_proto::v1::{RegisterSidecarRequest, tool_service_client::ToolServiceClient};
use loopwright_tests::kit;
use prost::Message;
use tonic::{Code, Request, client::Grpc, transport::Channel};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use tonic_types::StatusExt as _;

use super::tokens::{self, Guarded};

/// As much of the reflection protocol as it takes to list services.
#[derive(Clone, PartialEq, Message)]
struct Ask {
    #[prost(string, tag = "7")]
    list_services: String,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "6")]
    listed: Option<Listed>,
}

#[derive(Clone, PartialEq, Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

fn refused(options: kit::Options) -> Result<String> {
    match options.start() {
        Err(error) => Ok(error.to_string()),
        Ok(_) => bail!("it started"),
    }
}

#[test]
fn beyond_loopback_nobody_is_served_unguarded() -> Result<()> {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let said = refused(kit::Options::default().set("server.listen", listen))?;
        for word in [
            "ended with exit status: 1",
            "server.listen",
            "server.auth.token_file",
            "server.auth.insecure",
        ] {
            ensure!(said.contains(word), "no {word} in {said}");
        }
    }
    Ok(())
}

#[test]
fn a_token_file_that_others_can_read_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tokens");
    tokens::write(&path, 0o644)?;
    let key = "server.auth.token_file";
    let said = refused(kit::Options::default().set(key, path.display().to_string()))?;
    for word in [key, &path.display().to_string(), "0644", "chmod 0600"] {
        ensure!(said.contains(word), "no {word} in {said}");
    }
    ensure!(!said.contains("secret-of"), "a token was shown: {said}");
    Ok(())
}

#[tokio::test]
async fn health_and_reflection_ask_for_no_token() -> Result<()> {
    let guarded = Guarded::start()?;
    let url = guarded.scene.server.url.clone();
    let channel = Channel::from_shared(url)?.connect().await?;
    let mut health = HealthClient::new(channel.clone());
    let healthy = health.check(HealthCheckRequest::default()).await?;
    ensure!(healthy.get_ref().status == ServingStatus::Serving as i32);
    for version in ["v1", "v1alpha"] {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await?;
        let ask = Ask {
            list_services: "*".to_owned(),
        };
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let codec: tonic_prost::ProstCodec<Ask, Answer> = tonic_prost::ProstCodec::default();
        let answer = grpc
            .streaming(Request::new(tokio_stream::once(ask)), path.parse()?, codec)
            .await?;
        let answer = answer.into_inner().message().await?.context("an answer")?;
        let listed = answer.listed.context("a list")?.services;
        let loops = |service: &Named| service.name == "loopwright.v1.LoopService";
        ensure!(listed.iter().any(loops), "{version}: {listed:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sidecar_elsewhere_is_not_dialled() -> Result<()> {
    let server = kit::Options::default().start()?;
    let dir = server.dir().display();
    // None of them is reachable, should the server dial after all: the first one is for documentation.
    for (endpoint, key) in [
        ("http://192.0.2.1:7071".to_owned(), "tools.endpoints"),
        ("http://sidecar.invalid:7071".to_owned(), "tools.endpoints"),
        ("http://0.0.0.0:1".to_owned(), "tools.endpoints"),
        ("https://127.0.0.1:1".to_owned(), "tools.endpoints"),
        ("unix:/elsewhere/a.sock".to_owned(), "tools.unix_dir"),
        (format!("unix:{dir}-2/a.sock"), "tools.unix_dir"),
    ] {
        let mut tools = ToolServiceClient::connect(server.url.clone()).await?;
        let request = RegisterSidecarRequest {
            name: "far".to_owned(),
            endpoint: endpoint.clone(),
            ..RegisterSidecarRequest::default()
        };
        let status = tools.register_sidecar(request).await.err();
        let status = status.with_context(|| format!("{endpoint} was taken"))?;
        let reason = status.get_details_error_info().map(|info| info.reason);
        ensure!(
            status.code() == Code::PermissionDenied
                && reason.as_deref() == Some("ENDPOINT_NOT_ALLOWED"),
            "{endpoint}: {status:?}"
        );
        ensure!(status.message().contains(key), "{}", status.message());
    }
    Ok(())
}

#[tokio::test]
async fn a_link_out_of_the_folder_of_sockets_is_not_followed() -> Result<()> {
    let server = kit::Options::default().start()?;
    let outside = tempfile::tempdir()?;
    let listener = tokio::net::UnixListener::bind(outside.path().join("a.sock"))?;
    let link = server.dir().join("in.sock");
    std::os::unix::fs::symlink(outside.path().join("a.sock"), &link)?;
    let mut tools = ToolServiceClient::connect(server.url.clone()).await?;
    let request = RegisterSidecarRequest {
        name: "linked".to_owned(),
        endpoint: format!("unix:{}", link.display()),
        ..RegisterSidecarRequest::default()
    };
    tokio::select! {
        answer = tools.register_sidecar(request) => {
            ensure!(answer.is_err(), "{answer:?}");
            Ok(())
        }
        _ = listener.accept() => bail!("the server followed the link"),
    }
}
