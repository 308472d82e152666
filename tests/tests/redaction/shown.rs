//! `tools.redact`: the sidecar and the log have the argument, and whoever watches has not.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use loopwright_client::{Client, ConverseEvent, Opening, WatchEvent};
use loopwright_proto::v1::{
    Entry, ExportSessionRequest, GetModelRequestRequest, ImportHead, StartLoopRequest, event::Kind,
};
use loopwright_tests::{
    collector::Collector,
    kit,
    scene::{self, Scene, Stage, ask, kinds},
};
use prost::Message as _;

use super::leaky::{Leaky, files_with, have};

const SECRET: &str = "xyzzy-only-for-the-tool";

const SCRIPT: &str = "\
- text: I write
  tool_calls:
  - {tool: leaky__write, arguments: {path: a.txt, content: xyzzy-only-for-the-tool}}
  - {tool: leaky__write, arguments: {content: [xyzzy-only-for-the-tool]}}
  - {tool: leaky__write, arguments: '{\"content\": \"xyzzy-only-for-the-tool'}
- text: done
";

const QUOTES: &str = "\
- {tool_calls: [{tool: leaky__quote, arguments: {content: xyzzy-only-for-the-tool}}]}
- text: done
";

/// What a Converse stream is sent of a session, up to its tail.
async fn conversed(client: &Client, session: &str, tail: u64) -> Result<Vec<u8>> {
    let mut stream = client.converse(Opening::Attach {
        session_id: session.to_owned(),
        after_seq: 0,
        after_mark: None,
    });
    let mut bytes = Vec::new();
    while let Some(event) = stream.next().await {
        if let ConverseEvent::Watch(WatchEvent::Entry(entry)) = event? {
            bytes.extend(entry.encode_to_vec());
            if entry.seq == tail {
                break;
            }
        }
    }
    Ok(bytes)
}

async fn exported(client: &Client, session: &str, unredacted: bool) -> Result<Vec<u8>> {
    let session_id = session.to_owned();
    let request = ExportSessionRequest {
        session_id,
        unredacted,
    };
    let mut export = client.export_session(request).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = export.next().await? {
        bytes.extend(chunk);
    }
    Ok(bytes)
}

/// Tokens of an admin and of a user.
const TOKENS: &str =
    "admin-token-0123456789 default ann admin\nuser-token-01234567890 default bob user\n";

struct Written {
    scene: Scene,
    leaky: Leaky,
    collector: Collector,
    admin: Client,
    user: Client,
    _tokens: tempfile::TempDir,
}

async fn written() -> Result<Written> {
    let (collector, traces) = Collector::serve().await?;
    let tokens = tempfile::tempdir()?;
    let file = tokens.path().join("tokens");
    fs::write(&file, TOKENS)?;
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let scene = Stage::new(&[("m", SCRIPT), ("q", QUOTES)])?
        .set("tools.redact", "leaky__write/content,leaky__quote")
        .set("telemetry.otlp_endpoint", traces)
        .set("server.auth.token_file", file.display().to_string())
        .start()?;
    let (leaky, endpoint) = Leaky::serve().await?;
    let admin = scene::client(&scene.server.url, Some("admin-token-0123456789"))?;
    let user = scene::client(&scene.server.url, Some("user-token-01234567890"))?;
    register(&scene.server.url, &endpoint).await?;
    kit::wait_for_tools(&admin, &["leaky__write"]).await?;
    Ok(Written {
        scene,
        leaky,
        collector,
        admin,
        user,
        _tokens: tokens,
    })
}

async fn register(server: &str, endpoint: &str) -> Result<()> {
    use loopwright_proto::v1::{RegisterSidecarRequest, tool_service_client::ToolServiceClient};
    let mut tools = ToolServiceClient::connect(server.to_owned()).await?;
    let mut request = tonic::Request::new(RegisterSidecarRequest {
        name: "leaky".to_owned(),
        endpoint: endpoint.to_owned(),
        ..RegisterSidecarRequest::default()
    });
    let bearer = "Bearer admin-token-0123456789".parse()?;
    request.metadata_mut().insert("authorization", bearer);
    tools.register_sidecar(request).await?;
    Ok(())
}

