//! What the fake server answers of LoopService.

use futures_util::StreamExt as _;
use loopwright_proto::v1::loop_service_server::LoopService;
use loopwright_proto::v1::{
    CancelLoopRequest, CancelLoopResponse, ConverseRequest, ConverseResponse, GetLoopRequest,
    GetLoopResponse, ListLoopsRequest, ListLoopsResponse, PauseLoopRequest, PauseLoopResponse,
    ResolveApprovalRequest, ResolveApprovalResponse, ResolveUnknownRequest, ResolveUnknownResponse,
    ResumeLoopRequest, ResumeLoopResponse, SendMessageRequest, SendMessageResponse,
    StartLoopRequest, StartLoopResponse, UpdateLimitsRequest, UpdateLimitsResponse,
    WatchLoopRequest, WatchLoopResponse, WatchLoopsRequest, WatchLoopsResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Fake, Items, watch_item};

#[tonic::async_trait]
impl LoopService for Fake {
    type WatchLoopStream = Items<WatchLoopResponse>;
    type WatchLoopsStream = Items<WatchLoopsResponse>;
    type ConverseStream = Items<ConverseResponse>;

    async fn start_loop(
        &self,
        request: Request<StartLoopRequest>,
    ) -> Result<Response<StartLoopResponse>, Status> {
        let authorization = request.metadata().get("authorization").cloned();
        self.state().authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        self.command("start", &request.get_ref().request_id)?;
        Ok(Response::new(StartLoopResponse {
            session_id: "s1".into(),
            loop_id: "l1".into(),
            seq: 3,
        }))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        self.command("message", &request.get_ref().request_id)?;
        Ok(Response::new(SendMessageResponse::default()))
    }

    async fn cancel_loop(
        &self,
        request: Request<CancelLoopRequest>,
    ) -> Result<Response<CancelLoopResponse>, Status> {
        self.command("cancel", &request.get_ref().request_id)?;
        self.cancel();
        Ok(Response::new(CancelLoopResponse::default()))
    }

    async fn pause_loop(
        &self,
        request: Request<PauseLoopRequest>,
    ) -> Result<Response<PauseLoopResponse>, Status> {
        self.command("pause", &request.get_ref().request_id)?;
        Ok(Response::new(PauseLoopResponse {
            seq: 7,
            loop_id: "l1".into(),
            ..PauseLoopResponse::default()
        }))
    }

    async fn resume_loop(
        &self,
        request: Request<ResumeLoopRequest>,
    ) -> Result<Response<ResumeLoopResponse>, Status> {
        self.command("resume", &request.get_ref().request_id)?;
        Ok(Response::new(ResumeLoopResponse {
            seq: 8,
            loop_id: "l1".into(),
            ..ResumeLoopResponse::default()
        }))
    }

    async fn update_limits(
        &self,
        request: Request<UpdateLimitsRequest>,
    ) -> Result<Response<UpdateLimitsResponse>, Status> {
        let request = request.into_inner();
        self.command("limits", &request.request_id)?;
        self.state().moved.push(request);
        Ok(Response::new(UpdateLimitsResponse {
            seq: 9,
            loop_id: "l1".into(),
            ..UpdateLimitsResponse::default()
        }))
    }

    async fn resolve_approval(
        &self,
        request: Request<ResolveApprovalRequest>,
    ) -> Result<Response<ResolveApprovalResponse>, Status> {
        let request = request.into_inner();
        self.command("approval", &request.request_id)?;
        self.state().approvals.push(request);
        Ok(Response::new(ResolveApprovalResponse {
            seq: 7,
            ..ResolveApprovalResponse::default()
        }))
    }

    async fn resolve_unknown(
        &self,
        request: Request<ResolveUnknownRequest>,
    ) -> Result<Response<ResolveUnknownResponse>, Status> {
        let request = request.into_inner();
        self.command("unknown", &request.request_id)?;
        self.state().resolved.push(request);
        Ok(Response::new(ResolveUnknownResponse {
            seq: 7,
            ..ResolveUnknownResponse::default()
        }))
    }

    async fn get_loop(
        &self,
        _request: Request<GetLoopRequest>,
    ) -> Result<Response<GetLoopResponse>, Status> {
        self.command("get", "")?;
        let summary = self.state().summary.clone();
        Ok(Response::new(GetLoopResponse {
            r#loop: summary,
            seq: 0,
        }))
    }

    async fn list_loops(
        &self,
        _request: Request<ListLoopsRequest>,
    ) -> Result<Response<ListLoopsResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn watch_loop(
        &self,
        request: Request<WatchLoopRequest>,
    ) -> Result<Response<Self::WatchLoopStream>, Status> {
        let request = request.into_inner();
        let (sink, items) = mpsc::channel(1);
        let ends = !request.loop_id.is_empty();
        self.marked(request.after_epoch, request.after_committed_at);
        let fake = self.clone();
        tokio::spawn(fake.play(request.after_seq, ends, sink));
        let items = ReceiverStream::new(items).map(|item| item.map(watch_item));
        Ok(Response::new(items.boxed()))
    }

    async fn watch_loops(
        &self,
        _request: Request<WatchLoopsRequest>,
    ) -> Result<Response<Self::WatchLoopsStream>, Status> {
        self.command("watch_loops", "")?;
        let items = self.state().overviews.pop_front().unwrap_or_default();
        let told = |item| Ok(WatchLoopsResponse { item: Some(item) });
        let cut = futures_util::stream::iter([Err(Status::unavailable("cut"))]);
        let items = futures_util::stream::iter(items).map(told).chain(cut);
        Ok(Response::new(items.boxed()))
    }

    async fn converse(
        &self,
        request: Request<Streaming<ConverseRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let (sink, items) = mpsc::channel(1);
        tokio::spawn(self.clone().answer(request.into_inner(), sink));
        let items = ReceiverStream::new(items);
        let items = items.map(|item| item.map(|item| ConverseResponse { item: Some(item) }));
        Ok(Response::new(items.boxed()))
    }
}
