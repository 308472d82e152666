//! The chart's containers as processes of this machine: the same configuration, variables, arguments
//! and tokens, with the paths of the pod moved into a folder.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use loopwright_proto::v1::{ListToolsRequest, tool_service_client::ToolServiceClient};
use loopwright_tests::kit::{Build, Options, Server, binary, without_loopwright};
use serde_yaml::Value;
use tonic::{Request, metadata::MetadataValue, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::rendered::{Rendered, SMALLEST, arguments, environment, render};

struct Sidecar(Child);

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A text of the pod with its paths and addresses moved to where the processes are.
fn moved(text: &str, dir: &Path, server: &str) -> String {
    let dir = dir.display();
    text.replace("/etc/loopwright-auth", &format!("{dir}/auth"))
        .replace("/etc/loopwright", &format!("{dir}/config"))
        .replace("/var/lib/loopwright", &format!("{dir}/lib"))
        .replace("/run/loopwright", &format!("{dir}/run"))
        .replace("0.0.0.0:7070", "127.0.0.1:0")
        .replace("http://127.0.0.1:7070", server)
}

/// What the volumes of the pod hold.
fn lay_out(rendered: &Rendered, dir: &Path) {
    for folder in ["auth", "config", "lib", "run"] {
        fs::create_dir(dir.join(folder)).expect("a folder");
    }
    let text = |object: &Value, field: &str, key: &str| {
        object[field][key].as_str().expect("a text").to_owned()
    };
    let config = text(rendered.one("ConfigMap"), "data", "loopwright.toml");
    fs::write(dir.join("config/loopwright.toml"), config).expect("written");
    let tokens = dir.join("auth/tokens");
    fs::write(
        &tokens,
        text(rendered.one("Secret"), "stringData", "tokens"),
    )
    .expect("written");
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o440)).expect("its mode is set");
}

fn serve(rendered: &Rendered, dir: &Path) -> Server {
    let container = &rendered.containers()[0];
    assert_eq!(arguments(container), ["serve"]);
    let env: BTreeMap<_, _> = environment(container)
        .into_iter()
        .map(|(name, value)| (name, moved(&value, dir, "")))
        .collect();
    let options = Options {
        env,
        ..Options::default()
    };
    options
        .start_in(dir)
        .expect("the server starts with what the chart gives it")
}

fn start_sidecar(rendered: &Rendered, dir: &Path, server: &str) -> Sidecar {
    let container = &rendered.containers()[1];
    let env: BTreeMap<_, _> = environment(container)
        .into_iter()
        .map(|(name, value)| (name, moved(&value, dir, server)))
        .collect();
    let token = rendered.one("Secret")["stringData"]["sidecar-token"].as_str();
    let expand = |argument: String| argument.replace("$(SIDECAR_LISTEN)", &env["SIDECAR_LISTEN"]);
    let mut command = Command::new(binary(Build::Debug).expect("the binary"));
    without_loopwright(&mut command);
    command
        .args(arguments(container).into_iter().map(expand))
        .envs(&env);
    command.env("LOOPWRIGHT_TOKEN", token.expect("a token for sidecars"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Sidecar(command.spawn().expect("the sidecar starts"))
}

/// Waits until the tool is offered to a viewer.
async fn offered(channel: Channel, tool: &str) {
    let mut tools = ToolServiceClient::new(channel);
    loop {
        let mut request = Request::new(ListToolsRequest::default());
        let bearer = MetadataValue::from_static("Bearer 0123456789abcdef-viewer");
        request.metadata_mut().insert("authorization", bearer);
        let all = tools
            .list_tools(request)
            .await
            .expect("tools are listed")
            .into_inner()
            .tools;
        if all
            .iter()
            .any(|it| it.tool.as_ref().is_some_and(|it| it.name == tool))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_charts_containers_run_and_find_each_other() {
    let values = format!("{SMALLEST}\nconfig: |\n  [loop]\n  max_steps = 10\n");
    let Some(rendered) = render(&values) else {
        return;
    };
    let rendered = rendered.expect("the chart renders");
    let dir = tempfile::tempdir().expect("a folder");
    lay_out(&rendered, dir.path());

    let server = serve(&rendered, dir.path());
    let endpoint = Channel::from_shared(server.url.clone()).expect("an address");
    let channel = endpoint.connect().await.expect("it listens");
    // A kubelet shows no token.
    let mut health = HealthClient::new(channel.clone());
    health
        .check(HealthCheckRequest::default())
        .await
        .expect("health is answered to anybody");

    let _sidecar = start_sidecar(&rendered, dir.path(), &server.url);
    let soon = Duration::from_secs(30);
    tokio::time::timeout(soon, offered(channel, "calc__evaluate"))
        .await
        .expect("the sidecar registers over the socket that both see");
}
