//! The floor: the same work as a bare loop. reqwest, one tonic unary, two acknowledged appends a
//! step on one shared journal; the history grows as bytes and is never serialised again.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use loopwright_proto::v1::{DescribeRequest, sidecar_service_client::SidecarServiceClient};
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::{Workload, journal::Journal};

/// What the floor works with.
#[derive(Clone)]
struct Floor {
    http: reqwest::Client,
    model: String,
    tool: SidecarServiceClient<Channel>,
    journal: Journal,
}

/// Runs a workload on the mock, its loops numbered from `base`.
///
/// # Errors
/// Where anything of it fails: the bench is void then.
pub async fn run(work: Workload, base: u32, model: &str, sidecar: &str, sync: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let endpoint = Endpoint::from_shared(sidecar.to_owned())?.tcp_nodelay(true);
    let floor = Floor {
        http: reqwest::Client::builder().tcp_nodelay(true).build()?,
        model: format!("{model}/v1/chat/completions"),
        tool: SidecarServiceClient::new(endpoint.connect().await?),
        journal: Journal::create(&dir.path().join("journal"), sync)?,
    };
    let mut loops = JoinSet::new();
    for number in base..base + work.loops {
        loops.spawn(floor.clone().one_loop(work, number));
    }
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    Ok(())
}

impl Floor {
    async fn one_loop(mut self, work: Workload, number: u32) -> Result<()> {
        let first = serde_json::json!({ "role": "user", "content": work.message(number) });
        let mut history = first.to_string().into_bytes();
        loop {
            let mut body = b"{\"model\":\"m\",\"stream\":true,\"messages\":[".to_vec();
            body.extend_from_slice(&history);
            body.extend_from_slice(b"]}");
            let reply = self.call_model(body.into()).await?;
            let mut line = serde_json::to_vec(&reply)?;
            line.push(b'\n');
            self.journal.append(line).await;
            let Some(call) = reply.first().filter(|call| !call.is_null()) else {
                return Ok(());
            };
            let result = self
                .tool
                .describe(DescribeRequest::default())
                .await?
                .into_inner();
            ensure!(result.tools.len() == 1, "the tool answered otherwise");
            let text = "y".repeat(work.result_bytes as usize);
            let turns = serde_json::json!([
                { "role": "assistant", "tool_calls": [call] },
                { "role": "tool", "tool_call_id": call["id"], "content": text },
            ])
            .to_string();
            let mut line = turns.clone().into_bytes();
            line.push(b'\n');
            self.journal.append(line).await;
            history.push(b',');
            history.extend_from_slice(&turns.as_bytes()[1..turns.len() - 1]);
        }
    }

    /// The tool calls of the model's reply; none in its last.
    async fn call_model(&self, body: Bytes) -> Result<Vec<Value>> {
        let request = self
            .http
            .post(&self.model)
            .header("content-type", "application/json");
        let response = request.body(body).send().await?.error_for_status()?;
        let mut events = response.bytes_stream().eventsource();
        let mut calls = Vec::new();
        while let Some(event) = events.next().await {
            let event = event?;
            if event.data == "[DONE]" {
                return Ok(calls);
            }
            let chunk: Value = serde_json::from_str(&event.data)?;
            let delta = &chunk["choices"][0]["delta"]["tool_calls"][0];
            if !delta.is_null() {
                calls.push(delta.clone());
            }
        }
        Err(anyhow::anyhow!("the stream ended before its end")).context("model")
    }
}
