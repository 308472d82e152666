//! GetLoop and ListLoops.

use std::time::SystemTime;

use loopwright_core::ids::{LoopId, Timestamp};
use loopwright_log::StreamKey;
use loopwright_proto::v1;
use tonic::Status;

use crate::service::{
    ServiceState,
    caller::Caller,
    convert::{
        fields::{self, Violations},
        summary,
    },
    page::{Page, Place},
    session_log::key as session_key,
    status,
};

pub(super) async fn get_loop(
    state: &ServiceState,
    caller: &Caller,
    request: &v1::GetLoopRequest,
) -> Result<v1::GetLoopResponse, Status> {
    let mut all = Violations::default();
    let id = fields::id("session_id", &request.session_id, &mut all);
    let wanted = fields::optional_loop("loop_id", &request.loop_id, &mut all);
    let id = all.check(id).map_err(|all| status::invalid(&all))?;
    let id = id.ok_or_else(|| status::invalid_field("session_id", "is empty; name one"))?;
    let key = StreamKey::session(&caller.namespace, &id);
    let digest = state
        .index
        .digest(&key)
        .await
        .map_err(|e| status::index(&e))?;
    let digest = digest.ok_or_else(|| status::session_not_found(key.id()))?;
    let one = match wanted {
        None => digest.current().cloned(),
        Some(wanted) => {
            let found = state.index.find_loop(&key, &digest, wanted).await;
            found.map_err(|e| status::index(&e))?
        }
    };
    let one = one.ok_or_else(|| status::loop_not_found(key.id(), &request.loop_id))?;
    let summary = summary::of_loop(&key, &digest, &one, now());
    Ok(v1::GetLoopResponse {
        r#loop: Some(summary),
        seq: digest.seq,
    })
}

pub(super) async fn list_loops(
    state: &ServiceState,
    caller: &Caller,
    mut request: v1::ListLoopsRequest,
) -> Result<v1::ListLoopsResponse, Status> {
    let mut all = Violations::default();
    let token = std::mem::take(&mut request.page_token);
    let size = fields::page_size(std::mem::take(&mut request.page_size), &mut all);
    let page = Page::parse(size, &token, &request, &mut all);
    let session = fields::optional_id("session_id", &request.session_id, &mut all);
    let states = fields::states::<v1::LoopState>(&request.states, "states", &mut all);
    let labels = fields::labels(request.labels, &mut all);
    all.check(()).map_err(|all| status::invalid(&all))?;

    let keys = match session {
        Some(session) => vec![StreamKey::session(&caller.namespace, &session)],
        None => state
            .index
            .sessions(&caller.namespace)
            .await
            .map_err(|e| status::log(&e))?,
    };
    // No agent has a name yet, so that a filter by one lists nothing.
    let named = !request.agent.is_empty();
    let places = state.index.scan(keys, |key, digest| {
        if named || !summary::has_labels(digest, &labels) {
            return Vec::new();
        }
        let wanted = |state| states.is_empty() || states.contains(&state);
        let listed = digest
            .starts
            .iter()
            .filter(|start| wanted(summary::state_of(digest, start.0)));
        listed
            .map(|&(id, started_at)| place(key, id, started_at))
            .collect()
    });
    let (places, next_page_token) = page.cut(places.await.map_err(|e| status::log(&e))?);
    let mut loops = Vec::with_capacity(places.len());
    for place in places {
        loops.extend(summary_at(state, caller, &place).await?);
    }
    Ok(v1::ListLoopsResponse {
        loops,
        next_page_token,
    })
}

async fn summary_at(
    state: &ServiceState,
    caller: &Caller,
    place: &Place,
) -> Result<Option<v1::LoopSummary>, Status> {
    let Some((session, number)) = place.name.split_once('/') else {
        return Ok(None);
    };
    let Ok(number) = number.parse::<u32>() else {
        return Ok(None);
    };
    let key = session_key(&caller.namespace, session)?;
    let digest = state
        .index
        .digest(&key)
        .await
        .map_err(|e| status::index(&e))?;
    let Some(digest) = digest else {
        return Ok(None);
    };
    let found = state
        .index
        .find_loop(&key, &digest, LoopId(u32::MAX - number))
        .await;
    let found = found.map_err(|e| status::index(&e))?;
    Ok(found.map(|one| summary::of_loop(&key, &digest, &one, now())))
}

/// Of two loops that a session started in one millisecond the later one comes first.
fn place(key: &StreamKey, id: LoopId, started_at: Timestamp) -> Place {
    Place::new(
        started_at.0,
        format!("{}/{:010}", key.id(), u32::MAX - id.0),
    )
}

fn now() -> Timestamp {
    Timestamp(loopwright_log::Timestamp::from(SystemTime::now()).unix_ms())
}
