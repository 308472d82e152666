//! A limit on tool calls that loops share, with a real sidecar whose effects lie in a file.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use loopwright_proto::v1::{
    Agent, BudgetDimension, BudgetLimits, BudgetTerms, CreateBudgetRequest, EndReason,
    StartLoopRequest, event::Kind, loop_ended::Detail,
};
use loopwright_tests::{
    kit::{self, Sidecar},
    scene::{self, Scene, Stage, ask, end_of, kinds},
};

/// Replies that ask for three, two, two and one call, each of which appends its letter to a file.
fn script() -> String {
    let mut script = String::from("turns:\n");
    for lines in ["abc", "de", "fg", "h"] {
        script.push_str("- usage: { input: 100, output: 10 }\n  tool_calls:\n");
        for line in lines.chars() {
            script.push_str(&format!(
                "  - {{ tool: files__append_line, arguments: {{ path: it.txt, line: {line} }} }}\n"
            ));
        }
    }
    script.push_str("- text: done\n");
    script
}

/// A server with the real sidecar `files`, and a budget of so many tool calls.
async fn with_budget(calls: u64) -> Result<(Scene, Sidecar, tempfile::TempDir)> {
    let scene = Stage::new(&[("m", &script())])?.start()?;
    let root = tempfile::tempdir()?;
    let path = root.path().to_str().context("a plain path")?.to_owned();
    let files = Sidecar::start(&scene.server, &["files", "--root", &path])?;
    kit::wait_for_tools(&scene.client, &["files__append_line"]).await?;
    let limits = BudgetLimits {
        max_tool_calls: Some(calls),
        ..BudgetLimits::default()
    };
    let terms = Some(BudgetTerms {
        limits: Some(limits),
        ..BudgetTerms::default()
    });
    let name = "team".to_owned();
    let request = CreateBudgetRequest { name, terms };
    scene.client.create_budget(request).await?;
    Ok((scene, files, root))
}

fn charged() -> StartLoopRequest {
    let mut request = ask("m");
    request.agent = request.agent.map(|agent| Agent {
        budgets: vec!["team".to_owned()],
        ..agent
    });
    request
}

/// Tool calls that the budget was charged with, once nothing is set aside any more.
async fn charged_calls(scene: &Scene) -> Result<u64> {
    scene::eventually("nothing is set aside", async || {
        Ok(scene.client.get_budget("team").await?.open_reservations == 0)
    })
    .await?;
    let team = scene.client.get_budget("team").await?;
    Ok(team.settled.unwrap_or_default().tool_calls)
}

fn lines(root: &Path) -> Result<String> {
    Ok(fs::read_to_string(root.join("it.txt"))?.replace('\n', ""))
}

/// Each call has exactly one answer: `scene.run` checks it of every loop.
#[tokio::test(flavor = "multi_thread")]
async fn tools_over_a_shared_limit_are_refused_once_each_and_never_sent() -> Result<()> {
    let (scene, _files, root) = with_budget(3).await?;
    let entries = scene.run(charged()).await?;
    assert_eq!(lines(root.path())?, "adf", "what the sidecar really did");
    let refused = kinds(&entries).filter_map(|kind| match kind {
        Kind::ToolCallRejected(e) => Some(e.message.as_str()),
        _ => None,
    });
    let refused: Vec<&str> = refused.collect();
    assert_eq!(refused.len(), 5, "{refused:?}");
    let (later, last) = refused.split_at(4);
    for told in later {
        ensure!(told.contains("let 1 of this reply through"), "{told}");
    }
    ensure!(last[0].contains("is used up"), "{last:?}");
    let started = |kind: &&Kind| matches!(kind, Kind::ToolCallStarted(_));
    assert_eq!(kinds(&entries).filter(started).count(), 3);
    let end = end_of(&entries)?;
    let Some(Detail::BudgetExceeded(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    let named = detail.budget.clone().unwrap_or_default().name;
    assert_eq!(
        (named.as_str(), detail.dimension()),
        ("team", BudgetDimension::ToolCalls)
    );
    assert_eq!(charged_calls(&scene).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_that_run_together_make_no_more_tool_calls_than_they_share() -> Result<()> {
    let (scene, _files, root) = with_budget(7).await?;
    let all = try_join_all((0..5).map(|_| scene.run(charged()))).await?;
    let mut started = 0;
    for entries in &all {
        started += kinds(entries)
            .filter(|kind| matches!(kind, Kind::ToolCallStarted(_)))
            .count();
        let reason = end_of(entries)?.reason();
        ensure!(
            [EndReason::Completed, EndReason::BudgetExceeded].contains(&reason),
            "{reason:?}"
        );
    }
    let done = lines(root.path())?.len();
    assert_eq!(done, started, "what the logs say is what was done");
    ensure!((1..=7).contains(&done), "{done} calls of 7");
    assert_eq!(charged_calls(&scene).await?, u64::try_from(done)?);
    Ok(())
}
