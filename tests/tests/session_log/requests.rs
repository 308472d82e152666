use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{GetModelRequestRequest, StartLoopRequest, event::Kind};
use loopwright_tests::{
    kit::{self, Options, Sidecar},
    mock_model::{MockModel, Reply},
    scene::{self, ask, refusal},
};

fn of(call: &str, attempt: u32) -> GetModelRequestRequest {
    GetModelRequestRequest {
        session_id: "s1".to_owned(),
        call: call.to_owned(),
        attempt,
    }
}

/// A session of three calls over real HTTP, the second one sent twice.
async fn shown(provider: &str, base_url: &str, mock: &MockModel) -> Result<()> {
    let options = Options::default()
        .set("models.m.provider", provider)
        .set("models.m.id", "local")
        .set("models.m.base_url", base_url)
        .set("retry.base_delay", "1ms");
    let temp = tempfile::tempdir()?;
    let mut server = options.clone().start_in(temp.path())?;
    let client = scene::client(&server.url, None)?;
    let _calc = Sidecar::start(&server, &["calc"])?;
    kit::wait_for_tools(&client, &["calc__evaluate"]).await?;
    mock.push(Reply::calls([(
        "calc__evaluate",
        "{\"expression\":\"1+1\"}",
    )]));
    mock.push(loopwright_tests::mock_model::Answer::status(503, "{}"));
    mock.push(Reply::calls([(
        "calc__evaluate",
        "{\"expression\":\"2+2\"}",
    )]));
    mock.push(Reply::text("four"));
    let started = client
        .start_loop(StartLoopRequest {
            session_id: "s1".to_owned(),
            ..ask("m")
        })
        .await?;
    let entries = scene::to_end(&client, "s1", &started.loop_id).await?;
    let attempts: Vec<(String, u32)> = scene::kinds(&entries)
        .filter_map(|kind| match kind {
            Kind::ModelCallStarted(e) => Some((e.call.clone(), e.attempt)),
            _ => None,
        })
        .collect();
    let sent = mock.requests();
    ensure!(attempts.len() == 4 && sent.len() == 4, "{attempts:?}");
    server.kill()?;
    server.restart()?;
    let client = scene::client(&server.url, None)?;
    for ((call, attempt), sent) in attempts.iter().zip(&sent) {
        let (head, body) = client.get_model_request(of(call, *attempt)).await?;
        ensure!(String::from_utf8(body)? == sent.text(), "{call}/{attempt}");
        ensure!(
            head.exact && head.sent_crc32c == head.body_crc32c,
            "{head:?}"
        );
        ensure!(head.provider == provider && head.model == "m", "{head:?}");
    }
    let last = client.get_model_request(of("", 0)).await?;
    ensure!(last.0.call == attempts[3].0 && last.1 == sent[3].text().as_bytes());
    let none = refusal(client.get_model_request(of("c1", 9)).await)?;
    ensure!(none.reason == "CALL_NOT_FOUND", "{none:?}");

    // Another configuration renders another body, and that is said.
    server.terminate()?;
    let other = options
        .set("models.m.id", "another")
        .start_in(temp.path())?;
    let client = scene::client(&other.url, None)?;
    let (head, body) = client.get_model_request(of(&attempts[0].0, 1)).await?;
    ensure!(
        !head.exact && head.sent_crc32c != head.body_crc32c,
        "{head:?}"
    );
    let text = String::from_utf8(body)?;
    let text = text.replace("\"model\":\"another\"", "\"model\":\"local\"");
    ensure!(text == sent[0].text(), "all but the name is the same");
    Ok(())
}

#[tokio::test]
async fn what_an_openai_model_saw_is_shown_byte_for_byte() -> Result<()> {
    let mock = MockModel::start().await?;
    let url = mock.openai_url();
    shown("openai", &url, &mock).await.context("openai")
}

#[tokio::test]
async fn what_an_anthropic_model_saw_is_shown_byte_for_byte() -> Result<()> {
    let mock = MockModel::start().await?;
    let url = mock.anthropic_url();
    shown("anthropic", &url, &mock).await.context("anthropic")
}
