//! The Helm chart, rendered by helm.

use std::{io::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use loopwright_tests::{install, kit::root};
use serde::Deserialize as _;
use serde_yaml::Value;

/// Values that a first user would give: two callers and a token for the sidecars.
pub(crate) const SMALLEST: &str = "
auth:
  tokens:
    - {token: 0123456789abcdef-admin, namespace: default, principal: ann, role: admin}
    - {token: 0123456789abcdef-viewer, namespace: default, principal: bob, role: viewer}
  sidecarToken: 0123456789abcdef-sidecar
";

/// What helm made of the chart.
pub(crate) struct Rendered {
    /// As text.
    pub(crate) text: String,
    objects: Vec<Value>,
}

impl Rendered {
    /// The one object of a kind.
    pub(crate) fn one(&self, kind: &str) -> &Value {
        let mut all = self.objects.iter().filter(|it| it["kind"] == kind);
        let one = all.next().unwrap_or_else(|| panic!("there is no {kind}"));
        assert!(all.next().is_none(), "there is more than one {kind}");
        one
    }

    /// How many objects of a kind there are.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.objects.iter().filter(|it| it["kind"] == kind).count()
    }

    /// What a pod is made by.
    pub(crate) fn pod(&self) -> &Value {
        &self.one("StatefulSet")["spec"]["template"]["spec"]
    }

    /// The containers of a pod; the first is the server's.
    pub(crate) fn containers(&self) -> &[Value] {
        self.pod()["containers"].as_sequence().expect("containers")
    }
}

/// The folder of the chart.
pub(crate) fn chart() -> PathBuf {
    root().join("deploy/helm/loopwright")
}

/// Renders the chart with these values; what helm said where it refuses.
pub(crate) fn render(values: &str) -> Option<Result<Rendered>> {
    let helm = install::helm()?;
    Some(rendered(&helm, values))
}

fn rendered(helm: &PathBuf, values: &str) -> Result<Rendered> {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    file.write_all(values.as_bytes())?;
    let values = file.path();
    install::output(
        Command::new(helm)
            .args(["lint", "--strict"])
            .arg(chart())
            .arg("-f")
            .arg(values),
    )?;
    let mut template = Command::new(helm);
    template
        .args(["template", "release"])
        .arg(chart())
        .arg("-f")
        .arg(values);
    let text = install::output(&mut template)?;
    let objects = serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).context("helm wrote no YAML"))
        .collect::<Result<Vec<_>>>()?;
    Ok(Rendered { text, objects })
}

/// The environment of a container, as far as its values stand there.
pub(crate) fn environment(container: &Value) -> Vec<(String, String)> {
    let all = container["env"]
        .as_sequence()
        .map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    all.iter()
        .filter_map(|one| Some((text(&one["name"])?, text(&one["value"])?)))
        .collect()
}

/// The arguments of a container.
pub(crate) fn arguments(container: &Value) -> Vec<String> {
    let all = container["args"]
        .as_sequence()
        .map_or(&[][..], Vec::as_slice);
    all.iter()
        .map(|one| one.as_str().expect("a text").to_owned())
        .collect()
}
