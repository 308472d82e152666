//! Sidecars over real gRPC in this process, on tcp and unix sockets, against a small fake of ToolService.

#![expect(clippy::unwrap_used, reason = "tests")]

mod calls;
mod fake;
mod keys;
mod lookups;
mod registration;

use std::time::Duration;

use loopwright_proto::v1::call_tool_response::Kind;
use loopwright_proto::v1::sidecar_service_client::SidecarServiceClient;
use loopwright_proto::v1::{CallToolRequest, CallToolResponse};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::{Serving, Sidecar};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

type Client = SidecarServiceClient<Channel>;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes far too long")
}

async fn served(sidecar: Sidecar) -> (Serving, Client) {
    let serving = sidecar
        .without_server()
        .notices(|_| ())
        .spawn()
        .await
        .unwrap();
    let client = dial(serving.endpoint()).await;
    (serving, client)
}

async fn dial(endpoint: &str) -> Client {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).unwrap();
    SidecarServiceClient::new(within(endpoint.connect()).await.unwrap())
}

fn request(tool: &str, arguments_json: &str) -> CallToolRequest {
    CallToolRequest {
        session_id: "s1".to_owned(),
        call: "c1".to_owned(),
        key: "default/s1/c1".to_owned(),
        attempt: 1,
        epoch: 1,
        tool: tool.to_owned(),
        arguments_json: arguments_json.to_owned(),
        ..CallToolRequest::default()
    }
}

async fn call(client: &mut Client, request: CallToolRequest) -> Streaming<CallToolResponse> {
    within(client.call_tool(request))
        .await
        .unwrap()
        .into_inner()
}

async fn next(stream: &mut Streaming<CallToolResponse>) -> Option<Kind> {
    within(stream.message())
        .await
        .unwrap()
        .map(|message| message.kind.unwrap())
}

/// The last message of a call, and the text that it holds.
async fn last(mut stream: Streaming<CallToolResponse>) -> (Kind, String) {
    loop {
        let kind = next(&mut stream)
            .await
            .expect("a stream ends with a result");
        if let Some(text) = text_of(&kind) {
            assert_eq!(
                next(&mut stream).await,
                None,
                "the result is the last message"
            );
            return (kind, text);
        }
    }
}

fn text_of(kind: &Kind) -> Option<String> {
    use loopwright_proto::v1::part;
    match kind {
        Kind::Progress(_) => None,
        Kind::NotExecuted(refusal) => Some(refusal.reason.clone()),
        Kind::Result(result) => Some(
            match result.parts.first().and_then(|part| part.kind.clone()) {
                Some(part::Kind::Text(text)) => text,
                _ => String::new(),
            },
        ),
    }
}
