//! The typed commands.
//!
//! Boundary: one method an rpc, messages as in the contract. Invariant: a mutation is sent with the same
//! `request_id` however often it is tried, so trying again is safe.

use std::future::Future;
use std::time::Duration;

use backon::Retryable as _;
use loopwright_proto::v1::budget_service_client::BudgetServiceClient;
use loopwright_proto::v1::loop_service_client::LoopServiceClient;
use loopwright_proto::v1::session_log_service_client::SessionLogServiceClient;
use loopwright_proto::v1::tool_service_client::ToolServiceClient;
use loopwright_proto::v1::{
    CancelLoopRequest, CancelLoopResponse, GetLoopRequest, GetLoopResponse, GetSessionRequest,
    GetSessionResponse, ListLoopsRequest, ListLoopsResponse, ListSessionsRequest,
    ListSessionsResponse, ListSidecarsRequest, ListSidecarsResponse, ListToolsRequest,
    ListToolsResponse, PauseLoopRequest, PauseLoopResponse, ReadEntriesRequest,
    ResolveApprovalRequest, ResolveApprovalResponse, ResolveUnknownRequest, ResolveUnknownResponse,
    ResumeLoopRequest, ResumeLoopResponse, SendMessageRequest, SendMessageResponse,
    StartLoopRequest, StartLoopResponse, UpdateLimitsRequest, UpdateLimitsResponse,
};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::link::backoff;
use crate::options::Credential;
use crate::{ClientOptions, Conversation, Error, Opening, ReadEntries, Watch, WatchOptions};

/// A client of one server. Cheap to clone; clones share one connection.
///
/// Every command is tried again, with the same `request_id`, while the server cannot be reached or says
/// UNAVAILABLE: [`ClientOptions::retries`] times within [`ClientOptions::command_timeout`].
#[derive(Clone)]
pub struct Client {
    channel: Authorized,
    options: ClientOptions,
}

pub(crate) type Authorized = InterceptedService<Channel, Credential>;

impl Client {
    /// A client that connects when it is first used. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Options`] where the address or the token cannot be used.
    pub fn connect(options: ClientOptions) -> Result<Self, Error> {
        let channel = InterceptedService::new(options.channel()?, options.credential()?);
        Ok(Self { channel, options })
    }

