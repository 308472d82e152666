//! A tool that goes in mid-loop: the model is still told of it, so that the prefix holds, and a call of it is
//! refused when it is made.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    DeregisterSidecarRequest, EndReason, StartLoopRequest, deregister_sidecar_request::Target,
    event::Kind, tool_service_client::ToolServiceClient,
};
use loopwright_tests::{
    mock_model::Reply,
    scene::{ask, end_of, kinds, to_end},
};

use super::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_tool_stays_defined_and_its_calls_are_refused() -> Result<()> {
    let stage = Stage::new(&[("tools.sidecar_wait", "0s"), ("retry.max_attempts", "1")]).await?;
    stage.mock.push(Reply::calls([("probe__hold", "{}")]));
    stage.mock.push(Reply::calls([("probe__note", "{}")]));
    stage.mock.push(Reply::text("it is gone"));
    let started = stage
        .client
        .start_loop(StartLoopRequest { ..ask("m") })
        .await?;
    // While its call runs, the sidecar is taken out; the call may end.
    stage.probe.until(|counts| counts.running == 1).await?;
    let mut tools = ToolServiceClient::connect(stage.server.url.clone()).await?;
    let target = Some(Target::Name("probe".to_owned()));
    tools
        .deregister_sidecar(DeregisterSidecarRequest { target })
        .await?;
    stage.probe.let_go(1);
    let entries = to_end(&stage.client, &started.session_id, "").await?;

    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    assert_eq!(
        stage.probe.calls().len(),
        1,
        "only what was asked for before"
    );
    let refused = kinds(&entries).find_map(|kind| match kind {
        Kind::ToolCallFailed(failed) => Some(failed),
        _ => None,
    });
    let refused = refused.context("the second call is refused")?;
    ensure!(refused.message.contains("probe"), "{refused:?}");

    let bodies = stage.bodies();
    let head = |body: &str| {
        let end = body.find("\"messages\"").context("messages")?;
        anyhow::Ok(body[..end].to_owned())
    };
    assert_eq!(bodies.len(), 3);
    ensure!(head(&bodies[0])?.contains("probe__note") && head(&bodies[0])?.contains("files__"));
    for body in &bodies[1..] {
        assert_eq!(
            head(body)?,
            head(&bodies[0])?,
            "the definitions are unchanged"
        );
    }
    let told: serde_json::Value = serde_json::from_str(&bodies[2])?;
    let messages = told["messages"].as_array().context("messages")?;
    let result = &messages.last().context("a result")?["content"][0];
    assert_eq!(result["type"], "tool_result", "{result}");
    assert_eq!(result["is_error"], true, "{result}");
    Ok(())
}
