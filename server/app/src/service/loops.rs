//! LoopService but for its streams: commands go to the drivers, questions to the index.

mod charges;
mod control;
mod lists;
mod orders;

use futures_util::stream::BoxStream;
use loopwright_proto::v1::{self, loop_service_server::LoopService};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    ServiceState,
    caller::Caller,
    converse,
    convert::{commands, questions},
    overview, status, watch,
    wire::{EncodedStream, decoded},
};

pub use orders::{Done, Order};

#[cfg(test)]
mod tests;

/// The service.
#[derive(Clone)]
pub struct Loops(pub ServiceState);

#[tonic::async_trait]
impl LoopService for Loops {
    async fn start_loop(
        &self,
        request: Request<v1::StartLoopRequest>,
    ) -> Result<Response<v1::StartLoopResponse>, Status> {
        let order = Order::of(&request)?;
        let start = commands::start(request.into_inner(), &order.caller, &self.0.config);
        let start = start.map_err(|all| status::invalid(&all))?;
        let done = self.0.start_loop(&order, start).await?;
        Ok(Response::new(v1::StartLoopResponse {
            session_id: done.session,
            loop_id: done.loop_id,
            seq: done.seq,
        }))
    }

    async fn send_message(
        &self,
        request: Request<v1::SendMessageRequest>,
    ) -> Result<Response<v1::SendMessageResponse>, Status> {
        let order = Order::of(&request)?;
        let done = self.0.send_message(&order, request.into_inner()).await?;
        Ok(Response::new(v1::SendMessageResponse {
            seq: done.seq,
            session_id: done.session,
            loop_id: done.loop_id,
        }))
    }

    async fn cancel_loop(
        &self,
        request: Request<v1::CancelLoopRequest>,
    ) -> Result<Response<v1::CancelLoopResponse>, Status> {
        let order = Order::of(&request)?;
        let done = self.0.cancel_loop(&order, request.into_inner()).await?;
        Ok(Response::new(v1::CancelLoopResponse {
            seq: done.seq,
            session_id: done.session,
            loop_id: done.loop_id,
        }))
    }

    async fn pause_loop(
        &self,
        request: Request<v1::PauseLoopRequest>,
    ) -> Result<Response<v1::PauseLoopResponse>, Status> {
        let order = Order::of(&request)?;
        let done = self.0.pause_loop(&order, request.get_ref()).await?;
        Ok(Response::new(v1::PauseLoopResponse {
            seq: done.seq,
            session_id: done.session,
            loop_id: done.loop_id,
        }))
    }

    async fn resume_loop(
        &self,
        request: Request<v1::ResumeLoopRequest>,
    ) -> Result<Response<v1::ResumeLoopResponse>, Status> {
        let order = Order::of(&request)?;
        let done = self.0.resume_loop(&order, request.get_ref()).await?;
        Ok(Response::new(v1::ResumeLoopResponse {
            seq: done.seq,
            session_id: done.session,
            loop_id: done.loop_id,
        }))
    }

    async fn update_limits(
        &self,
        request: Request<v1::UpdateLimitsRequest>,
    ) -> Result<Response<v1::UpdateLimitsResponse>, Status> {
        let order = Order::of(&request)?;
        let done = self.0.update_limits(&order, request.get_ref()).await?;
        Ok(Response::new(v1::UpdateLimitsResponse {
            seq: done.seq,
            session_id: done.session,
            loop_id: done.loop_id,
        }))
    }

    async fn resolve_approval(
        &self,
        request: Request<v1::ResolveApprovalRequest>,
    ) -> Result<Response<v1::ResolveApprovalResponse>, Status> {
        let order = Order::of(&request)?;
        let done = self
            .0
            .resolve_approval(&order, request.into_inner())
            .await?;
        Ok(Response::new(v1::ResolveApprovalResponse {
            seq: done.seq,
            session_id: done.session,
            loop_id: done.loop_id,
        }))
    }

    async fn resolve_unknown(
        &self,
        request: Request<v1::ResolveUnknownRequest>,
    ) -> Result<Response<v1::ResolveUnknownResponse>, Status> {
        let order = Order::of(&request)?;
        let done = self.0.resolve_unknown(&order, request.into_inner()).await?;
        Ok(Response::new(v1::ResolveUnknownResponse {
            seq: done.seq,
            session_id: done.session,
            loop_id: done.loop_id,
        }))
    }

    async fn get_loop(
        &self,
        request: Request<v1::GetLoopRequest>,
    ) -> Result<Response<v1::GetLoopResponse>, Status> {
        let caller = Caller::of(&request)?;
        lists::get_loop(&self.0, &caller, request.get_ref())
            .await
            .map(Response::new)
    }