    /// What the client was made with.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Creates a session, or goes on with one, and starts a loop over it with a message. An empty
    /// `request_id` is filled in.
    ///
    /// # Errors
    /// As LoopService.StartLoop says.
    pub async fn start_loop(
        &self,
        mut request: StartLoopRequest,
    ) -> Result<StartLoopResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).start_loop(request).await
        })
        .await
    }

    /// Gives a session a message. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As LoopService.SendMessage says.
    pub async fn send_message(
        &self,
        mut request: SendMessageRequest,
    ) -> Result<SendMessageResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).send_message(request).await
        })
        .await
    }

    /// Cancels the loop that is going on; LoopEnded says when everything stopped. An empty `request_id` is
    /// filled in.
    ///
    /// # Errors
    /// As LoopService.CancelLoop says.
    pub async fn cancel_loop(
        &self,
        mut request: CancelLoopRequest,
    ) -> Result<CancelLoopResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).cancel_loop(request).await
        })
        .await
    }

    /// Allows or denies a tool call that waits for a person. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As LoopService.ResolveApproval says.
    pub async fn resolve_approval(
        &self,
        mut request: ResolveApprovalRequest,
    ) -> Result<ResolveApprovalResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel)
                .resolve_approval(request)
                .await
        })
        .await
    }

    /// Pauses the loop that is going on. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As LoopService.PauseLoop says.
    pub async fn pause_loop(
        &self,
        mut request: PauseLoopRequest,
    ) -> Result<PauseLoopResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).pause_loop(request).await
        })
        .await
    }

    /// Lets a paused loop go on. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As LoopService.ResumeLoop says.
    pub async fn resume_loop(
        &self,
        mut request: ResumeLoopRequest,
    ) -> Result<ResumeLoopResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).resume_loop(request).await
        })
        .await
    }

    /// Moves limits of the loop that is going on. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As LoopService.UpdateLimits says.
    pub async fn update_limits(
        &self,
        mut request: UpdateLimitsRequest,
    ) -> Result<UpdateLimitsResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).update_limits(request).await
        })
        .await
    }

    /// Says what a tool call did of which nobody could tell. An empty `request_id` is filled in.
    ///
    /// # Errors
    /// As LoopService.ResolveUnknown says.
    pub async fn resolve_unknown(
        &self,
        mut request: ResolveUnknownRequest,
    ) -> Result<ResolveUnknownResponse, Error> {
        fill_in(&mut request.request_id);
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel)
                .resolve_unknown(request)
                .await
        })
        .await
    }

    /// Says where a loop stands.
    ///
    /// # Errors
    /// As LoopService.GetLoop says.
    pub async fn get_loop(&self, request: GetLoopRequest) -> Result<GetLoopResponse, Error> {
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).get_loop(request).await
        })
        .await
    }

    /// Lists one page of loops.
    ///
    /// # Errors
    /// As LoopService.ListLoops says.
    pub async fn list_loops(&self, request: ListLoopsRequest) -> Result<ListLoopsResponse, Error> {
        self.call(request, |channel, request| async move {
            LoopServiceClient::new(channel).list_loops(request).await
        })
        .await
    }

    /// Lists one page of sessions.
    ///
    /// # Errors
    /// As SessionLogService.ListSessions says.
    pub async fn list_sessions(
        &self,
        request: ListSessionsRequest,
    ) -> Result<ListSessionsResponse, Error> {
        self.call(request, |channel, request| async move {
            SessionLogServiceClient::new(channel)
                .list_sessions(request)
                .await
        })
        .await
    }

    /// Says where a session stands.
    ///
    /// # Errors
    /// As SessionLogService.GetSession says.
    pub async fn get_session(
        &self,
        request: GetSessionRequest,
    ) -> Result<GetSessionResponse, Error> {
        self.call(request, |channel, request| async move {
            SessionLogServiceClient::new(channel)
                .get_session(request)
                .await
        })
        .await
    }

    /// Lists one page of tools.
    ///
    /// # Errors
    /// As ToolService.ListTools says.
    pub async fn list_tools(&self, request: ListToolsRequest) -> Result<ListToolsResponse, Error> {
        self.call(request, |channel, request| async move {
            ToolServiceClient::new(channel).list_tools(request).await
        })
        .await
    }

    /// Lists one page of sidecars.
    ///
    /// # Errors
    /// As ToolService.ListSidecars says.
    pub async fn list_sidecars(
        &self,
        request: ListSidecarsRequest,
    ) -> Result<ListSidecarsResponse, Error> {
        self.call(request, |channel, request| async move {
            ToolServiceClient::new(channel).list_sidecars(request).await
        })
        .await
    }

    /// Reads a range of a log, and goes on by itself where the answer is cut.
    #[must_use]
    pub fn read_entries(&self, request: ReadEntriesRequest) -> ReadEntries {
        ReadEntries::new(self.clone(), request)
    }

    /// Watches a session from a cursor, deltas included, until the stream is dropped.
    #[must_use]
    pub fn watch(&self, session_id: impl Into<String>, after_seq: u64) -> Watch {
        let options = WatchOptions {
            after_seq,
            ..WatchOptions::default()
        };
        self.watch_with(session_id, options)
    }

    /// Watches a session as the options say.
    #[must_use]
    pub fn watch_with(&self, session_id: impl Into<String>, options: WatchOptions) -> Watch {
        Watch::new(self.clone(), session_id.into(), options)
    }

    /// Opens the interactive channel of one session. Nothing is sent before its first `next`.
    #[must_use]
    pub fn converse(&self, opening: Opening) -> Conversation {
        Conversation::new(self.clone(), opening)
    }

    pub(crate) fn loops(&self) -> LoopServiceClient<Authorized> {
        LoopServiceClient::new(self.channel.clone())
    }

    pub(crate) fn budgets(&self) -> BudgetServiceClient<Authorized> {
        BudgetServiceClient::new(self.channel.clone())
    }

    pub(crate) fn logs(&self) -> SessionLogServiceClient<Authorized> {
        SessionLogServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn call<Req, Res, Send, Sent>(
        &self,
        request: Req,
        send: Send,
    ) -> Result<Res, Error>
    where
        Req: Clone,
        Send: Fn(Authorized, Request<Req>) -> Sent,
        Sent: Future<Output = Result<Response<Res>, Status>>,
    {
        self.call_within(self.options.command_timeout, request, send)
            .await
    }

    /// As `call`, for what takes longer than a command.
    pub(crate) async fn call_within<Req, Res, Send, Sent>(
        &self,
        limit: Duration,
        request: Req,
        send: Send,
    ) -> Result<Res, Error>
    where
        Req: Clone,
        Send: Fn(Authorized, Request<Req>) -> Sent,
        Sent: Future<Output = Result<Response<Res>, Status>>,
    {
        let attempt = || {
            let mut request = Request::new(request.clone());
            request.set_timeout(limit);
            let sent = Box::pin(send(self.channel.clone(), request));
            async move {
                let response = sent.await;
                response
                    .map(Response::into_inner)
                    .map_err(|status| Error::from_status(&status, &self.options.url))
            }
        };
        let tries = attempt
            .retry(Tries(&self.options))
            .when(Error::is_transient)
            .adjust(|error, delay| delay.map(|delay| delay.max(error.retry_after())));
        tokio::time::timeout(limit, Box::pin(tries))
            .await
            .unwrap_or_else(|_| Err(self.no_answer(limit)))
    }

    fn no_answer(&self, limit: Duration) -> Error {
        Error::Unreachable {
            url: self.options.url.clone(),
            cause: format!("nothing within {} s", limit.as_secs_f64()),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

struct Tries<'a>(&'a ClientOptions);

impl backon::BackoffBuilder for Tries<'_> {
    type Backoff = std::iter::Take<<backon::ExponentialBuilder as backon::BackoffBuilder>::Backoff>;

    fn build(self) -> Self::Backoff {
        backoff(self.0).take(self.0.retries)
    }
}

/// Time-ordered and unique, as a retry of this very command needs it.
pub(crate) fn fill_in(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = Uuid::now_v7().to_string();
    }
}
