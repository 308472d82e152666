//! A result that is too long to be told stays readable, also once it was compacted and restarted.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    Agent, ContextOptions, Entry, LoopLimits, SendMessageRequest, StartLoopRequest, ToolSelection,
    event::Kind, part, send_message_request, start_loop_request::Input,
};
use loopwright_tests::{
    kit,
    scene::{self, Stage, end_of, kinds},
};
use loopwright_tools::{NoArgs, Serving, Sidecar, Tool, ToolContext};

const READ: &str = "loopwright__read_output";
const RANGE: std::ops::Range<usize> = 100_003..104_003;

/// What the tool gives back: 200 KB of which no two lines are the same.
fn dump() -> String {
    let lines = (0..25_000).map(|at| format!("{at:07}\n"));
    lines.collect()
}

async fn serve(server: &str) -> Result<Serving> {
    let dump = |_: ToolContext, _: NoArgs| async move { Ok(dump()) };
    let tool = Tool::new("dump", "Gives back much.", dump).read_only();
    let sidecar = Sidecar::new("big").tool(tool).server(server);
    Ok(sidecar.spawn().await?)
}

/// Asks for it all, reads a range of it, talks until that is compacted; in a second loop reads it again.
fn script() -> String {
    let words = "The work goes on as it did. ".repeat(40);
    let read = format!(
        "- tool_calls:\n  - tool: {READ}\n    arguments: {{ handle: c2, range: {{ start: {}, end: {} }} }}\n",
        RANGE.start, RANGE.end
    );
    format!(
        "turns:\n- tool_calls:\n  - tool: big__dump\n{read}\
         - text: \"{words}\"\n  tool_calls:\n  - tool: none__such\n  repeat: 20\n\
         - text: done\n{read}- text: done again\n"
    )
}

fn start(session: &str, tools: Option<&[&str]>) -> StartLoopRequest {
    let limits = LoopLimits {
        max_output_tokens: Some(1_000),
        ..LoopLimits::default()
    };
    let context = ContextOptions {
        max_tokens: Some(20_000),
        ..ContextOptions::default()
    };
    let selection = |names: &[&str]| ToolSelection {
        tools: names.iter().map(|&name| name.to_owned()).collect(),
    };
    StartLoopRequest {
        session_id: session.to_owned(),
        agent: Some(Agent {
            limits: Some(limits),
            context: Some(context),
            tools: tools.map(selection),
            ..Agent::default()
        }),
        input: Some(Input::Text("Look at all of it.".to_owned())),
        ..StartLoopRequest::default()
    }
}

/// What the calls of a session gave back, by call.
fn results(entries: &[Entry]) -> Vec<(String, String)> {
    let completed = kinds(entries).filter_map(|kind| {
        let Kind::ToolCallCompleted(completed) = kind else {
            return None;
        };
        let parts = &completed.result.as_ref()?.parts;
        let texts = parts.iter().filter_map(|part| match &part.kind {
            Some(part::Kind::Text(text)) => Some(text.as_str()),
            _ => None,
        });
        Some((completed.call.clone(), texts.collect()))
    });
    completed.collect()
}

fn offered(entries: &[Entry]) -> Vec<&str> {
    let sets = kinds(entries).filter_map(|kind| match kind {
        Kind::ToolsChanged(changed) => Some(&changed.tools),
        _ => None,
    });
    let last = sets.last().into_iter().flatten();
    last.map(|tool| tool.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_long_result_is_read_to_the_byte_also_after_compaction_and_kill() -> Result<()>
{
    let mut scene = Stage::new(&[("m", &script())])?.start()?;
    let _sidecar = serve(&scene.server.url).await?;
    kit::wait_for_tools(&scene.client, &["big__dump"]).await?;
    let entries = scene.run(start("s1", None)).await?;
    assert_eq!(end_of(&entries)?.result_text, "done");
    assert_eq!(offered(&entries), ["big__dump", READ]);
    let first = results(&entries);
    let told = &first.first().context("a result")?.1;
    ensure!(
        told.len() <= 30_000 && told.contains(&format!("all of it: {READ}, handle c2 ...]")),
        "{told}"
    );
    let head = format!("[c2: bytes {} to {} of 200000]\n", RANGE.start, RANGE.end);
    let read = format!("{head}{}", &dump()[RANGE]);
    assert_eq!(first.get(1), Some(&("c4".to_owned(), read.clone())));
    let recaps = kinds(&entries).filter_map(|kind| match kind {
        Kind::ContextCompacted(compacted) => Some(&compacted.recap),
        _ => None,
    });
    let recap = recaps.last().context("it was never compacted")?;
    ensure!(recap.contains("- c2 big__dump"), "{recap}");

    scene.server.kill()?;
    scene.server.restart()?;
    let again = SendMessageRequest {
        session_id: "s1".to_owned(),
        input: Some(send_message_request::Input::Text("Look again.".to_owned())),
        ..SendMessageRequest::default()
    };
    scene.client.send_message(again).await?;
    let entries = scene::to_end(&scene.client, "s1", "l2").await?;
    assert_eq!(end_of(&entries)?.result_text, "done again");
    let last = results(&entries).pop().context("a result")?;
    assert_eq!(last.1, read);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_that_leaves_it_out_is_neither_offered_it_nor_told_of_it() -> Result<()> {
    let scene = Stage::new(&[("m", &script())])?.start()?;
    let _sidecar = serve(&scene.server.url).await?;
    kit::wait_for_tools(&scene.client, &["big__dump"]).await?;
    let entries = scene.run(start("s1", Some(&["big__dump"]))).await?;
    assert_eq!(offered(&entries), ["big__dump"]);
    let results = results(&entries);
    assert_eq!(results.len(), 1, "the read was refused: {results:?}");
    ensure!(!results.iter().any(|(_, text)| text.contains(READ)));
    let refused = |kind: &Kind| matches!(kind, Kind::ToolCallRejected(one) if one.call == "c4");
    ensure!(kinds(&entries).any(refused), "{entries:#?}");
    let entries = scene.run(start("s2", Some(&["big__dump", READ]))).await?;
    assert_eq!(offered(&entries), ["big__dump", READ]);
    Ok(())
}