    async fn list_loops(
        &self,
        request: Request<v1::ListLoopsRequest>,
    ) -> Result<Response<v1::ListLoopsResponse>, Status> {
        let caller = Caller::of(&request)?;
        lists::list_loops(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    type WatchLoopStream = BoxStream<'static, Result<v1::WatchLoopResponse, Status>>;

    /// In this process alone: the wire is served by [`watch_loop`].
    async fn watch_loop(
        &self,
        request: Request<v1::WatchLoopRequest>,
    ) -> Result<Response<Self::WatchLoopStream>, Status> {
        let encoded = watch_loop(self.0.clone(), request).await?.into_inner();
        Ok(Response::new(decoded(encoded)))
    }

    type WatchLoopsStream = BoxStream<'static, Result<v1::WatchLoopsResponse, Status>>;

    /// In this process alone: the wire is served by [`watch_loops`].
    async fn watch_loops(
        &self,
        request: Request<v1::WatchLoopsRequest>,
    ) -> Result<Response<Self::WatchLoopsStream>, Status> {
        let encoded = watch_loops(self.0.clone(), request).await?.into_inner();
        Ok(Response::new(decoded(encoded)))
    }

    type ConverseStream = BoxStream<'static, Result<v1::ConverseResponse, Status>>;

    /// In this process alone: the wire is served by `converse::converse`.
    async fn converse(
        &self,
        request: Request<Streaming<v1::ConverseRequest>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let encoded = converse::converse(self.0.clone(), request)
            .await?
            .into_inner();
        Ok(Response::new(decoded(encoded)))
    }
}

/// WatchLoop, encoded.
///
/// # Errors
/// As WatchLoop names them.
pub async fn watch_loop(
    state: ServiceState,
    request: Request<v1::WatchLoopRequest>,
) -> Result<Response<EncodedStream<v1::WatchLoopResponse>>, Status> {
    let caller = Caller::of(&request)?;
    let what = questions::watch(request.get_ref(), &caller.namespace);
    let what = what.map_err(|all| status::invalid(&all))?;
    let watch = state.watching().open(what).await?;
    Ok(Response::new(watch::response(watch)))
}

/// WatchLoops, encoded.
///
/// # Errors
/// As WatchLoops names them.
pub async fn watch_loops(
    state: ServiceState,
    request: Request<v1::WatchLoopsRequest>,
) -> Result<Response<EncodedStream<v1::WatchLoopsResponse>>, Status> {
    let caller = Caller::of(&request)?;
    let filter = questions::watch_loops(request.into_inner());
    let filter = filter.map_err(|all| status::invalid(&all))?;
    let items = overview::open(&state, &caller.namespace, filter).await?;
    Ok(Response::new(items))
}

impl ServiceState {
    /// SendMessage.
    ///
    /// # Errors
    /// As SendMessage names them.
    pub async fn send_message(
        &self,
        order: &Order,
        request: v1::SendMessageRequest,
    ) -> Result<Done, Status> {
        let trace = order.traceparent.clone();
        let told = commands::message(request, &order.caller, trace, &self.config);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }

    /// CancelLoop.
    ///
    /// # Errors
    /// As CancelLoop names them.
    pub async fn cancel_loop(
        &self,
        order: &Order,
        request: v1::CancelLoopRequest,
    ) -> Result<Done, Status> {
        let told = commands::cancel(request, &order.caller);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }

    /// PauseLoop.
    ///
    /// # Errors
    /// As PauseLoop names them.
    pub async fn pause_loop(
        &self,
        order: &Order,
        request: &v1::PauseLoopRequest,
    ) -> Result<Done, Status> {
        let told = commands::pause(request, &order.caller);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }

    /// ResumeLoop.
    ///
    /// # Errors
    /// As ResumeLoop names them.
    pub async fn resume_loop(
        &self,
        order: &Order,
        request: &v1::ResumeLoopRequest,
    ) -> Result<Done, Status> {
        let told = commands::resume(request, &order.caller);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }

    /// UpdateLimits.
    ///
    /// # Errors
    /// As UpdateLimits names them.
    pub async fn update_limits(
        &self,
        order: &Order,
        request: &v1::UpdateLimitsRequest,
    ) -> Result<Done, Status> {
        let moved = commands::update_limits(request, &order.caller, &self.config);
        self.move_limits(moved.map_err(|all| status::invalid(&all))?)
            .await
    }

    /// ResolveApproval.
    ///
    /// # Errors
    /// As ResolveApproval names them.
    pub async fn resolve_approval(
        &self,
        order: &Order,
        request: v1::ResolveApprovalRequest,
    ) -> Result<Done, Status> {
        let told = commands::approval(request, &order.caller);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }

    /// ResolveUnknown.
    ///
    /// # Errors
    /// As ResolveUnknown names them.
    pub async fn resolve_unknown(
        &self,
        order: &Order,
        request: v1::ResolveUnknownRequest,
    ) -> Result<Done, Status> {
        let told = commands::unknown(request, &order.caller, &self.config);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }
}

impl Order {
    /// Who gives the command of a request, in which trace.
    ///
    /// # Errors
    /// UNAUTHENTICATED, see [`Caller::of`].
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Ok(Self {
            caller: Caller::of(request)?,
            traceparent: traceparent(request.metadata()),
        })
    }
}

/// The trace of the client, where it sent one of the form that W3C Trace Context 1 has.
fn traceparent(metadata: &MetadataMap) -> Option<String> {
    let text = metadata.get("traceparent")?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, len| {
        part.len() == len
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let zeros = |part: &str| part.bytes().all(|b| b == b'0');
    match parts[..] {
        [version, trace, span, flags] => {
            let form = version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
            (form && !zeros(trace) && !zeros(span)).then(|| text.to_owned())
        }
        _ => None,
    }
}
