//! ToolService: sidecars come, stay and go, and everybody sees which tools there are.
//!
//! Boundary: messages to commands for [`Sidecars`] and back; what may be registered is decided
//! there.

use std::sync::Arc;

use loopwright_proto::v1::{self, tool_service_server::ToolService};
use prost::Message as _;
use tonic::{Code, Request, Response, Status};

use super::caller::{Caller, Role};
use super::convert::fields::{self, Violations};
use super::convert::tools as wire;
use super::page::{Page, Place};
use super::status;
use crate::driver::CommandError;
use crate::sidecars::{
    Registration, SidecarError, SidecarView, Sidecars, Target, ToolStanding, ToolView, Who,
};

#[cfg(test)]
mod tests;

/// Bytes of the tools of one page: a message has at most 4 MiB.
const MAX_PAGE_BYTES: usize = 3 << 20;
/// When an endpoint that did not answer is worth another try.
const RETRY_DIAL: std::time::Duration = std::time::Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub struct Tools(Arc<Sidecars>);

impl Tools {
    /// Serves these sidecars.
    #[must_use]
    pub fn new(sidecars: Arc<Sidecars>) -> Self {
        Self(sidecars)
    }
}

#[tonic::async_trait]
impl ToolService for Tools {
    async fn register_sidecar(
        &self,
        request: Request<v1::RegisterSidecarRequest>,
    ) -> Result<Response<v1::RegisterSidecarResponse>, Status> {
        let who = who(&request)?;
        let v1::RegisterSidecarRequest {
            name,
            endpoint,
            request_id,
            labels,
        } = request.into_inner();
        let asked = Registration {
            name,
            endpoint,
            request_id,
            labels,
        };
        let registered = self
            .0
            .register(&who, asked)
            .await
            .map_err(|e| refused(&e))?;
        let (quarantined, accepted): (Vec<_>, Vec<_>) = registered
            .tools
            .into_iter()
            .partition(|tool| tool.standing == ToolStanding::Quarantined);
        let set_aside = |tool: ToolView| v1::QuarantinedTool {
            name: tool.spec.name,
            reason: tool.detail,
        };
        Ok(Response::new(v1::RegisterSidecarResponse {
            lease_id: registered.lease_id,
            lease_ttl: Some(registered.lease_ttl.into()),
            accepted: accepted.into_iter().map(wire::offered).collect(),
            quarantined: quarantined.into_iter().map(set_aside).collect(),
        }))
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        let who = who(&request)?;
        let lease = &request.get_ref().lease_id;
        let ttl = self
            .0
            .renew(&who.namespace, lease)
            .map_err(|e| refused(&e))?;
        Ok(Response::new(v1::RenewLeaseResponse {
            lease_ttl: Some(ttl.into()),
        }))
    }

    async fn deregister_sidecar(
        &self,
        request: Request<v1::DeregisterSidecarRequest>,
    ) -> Result<Response<v1::DeregisterSidecarResponse>, Status> {
        use v1::deregister_sidecar_request::Target as Asked;
        let who = who(&request)?;
        let target = match request.into_inner().target {
            Some(Asked::LeaseId(lease)) => Target::Lease(lease),
            Some(Asked::Name(name)) => Target::Name(name),
            None => {
                return Err(status::invalid_field(
                    "target",
                    "is empty; name lease_id or name",
                ));
            }
        };
        self.0
            .deregister(&who, target)
            .await
            .map_err(|e| refused(&e))?;
        Ok(Response::new(v1::DeregisterSidecarResponse {}))
    }

    async fn list_sidecars(
        &self,
        request: Request<v1::ListSidecarsRequest>,
    ) -> Result<Response<v1::ListSidecarsResponse>, Status> {
        let who = who(&request)?;
        let listed = self.0.list(who.namespace.as_str());
        sidecars_page(listed, request.into_inner()).map(Response::new)
    }

    async fn list_tools(
        &self,
        request: Request<v1::ListToolsRequest>,
    ) -> Result<Response<v1::ListToolsResponse>, Status> {
        let who = who(&request)?;
        let listed = self.0.list_tools(who.namespace.as_str());
        tools_page(listed, request.into_inner()).map(Response::new)
    }
}

fn who<T>(request: &Request<T>) -> Result<Who, Status> {
    let Caller {
        namespace,
        principal,
        role,
    } = Caller::of(request)?;
    Ok(Who {
        namespace,
        principal,
        admin: role == Role::Admin,
    })
}

