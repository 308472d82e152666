//! SessionLogService: sessions and their logs, read.
//!
//! Boundary: reads the log and the index; knows no driver, so any replica serves it.

mod range;

#[cfg(test)]
mod tests;

use futures_util::{StreamExt as _, stream::BoxStream};
use loopwright_proto::v1::{
    self, read_entries_response::Item, session_log_service_server::SessionLogService,
};
use tonic::{Request, Response, Status};

use crate::index::Scope;

use super::{
    ServiceState,
    caller::Caller,
    convert::{
        agent,
        fields::{self, Violations},
        questions, summary,
    },
    page::{Page, Place},
    status,
    watch::{Sent, goodbye, heartbeat},
    wire::{Encoded, EncodedStream, decoded},
};

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
            session: Some(summary::of_session(&key, &digest.brief())),
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
