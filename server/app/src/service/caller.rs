//! Who calls: one layer that every rpc passes, and the table of who may call what.
//!
//! Boundary: from `authorization: Bearer TOKEN` to a [`Caller`] in the request's extensions; what
//! a namespace holds is not known here. Invariant: a handler runs only with a caller whose role may
//! call it; an rpc that is not in the table is open to admins alone.
//!
//! | role | read | command | register | spend | budgets |
//! |---|---|---|---|---|---|
//! | admin | yes | yes | yes | yes | yes |
//! | user | yes | yes | no | yes | no |
//! | viewer | yes | no | no | no | no |
//! | sidecar | tools alone | no | yes | yes | no |
//!
//! *read*: GetLoop, ListLoops, WatchLoop, WatchLoops, ListSessions, GetSession, ReadEntries,
//! VerifySession, ExportSession, ListSidecars, ListTools, GetBudget, ListBudgets, WatchBudget. *command*:
//! StartLoop, SendMessage, CancelLoop, PauseLoop, ResumeLoop, UpdateLimits, ResolveApproval,
//! ResolveUnknown, Converse (which may start; a viewer watches with WatchLoop), ForkSession,
//! ImportSession, DeleteSession, and GetModelRequest, since a body is shown
//! as it was sent, but for `tools.redact`, which an admin alone is spared. *register*: RegisterSidecar,
//! RenewLease, DeregisterSidecar. *spend*: Reserve, Settle, Release. *budgets*: CreateBudget,
//! UpdateBudget, DeleteBudget. Health and reflection ask for no token.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use loopwright_log::Id;
use tonic::Status;
use tower::{Layer, Service};

use super::status;
pub use crate::config::tokens::Role;
use crate::config::tokens::Tokens;

#[cfg(test)]
mod tests;

/// The namespace of everybody where there is no token file.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The principal of everybody where there is no token file.
pub const LOCAL_PRINCIPAL: &str = "local";

/// Who calls, as authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant: all that the caller sees and makes lies in it.
    pub namespace: Id,
    /// The caller's name, kept in the log with what it did.
    pub principal: String,
    /// What it may do.
    pub role: Role,
}

/// What an rpc does, as far as roles go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads sessions and loops.
    Read,
    /// Reads sidecars and tools.
    ReadTools,
    /// Starts and steers loops.
    Command,
    /// Puts sidecars in and out.
    Register,
    /// Takes from budgets.
    Spend,
    /// Sets budgets.
    Budgets,
}

/// Every rpc and what it does.
pub const ACCESS: &[(&str, Access)] = &[
    ("/loopwright.v1.LoopService/StartLoop", Access::Command),
    ("/loopwright.v1.LoopService/SendMessage", Access::Command),
    ("/loopwright.v1.LoopService/CancelLoop", Access::Command),
    ("/loopwright.v1.LoopService/PauseLoop", Access::Command),
    ("/loopwright.v1.LoopService/ResumeLoop", Access::Command),
    ("/loopwright.v1.LoopService/UpdateLimits", Access::Command),
    (
        "/loopwright.v1.LoopService/ResolveApproval",
        Access::Command,
    ),
    ("/loopwright.v1.LoopService/ResolveUnknown", Access::Command),
    ("/loopwright.v1.LoopService/Converse", Access::Command),
    ("/loopwright.v1.LoopService/GetLoop", Access::Read),
    ("/loopwright.v1.LoopService/ListLoops", Access::Read),
    ("/loopwright.v1.LoopService/WatchLoop", Access::Read),
    ("/loopwright.v1.LoopService/WatchLoops", Access::Read),
    (
        "/loopwright.v1.SessionLogService/ListSessions",
        Access::Read,
    ),
    ("/loopwright.v1.SessionLogService/GetSession", Access::Read),
    ("/loopwright.v1.SessionLogService/ReadEntries", Access::Read),
    (
        "/loopwright.v1.SessionLogService/GetModelRequest",
        Access::Command,
    ),
    (
        "/loopwright.v1.SessionLogService/ForkSession",
        Access::Command,
    ),
    (
        "/loopwright.v1.SessionLogService/VerifySession",
        Access::Read,
    ),
    (
        "/loopwright.v1.SessionLogService/ExportSession",
        Access::Read,
    ),
    (
        "/loopwright.v1.SessionLogService/ImportSession",
        Access::Command,
    ),
    (
        "/loopwright.v1.SessionLogService/DeleteSession",
        Access::Command,
    ),
    (
        "/loopwright.v1.ToolService/RegisterSidecar",
        Access::Register,
    ),
    ("/loopwright.v1.ToolService/RenewLease", Access::Register),
    (
        "/loopwright.v1.ToolService/DeregisterSidecar",
        Access::Register,
    ),
    ("/loopwright.v1.ToolService/ListSidecars", Access::ReadTools),
    ("/loopwright.v1.ToolService/ListTools", Access::ReadTools),
    ("/loopwright.v1.BudgetService/CreateBudget", Access::Budgets),
    ("/loopwright.v1.BudgetService/UpdateBudget", Access::Budgets),
    ("/loopwright.v1.BudgetService/DeleteBudget", Access::Budgets),
    ("/loopwright.v1.BudgetService/GetBudget", Access::Read),
    ("/loopwright.v1.BudgetService/ListBudgets", Access::Read),
    ("/loopwright.v1.BudgetService/WatchBudget", Access::Read),
    ("/loopwright.v1.BudgetService/Reserve", Access::Spend),
    ("/loopwright.v1.BudgetService/Settle", Access::Spend),
    ("/loopwright.v1.BudgetService/Release", Access::Spend),
];

