//! A server whose model is a strict mock of Anthropic's, and a sidecar.

use anyhow::Result;
use loopwright_client::Client;
use loopwright_proto::v1::{Entry, Usage, event::Kind};
use loopwright_tests::{
    kit::{self, Options, Server, Sidecar},
    mock_model::MockModel,
    probe::Probe,
    scene::{self, kinds},
};

pub(super) const MARK: &str = ",\"cache_control\":{\"type\":\"ephemeral\"}";

pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) mock: MockModel,
    pub(super) probe: Probe,
    _files: Sidecar,
    _root: tempfile::TempDir,
}

impl Stage {
    pub(super) async fn new(keys: &[(&str, &str)]) -> Result<Self> {
        let mock = MockModel::start().await?;
        let mut options = Options::default()
            .set("loop.model", "m")
            .set("models.m.provider", "anthropic")
            .set("models.m.id", "claude-sonnet-5-5")
            .set("models.m.base_url", mock.anthropic_url());
        for (key, value) in keys {
            options = options.set(key, *value);
        }
        let server = options.start()?;
        let client = scene::client(&server.url, None)?;
        let probe = Probe::serve().await?;
        kit::register(&server.url, "probe", &probe.endpoint).await?;
        // The definitions of its tools are longer than the shortest prefix that is kept.
        let root = tempfile::tempdir()?;
        let path = root.path().display().to_string();
        let files = Sidecar::start(&server, &["files", "--root", &path])?;
        kit::wait_for_tools(&client, &["probe__note", "files__append_line"]).await?;
        Ok(Self {
            server,
            client,
            mock,
            probe,
            _files: files,
            _root: root,
        })
    }

    /// The bodies that were sent; none was refused.
    pub(super) fn bodies(&self) -> Vec<String> {
        let requests = self.mock.requests();
        for request in &requests {
            assert_eq!(request.refused, None);
        }
        requests.iter().map(|request| request.text()).collect()
    }
}

/// What each model call used and cost, by the log.
pub(super) fn used(entries: &[Entry]) -> Vec<(Usage, Option<u64>)> {
    let calls = kinds(entries).filter_map(|kind| match kind {
        Kind::ModelCallCompleted(done) => Some((done.usage?, done.cost_micro_usd)),
        _ => None,
    });
    calls.collect()
}
