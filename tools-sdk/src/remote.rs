//! A sidecar elsewhere, called directly: to try a tool without a model, and in tests.

use loopwright_proto::v1;
use loopwright_proto::v1::sidecar_service_client::SidecarServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::answer::Outcome;
use crate::context::Progress;
use crate::error::RemoteError;
use crate::{endpoint, toolbox, wire};

/// Largest message that is read; the contract's own limit.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// A connection to a sidecar.
#[derive(Clone, Debug)]
pub struct RemoteSidecar {
    url: String,
    client: SidecarServiceClient<Channel>,
}

/// A tool as its sidecar describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTool {
    /// Its own name.
    pub name: String,
    /// What a model is told.
    pub description: String,
    /// JSON Schema of its arguments, as JSON text.
    pub input_schema_json: String,
    /// The effect class as the wire names it, such as `EFFECT_CLASS_READ_ONLY`.
    pub effect_class: String,
}

impl RemoteSidecar {
    /// Connects to "http://host:port" or "unix:/path".
    pub async fn connect(url: &str) -> Result<Self, RemoteError> {
        let url = url.trim().to_owned();
        let endpoint = endpoint::parse(&url).map_err(|why| RemoteError::Address {
            url: url.clone(),
            why,
        })?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| RemoteError::Unreachable {
                url: url.clone(),
                why: endpoint::root_cause(&error),
            })?;
        let client =
            SidecarServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { url, client })
    }

    /// The sidecar's tools.
    pub async fn tools(&mut self) -> Result<Vec<RemoteTool>, RemoteError> {
        let described = self.client.describe(v1::DescribeRequest {}).await;
        let tools = described
            .map_err(|status| self.broken(&status))?
            .into_inner()
            .tools;
        let tools = tools.into_iter().map(|tool| RemoteTool {
            effect_class: tool.effect_class().as_str_name().to_owned(),
            name: tool.name,
            description: tool.description,
            input_schema_json: tool.input_schema_json,
        });
        Ok(tools.collect())
    }

    /// Calls a tool once, under a key that nobody used before, and hears it to its end.
    pub async fn call(
        &mut self,
        tool: &str,
        arguments_json: &str,
        on_progress: impl FnMut(&Progress),
    ) -> Result<Outcome, RemoteError> {
        let call = uuid::Uuid::now_v7().simple().to_string();
        let key = format!("local/try/{call}");
        self.call_keyed(tool, arguments_json, &key, on_progress)
            .await
    }

    /// Calls a tool under a key.
    pub async fn call_keyed(
        &mut self,
        tool: &str,
        arguments_json: &str,
        key: &str,
        mut on_progress: impl FnMut(&Progress),
    ) -> Result<Outcome, RemoteError> {
        let request = v1::CallToolRequest {
            session_id: "try".to_owned(),
            call: key.rsplit('/').next().unwrap_or_default().to_owned(),
            key: key.to_owned(),
            attempt: 1,
            epoch: 1,
            tool: tool.to_owned(),
            arguments_json: arguments_json.to_owned(),
            arguments_sha256: toolbox::arguments_sha256(arguments_json),
            ..v1::CallToolRequest::default()
        };
        let called = self.client.call_tool(request).await;
        let mut stream = called.map_err(|status| self.broken(&status))?.into_inner();
        loop {
            let message = stream
                .message()
                .await
                .map_err(|status| self.broken(&status))?;
            let Some(message) = message else {
                return Err(self.cut("the stream ended without a result"));
            };
            match message.kind.map(wire::outcome_from) {
                Some(Ok(outcome)) => return Ok(outcome),
                Some(Err(progress)) => on_progress(&progress),
                // A kind of a later version.
                None => (),
            }
        }
    }

    fn broken(&self, status: &Status) -> RemoteError {
        self.cut(&endpoint::status_words(status))
    }

    fn cut(&self, why: &str) -> RemoteError {
        RemoteError::Broken {
            url: self.url.clone(),
            why: why.to_owned(),
        }
    }
}