/// What was exported without it is an export all the same.
async fn imported(user: &Client, export: &[u8]) -> Result<()> {
    let import = ImportHead {
        session_id: "s2".to_owned(),
        ..ImportHead::default()
    };
    let chunks: Vec<Vec<u8>> = export.chunks(64 << 10).map(<[u8]>::to_vec).collect();
    user.import_session(import, tokio_stream::iter(chunks))
        .await?;
    let report = user.verify_session("s2").await?;
    ensure!(report.problem.is_empty(), "{report:?}");
    Ok(())
}

fn kept_where_it_must_be(scene: &Scene, collector: &Collector) -> Result<()> {
    let kept = files_with(scene.server.dir(), SECRET)?;
    ensure!(
        kept.iter().all(|file| file.contains("/log/")),
        "beside the log: {kept:?}"
    );
    ensure!(!kept.is_empty(), "recovery would have nothing to send");
    ensure!(!kept.iter().any(|file| file.contains("/s2/")), "{kept:?}");
    let traces = collector.bytes();
    ensure!(
        have(&traces, "leaky__write") && have(&traces, "leaky__quote"),
        "no traces"
    );
    ensure!(!have(&traces, "xyzzy"), "in traces");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_that_is_hidden_is_where_it_must_be_and_nowhere_else() -> Result<()> {
    let Written {
        mut scene,
        leaky,
        collector,
        admin,
        user,
        _tokens,
    } = written().await?;
    let request = StartLoopRequest {
        session_id: "s1".to_owned(),
        ..ask("m")
    };
    let started = user.start_loop(request).await?;
    let entries = scene::to_end(&user, "s1", &started.loop_id).await?;
    let tail = entries.last().context("an entry")?.seq;
    let bytes = |entries: &[Entry]| -> Vec<u8> {
        let encoded = entries.iter().flat_map(prost::Message::encode_to_vec);
        encoded.collect()
    };
    let rejected = kinds(&entries).filter(|kind| matches!(kind, Kind::ToolCallRejected(_)));
    assert_eq!(rejected.count(), 2, "one is no text, one is no JSON");

    let asked = || GetModelRequestRequest {
        session_id: "s1".to_owned(),
        ..GetModelRequestRequest::default()
    };
    let (head, body) = user.get_model_request(asked()).await?;
    ensure!(head.redacted && !head.exact, "{head:?}");
    let export = exported(&user, "s1", false).await?;
    ensure!(
        exported(&user, "s1", true).await.is_err(),
        "a user is no admin"
    );
    for (what, bytes) in [
        ("WatchLoop", bytes(&entries)),
        ("ReadEntries", bytes(&scene::log(&user, "s1").await?)),
        ("Converse", conversed(&user, "s1", tail).await?),
        ("ExportSession", export.clone()),
        ("GetModelRequest", body),
    ] {
        ensure!(
            !have(&bytes, "xyzzy"),
            "{what} shows it: {}",
            String::from_utf8_lossy(&bytes)
        );
        ensure!(
            have(&bytes, "[redacted]") && have(&bytes, "a.txt"),
            "{what}"
        );
    }

    let (head, body) = admin.get_model_request(asked()).await?;
    ensure!(!head.redacted && have(&body, SECRET), "{head:?}");
    let whole = exported(&admin, "s1", true).await?;
    ensure!(have(&whole, SECRET) && have(&export, "\"redacted\":true"));
    assert_eq!(leaky.came().len(), 1, "the others do not fit the schema");
    ensure!(leaky.came()[0].contains(SECRET), "{:?}", leaky.came());

    imported(&user, &export).await?;

    // In its own words a tool may say what it likes to whoever watches, but not to traces and logs.
    let quoting = user.start_loop(ask("q")).await?;
    scene::to_end(&user, &quoting.session_id, &quoting.loop_id).await?;

    scene.server.terminate()?;
    kept_where_it_must_be(&scene, &collector)
}
