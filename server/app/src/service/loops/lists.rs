//! GetLoop and ListLoops.

use loopwright_log::StreamKey;
use loopwright_proto::v1;
use tonic::Status;

use crate::{
    driver::Clock,
    index::Scope,
    service::{
        ServiceState,
        caller::Caller,
        convert::{
            fields::{self, Violations},
            questions, summary,
        },
        page::{Page, Place},
        status,
    },
};

pub(super) async fn get_loop(
    state: &ServiceState,
    caller: &Caller,
    request: &v1::GetLoopRequest,
) -> Result<v1::GetLoopResponse, Status> {
    let asked = questions::get_loop(request, &caller.namespace);
    let (key, wanted) = asked.map_err(|all| status::invalid(&all))?;
    let brief = state.index.brief(&key).await;
    let brief = brief.map_err(|e| status::index(&e))?;
    let brief = brief.ok_or_else(|| status::session_not_found(key.id()))?;
    let one = match wanted {
        None => brief.current().cloned(),
        Some(wanted) => {
            let found = state.index.find_loop(&key, &brief, wanted).await;
            found.map_err(|e| status::index(&e))?
        }
    };
    let one = one.ok_or_else(|| status::loop_not_found(key.id(), &request.loop_id))?;
    let summary = summary::of_loop(&key, &brief, &one, Clock.now());
    Ok(v1::GetLoopResponse {
        r#loop: Some(summary),
        seq: brief.seq,
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
    let agent = fields::optional_id("agent", &request.agent, &mut all);
    all.check(()).map_err(|all| status::invalid(&all))?;

    let scope = match session {
        Some(session) => Scope::Session(StreamKey::session(&caller.namespace, &session)),
        None => Scope::Namespace(caller.namespace.clone()),
    };
    let places = state.index.scan(scope, |key, brief| {
        if !summary::has_labels(brief, &labels) {
            return Vec::new();
        }
        let wanted = |state| states.is_empty() || states.contains(&state);
        let places = summary::places(key, brief, agent.as_ref());
        let listed = places.filter(|(_, state)| wanted(*state));
        listed.map(|(place, _)| place).collect()
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
    let Some((session, id)) = summary::placed(&place.name) else {
        return Ok(None);
    };
    let key = questions::session(session, &caller.namespace);
    let key = key.map_err(|all| status::invalid(&all))?;
    let brief = state.index.brief(&key).await;
    let Some(brief) = brief.map_err(|e| status::index(&e))? else {
        return Ok(None);
    };
    let found = state.index.find_loop(&key, &brief, id).await;
    let found = found.map_err(|e| status::index(&e))?;
    Ok(found.map(|one| summary::of_loop(&key, &brief, &one, Clock.now())))
}
