//! One attempt of a tool call at its sidecar.
//!
//! Boundary: a licensed call in, its one outcome out. Invariants: never retried here; a call that
//! surely did not run is `NotExecuted`, and everything else that is no answer is `Ambiguous`
//! (semantics: whoever cannot tell must not guess); every wait ends; dropping the future resets the
//! stream, which is how the sidecar hears that it is cancelled.

mod answer;
mod output;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use loopwright_core::agent::ToolSpec;
use loopwright_core::message::ToolOutput;
use loopwright_core::outcome::{ToolFailure, ToolFailureKind};
use loopwright_core::prompt::ToolRequest;
use loopwright_proto::v1::{CallToolRequest, ToolResult};
use loopwright_proto::well_known;
use tonic::{Code, Request, Status};

use super::{CallTrace, progress::ProgressSink};
use crate::sidecars::channel::{Link, in_words, was_not_sent};
use crate::sidecars::schema::{MAX_ARGUMENTS_BYTES, or_empty_object, sha256_hex};
use crate::sidecars::{SessionRef, Sidecars, split_tool_name};
use answer::{Deadline, Silence};

/// Room for progress and framing beside the longest result.
const MESSAGE_SLACK: usize = 16 << 10;

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// By whom.
    pub session: &'a SessionRef,
    /// Which call, and with what.
    pub request: &'a ToolRequest,
    /// The tool, as the session was offered it.
    pub spec: &'a ToolSpec,
}

/// Runs the attempt.
pub(crate) async fn run(
    sidecars: &Arc<Sidecars>,
    call: Call<'_>,
    trace: CallTrace,
    mut sink: ProgressSink,
) -> Result<ToolOutput, ToolFailure> {
    let arguments = or_empty_object(&call.request.part.arguments);
    if arguments.len() > MAX_ARGUMENTS_BYTES {
        let size = arguments.len();
        let limit = format!(
            "the arguments are {size} bytes, over the limit of {MAX_ARGUMENTS_BYTES} bytes"
        );
        return Err(not_executed(limit, false));
    }
    let name = &call.spec.name;
    let Some((sidecar, tool)) = split_tool_name(name) else {
        return Err(not_executed(
            format!("`{name}` is not the name of a sidecar's tool"),
            false,
        ));
    };
    let reached = sidecars.reach(&call.session.namespace, sidecar).await;
    let (live, link) =
        reached.map_err(|why| not_executed(format!("sidecar `{sidecar}`: {why}"), true))?;
    let Some(served) = live.tool(tool) else {
        let gone = format!("sidecar `{sidecar}` serves no tool `{tool}` any more");
        return Err(not_executed(gone, false));
    };
    if let Some(quarantine) = &served.tool.quarantined {
        return Err(not_executed(
            format!("`{name}` is in quarantine: {}", quarantine.why(sidecar)),
            false,
        ));
    }
    let patience = Duration::from_millis(call.spec.timeout_ms);
    let Ok(_slot) = tokio::time::timeout(patience, served.slot()).await else {
        let limit = served.tool.max_concurrency;
        let busy =
            format!("`{name}` takes {limit} calls at a time, and none ended within {patience:?}");
        return Err(not_executed(busy, true));
    };
    let _running = live.enter();
    let request = wire_request(call, tool, arguments, trace);
    let attempt = send(
        &link,
        request,
        call.spec,
        sidecars.limits().max_result_bytes,
        &mut sink,
    );
    // The transport panics on some malformed trailers; a sidecar must not take the driver with it.
    let result = match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(result) => result.map_err(|failure| of_sidecar(sidecar, failure))?,
        Err(_) => {
            return Err(ambiguous(format!(
                "sidecar `{sidecar}`: its answer could not be read"
            )));
        }
    };
    Ok(output::of(result, sidecars, call.session).await)
}

async fn send(
    link: &Link,
    request: Request<CallToolRequest>,
    spec: &ToolSpec,
    max_result: usize,
    sink: &mut ProgressSink,
) -> Result<ToolResult, ToolFailure> {
    let mut deadline = Deadline::starting_now(
        Duration::from_millis(spec.timeout_ms),
        Duration::from_millis(spec.absolute_cap_ms),
    );
    let mut client = link.client(max_result.saturating_add(MESSAGE_SLACK));
    let response = tokio::select! {
        biased;
        response = client.call_tool(request) => response,
        silence = deadline.passed() => return Err(expired(silence)),
    };
    match response {
        Ok(stream) => answer::collect(stream.into_inner(), deadline, sink).await,
        Err(status) => Err(refused(&status)),
    }
}

/// What a status means that came in the place of an answer.
fn refused(status: &Status) -> ToolFailure {
    if was_not_sent(status) {
        return not_executed(
            "the connection was lost before the call was sent".to_owned(),
            true,
        );
    }
    // This one is made by our own side, of an answer that it cannot unpack.
    let unreadable = status.message().starts_with("Content is compressed");
    if status.code() == Code::Unimplemented && !unreadable {
        return not_executed(in_words(status), false);
    }
    ambiguous(in_words(status))
}

fn wire_request(
    call: Call<'_>,
    tool: &str,
    arguments: &str,
    trace: CallTrace,
) -> Request<CallToolRequest> {
    let (session, asked, spec) = (call.session, call.request, call.spec);
    let name = asked.call.to_string();
    let cap = Duration::from_millis(spec.absolute_cap_ms);
    let deadline = SystemTime::now().checked_add(cap).map(timestamp);
    let traceparent = trace.traceparent.unwrap_or_default();
    let header = (!traceparent.is_empty())
        .then(|| traceparent.parse().ok())
        .flatten();
    let mut request = Request::new(CallToolRequest {
        session_id: session.session.to_string(),
        key: format!("{}/{}/{name}", session.namespace, session.session),
        call: name,
        attempt: asked.attempt,
        epoch: asked.epoch,
        tool: tool.to_owned(),
        arguments_sha256: sha256_hex(arguments),
        arguments_json: arguments.to_owned(),
        deadline,
        timeout: Some(Duration::from_millis(spec.timeout_ms).into()),
        traceparent,
    });
    request.set_timeout(cap);
    if let Some(header) = header {
        request.metadata_mut().insert("traceparent", header);
    }
    request
}

fn timestamp(at: SystemTime) -> well_known::Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    well_known::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

fn expired(silence: Silence) -> ToolFailure {
    ambiguous(match silence {
        Silence::Longest(limit) => format!("no answer and no progress within {limit:?}"),
        Silence::Whole(limit) => format!("no answer within {limit:?} in all (tools.absolute_cap)"),
    })
}

fn of_sidecar(sidecar: &str, failure: ToolFailure) -> ToolFailure {
    ToolFailure {
        message: format!("sidecar `{sidecar}`: {}", failure.message),
        ..failure
    }
}

fn not_executed(message: String, retryable: bool) -> ToolFailure {
    ToolFailure {
        kind: ToolFailureKind::NotExecuted,
        message,
        retryable,
        retry_after_ms: None,
    }
}

fn ambiguous(message: String) -> ToolFailure {
    ToolFailure {
        kind: ToolFailureKind::Ambiguous,
        message,
        retryable: false,
        retry_after_ms: None,
    }
}

#[cfg(test)]
mod tests;
