//! Sidecars and their tools as they are listed.

use loopwright_core::ids::Timestamp;
use loopwright_proto::v1;

use super::{timestamp, words};
use crate::sidecars::{Phase, SidecarView, ToolStanding, ToolView};

/// A sidecar.
#[must_use]
pub fn sidecar(view: SidecarView) -> v1::Sidecar {
    v1::Sidecar {
        state: sidecar_state(view.phase) as i32,
        name: view.name,
        endpoint: view.endpoint,
        detail: view.detail,
        labels: view.labels,
        registered_at: Some(timestamp(Timestamp(view.registered_at_ms))),
        lease_expires_at: Some(timestamp(Timestamp(view.lease_expires_at_ms))),
        tools: view.tools,
        quarantined: view.quarantined,
        running_calls: view.running_calls,
        version: view.version,
    }
}

/// How a sidecar is.
#[must_use]
pub fn sidecar_state(phase: Phase) -> v1::SidecarState {
    match phase {
        Phase::Connecting => v1::SidecarState::Connecting,
        Phase::Healthy => v1::SidecarState::Healthy,
        Phase::Unhealthy => v1::SidecarState::Unhealthy,
        Phase::Draining => v1::SidecarState::Draining,
    }
}

/// A tool and how it is.
#[must_use]
pub fn tool(view: ToolView) -> v1::Tool {
    v1::Tool {
        state: tool_state(view.standing) as i32,
        detail: view.detail.clone(),
        tool: Some(offered(view)),
    }
}

/// How a tool is.
#[must_use]
pub fn tool_state(standing: ToolStanding) -> v1::ToolState {
    match standing {
        ToolStanding::Healthy => v1::ToolState::Healthy,
        ToolStanding::Unavailable => v1::ToolState::Unavailable,
        ToolStanding::Quarantined => v1::ToolState::Quarantined,
    }
}

/// A tool, with all that its sidecar said of it.
#[must_use]
pub fn offered(view: ToolView) -> v1::OfferedTool {
    let known = words::offered(&view.spec).spec.unwrap_or_default();
    v1::OfferedTool {
        name: view.spec.name,
        sidecar: view.sidecar,
        spec: Some(v1::ToolSpec {
            name: view.own_name,
            output_schema_json: view.output_schema,
            max_concurrency: view.max_concurrency,
            supports_cancel: view.supports_cancel,
            supports_attach: view.supports_attach,
            ..known
        }),
    }
}
