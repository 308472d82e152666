//! Why a registration, a renewal or a deregistration was refused.

use std::time::Duration;

use loopwright_log::AppendError;

/// A refused command about a sidecar. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// Fields that are not as they must be, all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Fields(Vec<FieldProblem>),
    /// The endpoint may not be dialled; the text names the key that would allow it.
    #[error("{0}")]
    EndpointNotAllowed(String),
    /// Somebody else has the name.
    #[error("sidecar `{name}`: {why}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who, and the way out.
        why: String,
        /// When it may be free, where that is a matter of time.
        retry_after: Option<Duration>,
    },
    /// Nothing answers at the endpoint.
    #[error("sidecar `{name}` at {endpoint}: {why}")]
    Unreachable {
        /// The name.
        name: String,
        /// The endpoint.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// It says what cannot be served.
    #[error("sidecar `{name}` cannot be served: {why}")]
    Invalid {
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The lease ran out, or never was.
    #[error(
        "lease `{lease}` is not known: it ran out, or the sidecar was taken out; register again"
    )]
    LeaseNotFound {
        /// The lease.
        lease: String,
    },
    /// There never was such a sidecar.
    #[error("there is no sidecar `{name}` in this namespace; ListSidecars shows those that are")]
    SidecarNotFound {
        /// The name.
        name: String,
    },
    /// Another identity owns it.
    #[error(
        "sidecar `{name}` belongs to `{owner}`; only its owner or an admin takes it out by name"
    )]
    NotOwner {
        /// The name.
        name: String,
        /// Its owner.
        owner: String,
    },
    /// The namespace owns as many names as it may.
    #[error("the namespace has {limit} sidecar names; take out by name those no longer used")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// One field that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldProblem {
    /// The field's name in the request.
    pub field: &'static str,
    /// What it holds, and what was expected.
    pub problem: String,
}

impl SidecarError {
    /// The name for `ErrorInfo.reason`; stable.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fields(_) => "INVALID_FIELDS",
            Self::EndpointNotAllowed(_) => "ENDPOINT_NOT_ALLOWED",
            Self::NameTaken { .. } => "SIDECAR_NAME_TAKEN",
            Self::Unreachable { .. } => "SIDECAR_UNREACHABLE",
            Self::Invalid { .. } => "SIDECAR_INVALID",
            Self::LeaseNotFound { .. } => "LEASE_NOT_FOUND",
            Self::SidecarNotFound { .. } => "SIDECAR_NOT_FOUND",
            Self::NotOwner { .. } => "SIDECAR_NOT_OWNED",
            Self::TooMany { .. } => "TOO_MANY_SIDECARS",
            Self::Log(_) => "LOG_UNAVAILABLE",
        }
    }
}
