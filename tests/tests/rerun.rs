//! `loopwright log replay --model`: a session of the real server run again with another model, which is
//! given what tools answered then.

use std::{fs, path::Path, process::Output};

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::{
    kit,
    mock_model::{Answer, MockModel, Reply, Usage},
    probe::Probe,
    scene::{Scene, Stage, ask, loopwright},
};
use serde_json::Value;

const RECORDED: &str = "\
- {text: I look, tool_calls: [{tool: probe__note, arguments: {about: tea}}], usage: {input: 100, output: 10}}
- {text: \"it says {{result.0}}\", usage: {input: 150, output: 12}}
";
/// Asks for the same, in another form.
const SAME: &str = "\
- {tool_calls: [{tool: probe__note, arguments: {about: tea}}], usage: {input: 90, output: 5}}
- {text: \"so: {{result.0}}\", usage: {input: 120, output: 6}}
";
/// Wants to know more than was asked then.
const MORE: &str = "\
- {tool_calls: [{tool: probe__note, arguments: {about: tea}}], usage: {input: 90, output: 5}}
- {tool_calls: [{tool: probe__note, arguments: {about: coffee}}], usage: {input: 120, output: 6}}
- {text: never}
";

/// A session that a server recorded, and the sidecar that served it.
struct Recorded {
    scene: Scene,
    probe: Probe,
    session: String,
    dir: tempfile::TempDir,
}

impl Recorded {
    async fn new() -> Result<Self> {
        let scene = Stage::new(&[("m", RECORDED)])?
            .set("models.m.price.input", "1")
            .set("models.m.price.output", "10")
            .start()?;
        let probe = Probe::serve().await?;
        kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
        kit::wait_for_tools(&scene.client, &["probe__note"]).await?;
        let entries = scene.run(ask("m")).await?;
        let session = entries.first().context("an entry")?.session_id.clone();
        Ok(Self {
            scene,
            probe,
            session,
            dir: tempfile::tempdir()?,
        })
    }

    fn again(&self, from: &[&str], set: &[&str], model: &str) -> Result<Output> {
        let mut args = vec!["log", "replay", self.session.as_str(), "--model", model];
        args.extend(from);
        for key in set {
            args.extend(["--set", *key]);
        }
        Ok(loopwright(self.dir.path(), &args)?.output()?)
    }

    /// A scripted model: its keys.
    fn scripted(&self, script: &str) -> Result<[String; 2]> {
        let path = self.dir.path().join("other.yaml");
        fs::write(&path, script)?;
        Ok([
            "models.other.provider=scripted".to_owned(),
            format!("models.other.script={}", path.display()),
        ])
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// A row of the table of costs, its cells apart.
fn row(words: &str, name: &str) -> Result<Vec<String>> {
    let line = words.lines().find(|line| line.trim().starts_with(name));
    let line = line.with_context(|| format!("no {name} in {words}"))?;
    let cells = line.trim().trim_start_matches(name).split("  ");
    let cells = cells.map(str::trim).filter(|cell| !cell.is_empty());
    Ok(cells.map(str::to_owned).collect())
}

#[tokio::test]
async fn a_model_that_asks_for_the_same_does_not_part_and_both_costs_are_told() -> Result<()> {
    let recorded = Recorded::new().await?;
    let before = recorded.probe.counts().came;
    let url = recorded.scene.server.url.clone();
    let log = recorded.scene.server.dir().join("log");
    let keys = recorded.scripted(SAME)?;
    let mut set: Vec<&str> = keys.iter().map(String::as_str).collect();
    set.extend(["models.other.price.input=2", "models.other.price.output=0"]);
    for from in [["--server", url.as_str()], ["--dir", text(&log)?]] {
        let told = recorded.again(&from, &set, "other")?;
        let words = said(&told);
        ensure!(told.status.code() == Some(0), "{words}");
        ensure!(words.contains("they do not part"), "{words}");
        ensure!(words.contains("said something else in the end"), "{words}");
        let then = row(&words, "recorded, m, in all")?;
        assert_eq!(then, ["2", "250", "0", "0", "22", "$0.000470"]);
        let now = row(&words, "now, other, in all")?;
        assert_eq!(now, ["2", "210", "0", "0", "11", "$0.000420"]);
    }
    assert_eq!(recorded.probe.counts().came, before, "no tool was called");
    let entries = loopwright_tests::scene::log(&recorded.scene.client, &recorded.session).await?;
    ensure!(entries.len() > 3, "the session is as it was");
    Ok(())
}

#[tokio::test]
async fn a_call_that_was_not_recorded_is_where_they_part() -> Result<()> {
    let recorded = Recorded::new().await?;
    let before = recorded.probe.counts().came;
    let url = recorded.scene.server.url.clone();
    let keys = recorded.scripted(MORE)?;
    let set: Vec<&str> = keys.iter().map(String::as_str).collect();
    let told = recorded.again(&["--server", &url], &set, "other")?;
    let words = said(&told);
    ensure!(told.status.code() == Some(0), "{words}");
    ensure!(words.contains("they part at l1 step 2:"), "{words}");
    ensure!(
        words.contains("recorded  answered, and asked for no tool"),
        "{words}"
    );
    ensure!(
        words.contains(r#"now       asked for probe__note{"about":"coffee"}"#),
        "{words}"
    );
    ensure!(words.contains("was not recorded"), "{words}");
    ensure!(
        row(&words, "now, other, to there")?
            .last()
            .is_some_and(|cost| cost == "no price")
    );
    assert_eq!(recorded.probe.counts().came, before, "no tool was called");

    let told = recorded.again(&["--server", &url, "--json"], &set, "other")?;
    let report: Value = serde_json::from_slice(&told.stdout)?;
    assert_eq!(report["parted"]["step"], 2);
    assert_eq!(report["not_recorded"]["tool"], "probe__note");
    assert_eq!(report["not_recorded"]["arguments"]["about"], "coffee");
    assert_eq!(report["recorded"]["used"]["cost_micro_usd"], 470);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_asked_as_the_server_asks_it() -> Result<()> {
    let recorded = Recorded::new().await?;
    let url = recorded.scene.server.url.clone();
    let mock = MockModel::start().await?;
    let counted = |input, output, cache_read| Usage {
        input,
        output,
        cache_read,
        ..Usage::default()
    };
    mock.push(Reply {
        usage: Some(counted(40, 3, 0)),
        ..Reply::calls([("probe__note", "{ \"about\": \"tea\" }")])
    });
    mock.push(Reply {
        usage: Some(counted(10, 4, 40)),
        ..Reply::text("done")
    });
    let base = format!("models.mock.base_url={}", mock.anthropic_url());
    let set = [
        "models.mock.provider=anthropic",
        "models.mock.id=mock-1",
        base.as_str(),
        "models.mock.price.input=1",
        "models.mock.price.output=1",
    ];
    let told = recorded.again(&["--server", &url], &set, "mock")?;
    let words = said(&told);
    ensure!(told.status.code() == Some(0), "{words}");
    ensure!(words.contains("they do not part"), "{words}");
    let now = row(&words, "now, mock, in all")?;
    assert_eq!(now[..5], ["2", "50", "0", "40", "7"], "{words}");
    let requests = mock.requests();
    let last = requests.last().context("a request")?.text();
    ensure!(
        last.contains("tool_result"),
        "it was given the recorded result: {last}"
    );

    // A provider that refuses: that is no finding about the two.
    mock.always(Answer::status(401, "{}"));
    let told = recorded.again(&["--server", &url], &set, "mock")?;
    let words = said(&told);
    ensure!(told.status.code() == Some(1), "{words}");
    ensure!(words.contains("the model could not be called"), "{words}");

    for (from, set, model, needle) in [
        (
            vec!["--server", url.as_str()],
            vec![],
            "unheard_of",
            "--model unheard_of",
        ),
        (
            vec!["--server", &url, "--golden", "x"],
            vec![],
            "mock",
            "cannot be used with",
        ),
    ] {
        let told = recorded.again(&from, &set, model)?;
        let words = said(&told);
        ensure!(!told.status.success() && words.contains(needle), "{words}");
    }
    Ok(())
}
