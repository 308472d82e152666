//! SessionLogService: sessions and their logs, read, copied, moved and deleted.
//!
//! Boundary: what reads goes to the log and the index, and any replica serves it; what writes has a
//! session to itself first (`Drivers::release`).

mod blobs;
mod copy;
mod delete;
pub(crate) mod export;
mod fork;
mod import;
mod lines;
mod model_request;
mod range;
mod transfers;
mod upload;
pub(crate) mod verify;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::BoxStream};
use loopwright_log::{Log, LogError, Seq, StreamKey};
use loopwright_proto::v1::{
    self, read_entries_response::Item, session_log_service_server::SessionLogService,
};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{index::Scope, redaction::Fields};

use super::{
    ServiceState,
    caller::{Caller, Role},
    convert::{
        agent,
        fields::{self, Violations},
        questions, summary,
    },
    page::{Page, Place},
    status,
    watch::{Sent, deleted, goodbye, heartbeat},
    wire::{Encoded, EncodedStream, decoded},
};

/// Bytes of one piece of a request body or of an export, at most.
const MOST_CHUNK: usize = 1 << 20;

pub use transfers::Transfers;

/// The service.
#[derive(Clone)]
pub struct SessionLogs(pub ServiceState);

#[tonic::async_trait]
impl SessionLogService for SessionLogs {
    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        list(&self.0, &caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let caller = Caller::of(&request)?;
        let key = questions::session(&request.get_ref().session_id, &caller.namespace);
        let key = key.map_err(|all| status::invalid(&all))?;
        let digest = self
            .0
            .index
            .digest(&key)
            .await
            .map_err(|e| status::index(&e))?;
        let digest = digest.ok_or_else(|| status::session_not_found(key.id()))?;
        let state = &digest.state;
        let whole = digest.damage.is_none() && state.session.is_some();
        Ok(Response::new(v1::GetSessionResponse {
            session: Some(summary::of_session(
                &key,
                &self.0.index.shown(&key, &digest),
            )),
            agent: whole.then(|| agent::to_wire(&state.agent, Some(&state.limits))),
        }))
    }

    type ReadEntriesStream = BoxStream<'static, Result<v1::ReadEntriesResponse, Status>>;

    /// In this process alone: the wire is served by [`read_entries`].
    async fn read_entries(
        &self,
        request: Request<v1::ReadEntriesRequest>,
    ) -> Result<Response<Self::ReadEntriesStream>, Status> {
        let encoded = read_entries(self.0.clone(), request).await?.into_inner();
        Ok(Response::new(decoded(encoded)))
    }

    type GetModelRequestStream = BoxStream<'static, Result<v1::GetModelRequestResponse, Status>>;

    async fn get_model_request(
        &self,
        request: Request<v1::GetModelRequestRequest>,
    ) -> Result<Response<Self::GetModelRequestStream>, Status> {
        let caller = Caller::of(&request)?;
        let (key, wanted) = model_request::parse(&caller.namespace, request.get_ref())?;
        self.0.check_there(&key).await?;
        let hidden = match caller.role {
            Role::Admin => &Fields::default(),
            _ => &self.0.fields,
        };
        let items = model_request::open(&self.0, &key, wanted, hidden).await?;
        Ok(Response::new(items.map(Ok).boxed()))
    }

    async fn verify_session(
        &self,
        request: Request<v1::VerifySessionRequest>,
    ) -> Result<Response<v1::VerifySessionResponse>, Status> {
        let caller = Caller::of(&request)?;
        let key = questions::session(&request.get_ref().session_id, &caller.namespace);
        let key = key.map_err(|all| status::invalid(&all))?;
        self.0.check_there(&key).await?;
        let report = verify::report(&*self.0.log, &key).await;
        let report = report.map_err(|error| status::log(&error))?;
        let report = report.ok_or_else(|| status::session_not_found(key.id()))?;
        Ok(Response::new(v1::VerifySessionResponse {
            report: Some(report),
        }))
    }

    type ExportSessionStream = BoxStream<'static, Result<v1::ExportSessionResponse, Status>>;