fn sidecars_page(
    mut listed: Vec<SidecarView>,
    mut request: v1::ListSidecarsRequest,
) -> Result<v1::ListSidecarsResponse, Status> {
    let mut all = Violations::default();
    let token = std::mem::take(&mut request.page_token);
    let size = fields::page_size(std::mem::take(&mut request.page_size), &mut all);
    let page = Page::parse(size, &token, &request, &mut all);
    let states = fields::states::<v1::SidecarState>(&request.states, "states", &mut all);
    all.check(()).map_err(|all| status::invalid(&all))?;
    listed.retain(|one| states.is_empty() || states.contains(&wire::sidecar_state(one.phase)));
    // One that drains may have the name of its successor.
    let place = |one: &SidecarView| {
        Place::new(
            0,
            format!("{}\0{:?}{}", one.name, one.phase, one.registered_at_ms),
        )
    };
    let (places, next_page_token) = page.cut(listed.iter().map(place).collect());
    listed.retain(|one| places.contains(&place(one)));
    let sidecars = listed.into_iter().map(wire::sidecar).collect();
    Ok(v1::ListSidecarsResponse {
        sidecars,
        next_page_token,
    })
}

fn tools_page(
    mut listed: Vec<ToolView>,
    mut request: v1::ListToolsRequest,
) -> Result<v1::ListToolsResponse, Status> {
    let mut all = Violations::default();
    let token = std::mem::take(&mut request.page_token);
    let size = fields::page_size(std::mem::take(&mut request.page_size), &mut all);
    let page = Page::parse(size, &token, &request, &mut all);
    let states = fields::states::<v1::ToolState>(&request.states, "states", &mut all);
    let sidecar = request.sidecar.clone();
    all.check(()).map_err(|all| status::invalid(&all))?;
    listed.retain(|one| sidecar.is_empty() || one.sidecar == sidecar);
    listed.retain(|one| states.is_empty() || states.contains(&wire::tool_state(one.standing)));
    let places: Vec<_> = listed
        .iter()
        .map(|one| Place::new(0, &one.spec.name))
        .collect();
    let (shown, next) = page.cut(places.clone());
    let is_shown = |one: &ToolView| shown.iter().any(|place| place.name == one.spec.name);
    let tools: Vec<_> = listed
        .into_iter()
        .filter(is_shown)
        .map(wire::tool)
        .collect();
    let fitting = fitting(&tools);
    if fitting == tools.len() {
        return Ok(v1::ListToolsResponse {
            tools,
            next_page_token: next,
        });
    }
    // The same list again, in a page as long as one message takes.
    let shorter = Page::parse(fitting, &token, &request, &mut Violations::default());
    let (_, next_page_token) = shorter.cut(places);
    let tools = tools.into_iter().take(fitting).collect();
    Ok(v1::ListToolsResponse {
        tools,
        next_page_token,
    })
}

/// How many of the first tools fit into a message; at least one, since no tool is as large.
fn fitting(tools: &[v1::Tool]) -> usize {
    let mut bytes = 0_usize;
    let fits = |tool: &&v1::Tool| {
        bytes = bytes.saturating_add(tool.encoded_len());
        bytes <= MAX_PAGE_BYTES
    };
    tools
        .iter()
        .take_while(fits)
        .count()
        .max(1)
        .min(tools.len())
}

fn refused(error: &SidecarError) -> Status {
    let (code, key, value, retry) = match error {
        SidecarError::Fields(problems) => {
            let mut all = Violations::default();
            for one in problems {
                all.add(one.field, one.problem.clone());
            }
            return status::invalid(&all);
        }
        SidecarError::Log(error) => return status::command(&CommandError::Log(error.clone()), ""),
        SidecarError::EndpointNotAllowed(_) => (Code::PermissionDenied, "", String::new(), None),
        SidecarError::NameTaken {
            name, retry_after, ..
        } => (Code::AlreadyExists, "sidecar", name.clone(), *retry_after),
        SidecarError::Unreachable { endpoint, .. } => (
            Code::FailedPrecondition,
            "endpoint",
            endpoint.clone(),
            Some(RETRY_DIAL),
        ),
        SidecarError::Invalid { name, .. } => {
            (Code::FailedPrecondition, "sidecar", name.clone(), None)
        }
        SidecarError::LeaseNotFound { lease } => (Code::NotFound, "lease_id", lease.clone(), None),
        SidecarError::SidecarNotFound { name } => (Code::NotFound, "sidecar", name.clone(), None),
        SidecarError::NotOwner { name, .. } => {
            (Code::PermissionDenied, "sidecar", name.clone(), None)
        }
        SidecarError::TooMany { limit } => {
            (Code::ResourceExhausted, "limit", limit.to_string(), None)
        }
    };
    let metadata = if key.is_empty() {
        Vec::new()
    } else {
        vec![(key, value)]
    };
    status::other(code, error.reason(), error, metadata, retry)
}
