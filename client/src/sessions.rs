//! Sessions as a whole: what a model was sent, copies, exports and imports, integrity, deletion.
//!
//! Boundary: SessionLogService but for what is read entry by entry. Invariant: what changes something is
//! sent with the same `request_id` however often it is tried; an export ends without an error only where
//! all of it came.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use loopwright_proto::v1::session_log_service_client::SessionLogServiceClient;
use loopwright_proto::v1::{
    DeleteSessionRequest, ExportSessionRequest, ExportSessionResponse, ForkSessionRequest,
    GetModelRequestRequest, GetModelRequestResponse, ImportHead, ImportSessionRequest,
    IntegrityReport, ModelRequestHead, SessionSummary, VerifySessionRequest,
    get_model_request_response, import_session_request,
};
use tonic::{Request, Response, Status, Streaming};

use crate::client::fill_in;
use crate::{Client, Error};

/// How long the server may take to read or copy a whole session: 10 minutes.
const WHOLE_SESSION: Duration = Duration::from_secs(600);

/// The lines of an export, in pieces that end anywhere.
pub struct Export {
    url: String,
    chunks: Streaming<ExportSessionResponse>,
}

impl Client {
    /// What the model was sent at one attempt of a call: what it is, and the body.
    ///
    /// # Errors
    /// As SessionLogService.GetModelRequest says.
    pub async fn get_model_request(
        &self,
        request: GetModelRequestRequest,
    ) -> Result<(ModelRequestHead, Vec<u8>), Error> {
        self.call_within(WHOLE_SESSION, request, |channel, request| async move {
            let items = SessionLogServiceClient::new(channel)
                .get_model_request(request)
                .await?;
            whole(items.into_inner()).await.map(Response::new)
        })
        .await
    }

    /// Makes a new session of the entries of another one. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As SessionLogService.ForkSession says.
    pub async fn fork_session(
        &self,
        mut request: ForkSessionRequest,
    ) -> Result<SessionSummary, Error> {
        fill_in(&mut request.request_id);
        let answer = self.call_within(WHOLE_SESSION, request, |channel, request| async move {
            SessionLogServiceClient::new(channel)
                .fork_session(request)
                .await
        });
        Ok(answer.await?.session.unwrap_or_default())
    }

    /// Reads the whole of a session and says whether it holds. A damaged session is no error.
    ///
    /// # Errors
    /// As SessionLogService.VerifySession says.
    pub async fn verify_session(&self, session_id: &str) -> Result<IntegrityReport, Error> {
        let session_id = session_id.to_owned();
        let request = VerifySessionRequest { session_id };
        let answer = self.call_within(WHOLE_SESSION, request, |channel, request| async move {
            SessionLogServiceClient::new(channel)
                .verify_session(request)
                .await
        });
        Ok(answer.await?.report.unwrap_or_default())
    }

    /// Deletes a session for good. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As SessionLogService.DeleteSession says.
    pub async fn delete_session(&self, mut request: DeleteSessionRequest) -> Result<(), Error> {
        fill_in(&mut request.request_id);
        let answer = self.call_within(WHOLE_SESSION, request, |channel, request| async move {
            SessionLogServiceClient::new(channel)
                .delete_session(request)
                .await
        });
        answer.await.map(drop)
    }

    /// Begins to export a session; read it with [`Export::next`].
    ///
    /// # Errors
    /// As SessionLogService.ExportSession says.
    pub async fn export_session(&self, request: ExportSessionRequest) -> Result<Export, Error> {
        let url = self.options().url.clone();
        let chunks = self.call_within(WHOLE_SESSION, request, |channel, request| async move {
            SessionLogServiceClient::new(channel)
                .export_session(request)
                .await
        });
        let chunks = chunks.await?;
        Ok(Export { url, chunks })
    }

    /// Makes a session of the lines of an export, which come in pieces of at most 1 MiB. An empty
    /// `request_id` is filled in. Tried once: the pieces cannot be had again.
    ///
    /// # Errors
    /// As SessionLogService.ImportSession says.
    pub async fn import_session(
        &self,
        mut head: ImportHead,
        chunks: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<SessionSummary, Error> {
        use import_session_request::Item;
        fill_in(&mut head.request_id);
        let message = |item| ImportSessionRequest { item: Some(item) };
        let head = tokio_stream::once(message(Item::Head(head)));
        let chunks = chunks.map(move |chunk| message(Item::Chunk(chunk.into())));
        let answer = self
            .logs()
            .import_session(Request::new(head.chain(chunks)))
            .await;
        let answer = answer.map_err(|status| Error::from_status(&status, &self.options().url))?;
        Ok(answer.into_inner().session.unwrap_or_default())
    }
}

/// A request body, once all of it has come.
async fn whole(
    mut items: Streaming<GetModelRequestResponse>,
) -> Result<(ModelRequestHead, Vec<u8>), Status> {
    use get_model_request_response::Item;
    let (mut head, mut body) = (ModelRequestHead::default(), Vec::new());
    while let Some(item) = items.message().await? {
        match item.item {
            Some(Item::Head(came)) => head = came,
            Some(Item::Body(piece)) => body.extend_from_slice(&piece),
            None => {}
        }
    }
    if body.len() as u64 == head.bytes {
        return Ok((head, body));
    }
    Err(Status::unavailable("the request body was cut"))
}

impl Export {
    /// The next bytes; none once all came.
    ///
    /// # Errors
    /// What the server said, or that the connection broke.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.chunks.message().await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.chunk.into())),
            Err(status) => Err(Error::from_status(&status, &self.url)),
        }
    }
}