    async fn export_session(
        &self,
        request: Request<v1::ExportSessionRequest>,
    ) -> Result<Response<Self::ExportSessionStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        if request.unredacted && caller.role != Role::Admin {
            let path = "ExportSession with unredacted";
            return Err(status::role_not_allowed(caller.role.as_str(), path));
        }
        let key = questions::session(&request.session_id, &caller.namespace);
        let key = key.map_err(|all| status::invalid(&all))?;
        let permit = self.0.transfers.take()?;
        let tail = self.0.check_there(&key).await?;
        let (log, drain) = (Arc::clone(&self.0.log), self.0.drain.clone());
        let hidden = if request.unredacted {
            Fields::default()
        } else {
            self.0.fields.clone()
        };
        let chunks = export::lines(log, key, tail, hidden, drain).map(move |chunk| {
            let _held = &permit;
            chunk.map(|chunk| v1::ExportSessionResponse { chunk })
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn fork_session(
        &self,
        request: Request<v1::ForkSessionRequest>,
    ) -> Result<Response<v1::ForkSessionResponse>, Status> {
        let caller = Caller::of(&request)?;
        let session = to_its_end(fork::fork(self.0.clone(), caller, request.into_inner())).await?;
        Ok(Response::new(v1::ForkSessionResponse {
            session: Some(session),
        }))
    }

    async fn import_session(
        &self,
        request: Request<Streaming<v1::ImportSessionRequest>>,
    ) -> Result<Response<v1::ImportSessionResponse>, Status> {
        let caller = Caller::of(&request)?;
        let items = request.into_inner();
        let session = to_its_end(upload::import(self.0.clone(), caller, items)).await?;
        Ok(Response::new(v1::ImportSessionResponse {
            session: Some(session),
        }))
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Result<Response<v1::DeleteSessionResponse>, Status> {
        let caller = Caller::of(&request)?;
        to_its_end(delete::delete(self.0.clone(), caller, request.into_inner())).await?;
        Ok(Response::new(v1::DeleteSessionResponse {}))
    }
}

impl ServiceState {
    /// The last seq that can be read of a session that is there and no unfinished copy. A damaged one
    /// is read further by its reader, which says so.
    async fn check_there(&self, key: &StreamKey) -> Result<Seq, Status> {
        let tail = match self.log.tail(key).await {
            Ok(Some(tail)) => tail,
            Ok(None) => return Err(status::session_not_found(key.id())),
            Err(LogError::Corrupt(_) | LogError::NewerVersion { .. }) => Seq::MAX,
            Err(error) => return Err(status::log(&error)),
        };
        check_finished(&*self.log, key).await?;
        Ok(tail)
    }

    /// Whether there is a session that is no unfinished copy.
    async fn is_there(&self, key: &StreamKey) -> Result<bool, Status> {
        match self.check_there(key).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Where a session stands that was just made.
    async fn summary(&self, key: &StreamKey) -> Result<v1::SessionSummary, Status> {
        let brief = self.index.brief(key).await;
        let brief = brief.map_err(|error| status::index(&error))?;
        let brief = brief.ok_or_else(|| status::session_not_found(key.id()))?;
        Ok(summary::of_session(key, &brief))
    }
}

/// Refuses a session whose last entry was copied from another one: nobody has closed it yet.
///
/// # Errors
/// NOT_FOUND.
pub(crate) async fn check_finished(log: &dyn Log, key: &StreamKey) -> Result<(), Status> {
    #[derive(serde::Deserialize)]
    struct Mark {
        #[serde(default)]
        copied: bool,
    }
    let Some(Ok(last)) = log.read_back(key, Seq::MAX).next().await else {
        // Whoever reads on is told what is wrong.
        return Ok(());
    };
    match serde_json::from_slice::<Mark>(last.line()) {
        Ok(Mark { copied: true }) => Err(status::sessions::session_unfinished(key.id())),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Does the work whether or not the caller waits for it: what was begun is ended in order.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(status::draining()),
    }
}

/// ReadEntries, encoded.
///
/// # Errors
/// As ReadEntries names them.
pub async fn read_entries(
    state: ServiceState,
    request: Request<v1::ReadEntriesRequest>,
) -> Result<Response<EncodedStream<v1::ReadEntriesResponse>>, Status> {
    let caller = Caller::of(&request)?;
    let items = range::open(&state.watching(), &caller.namespace, request.get_ref()).await?;
    let encode = |sent: Result<Sent, Status>| {
        Ok(match sent? {
            Sent::Entry(bytes) | Sent::Delta(bytes) => Encoded::raw(bytes),
            Sent::Heartbeat(through) => item(Item::Heartbeat(heartbeat(through))),
            Sent::Goodbye(cursor) => item(Item::Goodbye(goodbye(cursor))),
            Sent::Deleted(cursor) => item(Item::Goodbye(deleted(cursor))),
        })
    };
    Ok(Response::new(items.map(encode).boxed()))
}

async fn list(
    state: &ServiceState,
    caller: &Caller,
    mut request: v1::ListSessionsRequest,
) -> Result<v1::ListSessionsResponse, Status> {
    let mut all = Violations::default();
    let token = std::mem::take(&mut request.page_token);
    let size = fields::page_size(std::mem::take(&mut request.page_size), &mut all);
    let page = Page::parse(size, &token, &request, &mut all);
    let states = fields::states::<v1::SessionState>(&request.states, "states", &mut all);
    let labels = fields::labels(request.labels, &mut all);
    let agent = fields::optional_id("agent", &request.agent, &mut all);
    all.check(()).map_err(|all| status::invalid(&all))?;

    let scope = Scope::Namespace(caller.namespace.clone());
    let places = state.index.scan(scope, |key, brief| {
        let wanted = states.is_empty() || states.contains(&summary::session_state(brief));
        let of_agent = agent
            .as_ref()
            .is_none_or(|agent| agent.as_str() == brief.agent);
        let listed = wanted && of_agent && summary::has_labels(brief, &labels);
        listed
            .then(|| Place::new(brief.updated_at.0, key.id()))
            .into_iter()
            .collect()
    });
    let (places, next_page_token) = page.cut(places.await.map_err(|e| status::log(&e))?);
    let mut sessions = Vec::with_capacity(places.len());
    for place in places {
        let key = questions::session(&place.name, &caller.namespace);
        let key = key.map_err(|all| status::invalid(&all))?;
        let brief = state.index.brief(&key).await;
        let brief = brief.map_err(|e| status::index(&e))?;
        sessions.extend(brief.map(|brief| summary::of_session(&key, &brief)));
    }
    Ok(v1::ListSessionsResponse {
        sessions,
        next_page_token,
    })
}

fn item(item: Item) -> Encoded<v1::ReadEntriesResponse> {
    Encoded::new(&v1::ReadEntriesResponse { item: Some(item) })
}
