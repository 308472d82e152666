//! A sidecar in Python that says what became of a call, after the server was killed in mid-call.

use anyhow::{Result, ensure};
use loopwright_client::v1::event::Kind;
use loopwright_tests::{polyglot, scene};

use super::served::{Running, Served};

const POSTS: &str = "\
- tool_calls:
    - {tool: words__post, arguments: {amount: 5}}
- text: \"{{last_result}} Done.\"
";

#[tokio::test(flavor = "multi_thread")]
async fn a_python_sidecar_says_what_became_of_a_call() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("posts.yaml");
    std::fs::write(&script, POSTS)?;
    let script = script.display().to_string();
    let mut served = Served::start(&[
        ("models.posts.provider", "scripted"),
        ("models.posts.script", &script),
    ])?;
    let Some(mut python) = polyglot::python("ledger.py") else {
        return Ok(());
    };
    let _sidecar = Running::start(python.arg(served.address()).arg(folder.path()))?;
    served.offers("words__post").await?;
    let client = scene::client(&served.server.url, None)?;
    let session = client.start_loop(scene::ask("posts")).await?.session_id;
    let at = |name: &str| folder.path().join(name);
    scene::eventually("the call begins", || async { Ok(at("begun").exists()) }).await?;
    served.server.kill()?;
    std::fs::write(at("go"), "")?;
    served.server.restart()?;

    let entries = scene::to_end(&client, &session, "l1").await?;
    let tale: Vec<_> = scene::kinds(&entries)
        .filter_map(|kind| match kind {
            Kind::ToolCallStarted(e) => Some(("started", e.attempt)),
            Kind::ToolCallInDoubt(e) => Some(("in doubt", e.attempt)),
            Kind::ToolCallCompleted(e) => Some(("completed", e.attempt)),
            _ => None,
        })
        .collect();
    let expected = [("started", 1), ("in doubt", 1), ("completed", 1)];
    ensure!(tale == expected, "{tale:?}");
    let end = scene::end_of(&entries)?;
    ensure!(end.result_text == "Posted 5. Done.", "{end:?}");
    ensure!(std::fs::read_to_string(at("ledger"))? == "5\n");
    Ok(())
}