/// Services that anybody may call: load balancers and tools that look around have no token.
const OPEN: &[&str] = &["/grpc.health.v1.", "/grpc.reflection."];

/// Knows the callers.
pub struct Gate {
    tokens: Option<Tokens>,
}

/// Puts the [`Caller`] into each request, or answers in the handler's place.
#[derive(Clone)]
pub struct CallerLayer(Arc<Gate>);

/// See [`CallerLayer`].
#[derive(Clone)]
pub struct CallerService<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl Caller {
    /// Everybody, where there is no token file.
    #[must_use]
    pub fn local() -> Self {
        Self {
            namespace: Id::parse(DEFAULT_NAMESPACE).expect("the default namespace is an id"),
            principal: LOCAL_PRINCIPAL.to_owned(),
            role: Role::Admin,
        }
    }

    /// The caller of a request that passed the layer.
    ///
    /// # Errors
    /// UNAUTHENTICATED where it did not: a fault of how the server was put together.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| status::no_credential("the request has no caller"))
    }
}

impl Access {
    /// Whether `role` may.
    #[must_use]
    pub fn allows(self, role: Role) -> bool {
        match role {
            Role::Admin => true,
            Role::User => !matches!(self, Self::Register | Self::Budgets),
            Role::Viewer => matches!(self, Self::Read | Self::ReadTools),
            Role::Sidecar => matches!(self, Self::Register | Self::ReadTools | Self::Spend),
        }
    }
}

impl Gate {
    /// Callers by token; without a table everybody is [`Caller::local`]. That this is only so on
    /// loopback, or where `server.auth.insecure` is set, is a rule of the configuration.
    #[must_use]
    pub fn new(tokens: Option<Tokens>) -> Self {
        Self { tokens }
    }

    /// Who calls `path`; `None` for what anybody may call.
    ///
    /// # Errors
    /// UNAUTHENTICATED, or PERMISSION_DENIED.
    pub fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Option<Caller>, Status> {
        if OPEN.iter().any(|open| path.starts_with(open)) {
            return Ok(None);
        }
        let caller = match &self.tokens {
            None => Caller::local(),
            Some(tokens) => known(tokens, headers)?,
        };
        let access = ACCESS
            .iter()
            .find(|(known, _)| *known == path)
            .map(|(_, access)| *access);
        let allowed = access.map_or(caller.role == Role::Admin, |access| {
            access.allows(caller.role)
        });
        if allowed {
            return Ok(Some(caller));
        }
        Err(status::role_not_allowed(caller.role.as_str(), path))
    }
}

impl CallerLayer {
    /// The layer.
    #[must_use]
    pub fn new(gate: Gate) -> Self {
        Self(Arc::new(gate))
    }
}

impl<S> Layer<S> for CallerLayer {
    type Service = CallerService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallerService {
            gate: Arc::clone(&self.0),
            inner,
        }
    }
}

impl<S, B> Service<Request<B>> for CallerService<S>
where
    S: Service<Request<B>, Response = Response<axum::body::Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.gate.admit(request.uri().path(), request.headers()) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Right(self.inner.call(request))
            }
            Err(status) => {
                let response = status.into_http::<tonic::body::Body>();
                Either::Left(ready(Ok(response.map(axum::body::Body::new))))
            }
        }
    }
}

fn known(tokens: &Tokens, headers: &HeaderMap) -> Result<Caller, Status> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err(status::no_credential("the call has no credential"));
    };
    let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
    let Some((_, token)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
    else {
        return Err(status::no_credential(
            "the credential is not `Bearer TOKEN`",
        ));
    };
    let Some(identity) = tokens.find(token.trim()) else {
        return Err(status::no_credential("the token is nobody's"));
    };
    let namespace = Id::parse(&identity.namespace);
    Ok(Caller {
        namespace: namespace.map_err(|e| status::no_credential(&e.to_string()))?,
        principal: identity.principal.clone(),
        role: identity.role,
    })
}
