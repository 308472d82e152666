//! One attempt of a tool call at its sidecar.
//!
//! Boundary: a licensed call in, its one outcome out. Invariants: never retried here; a call that
//! surely did not run is `NotExecuted`, and everything else that is no answer is `Ambiguous`
//! (semantics: whoever cannot tell must not guess); every wait ends; dropping the future resets the
//! stream, which is how the sidecar hears that it is cancelled.

mod answer;
mod deadline;
mod failure;
mod lookup;
mod output;
pub(crate) mod read_output;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use loopwright_core::agent::{READ_OUTPUT, ToolSpec};
use loopwright_core::message::ToolOutput;
use loopwright_core::outcome::ToolFailure;
use loopwright_core::prompt::ToolRequest;
use loopwright_proto::v1::{CallToolRequest, ToolResult};
use loopwright_proto::well_known;
use tonic::Request;

use super::{CallTrace, progress::ProgressSink};
use crate::sidecars::channel::Link;
use crate::sidecars::schema::{MAX_ARGUMENTS_BYTES, or_empty_object, sha256_hex};
use crate::sidecars::{CallLimits, SessionRef, Sidecars, split_tool_name};
use deadline::Deadline;
use failure::{bad_reply, expired, not_executed, of_sidecar, refused};

pub(crate) use lookup::look_up;

/// Room for progress and framing beside the longest result.
const MESSAGE_SLACK: usize = 16 << 10;
/// By how much the transport's own timeout is longer, so that ours speaks first, in better words.
const TRANSPORT_SLACK: Duration = Duration::from_secs(1);

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
    if sidecar == read_output::BUILT_IN {
        return built_in(sidecars, call, tool, arguments).await;
    }
    let reached = sidecars.reach(&call.session.namespace, sidecar).await;
    let (live, link) =
        reached.map_err(|why| not_executed(format!("sidecar `{sidecar}`: {why}"), true))?;
    let meant = &*call.request.sidecar_instance;
    if !meant.is_empty() && link.instance() != Some(meant) {
        // Another one could not be asked about it. The next attempt is meant for the one that is there now.
        let why = format!("sidecar `{sidecar}` was started anew before the call was sent");
        return Err(not_executed(why, true));
    }
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
    let attempt = send(&link, request, call.spec, sidecars.limits(), &mut sink);
    // The transport panics on some malformed trailers; a sidecar must not take the driver with it.
    let result = match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(result) => result.map_err(|failure| of_sidecar(sidecar, failure))?,
        Err(_) => {
            let unreadable = bad_reply("its answer could not be read".to_owned());
            return Err(of_sidecar(sidecar, unreadable));
        }
    };
    Ok(output::of(result, sidecars, call).await)
}

/// A call that the server itself carries out.
async fn built_in(
    sidecars: &Sidecars,
    call: Call<'_>,
    tool: &str,
    arguments: &str,
) -> Result<ToolOutput, ToolFailure> {
    if call.spec.name != READ_OUTPUT {
        return Err(not_executed(
            format!("there is no built-in tool `{tool}`"),
            false,
        ));
    }
    let most_chars = sidecars.limits().max_output_chars;
    let read = read_output::run(&**sidecars.log(), call.session, arguments, most_chars);
    let patience = Duration::from_millis(call.spec.timeout_ms);
    let late = |_| not_executed(format!("the log was not read within {patience:?}"), true);
    tokio::time::timeout(patience, read).await.map_err(late)?
}

async fn send(
    link: &Link,
    request: Request<CallToolRequest>,
    spec: &ToolSpec,
    limits: CallLimits,
    sink: &mut ProgressSink,
) -> Result<ToolResult, ToolFailure> {
    let mut deadline = Deadline::starting_now(
        Duration::from_millis(spec.timeout_ms),
        Duration::from_millis(spec.absolute_cap_ms),
    );
    let mut client = link.client(limits.max_result_bytes.saturating_add(MESSAGE_SLACK));
    sink.flight().sent();
    let response = tokio::select! {
        biased;
        response = client.call_tool(request) => response,
        silence = deadline.passed() => return Err(expired(silence)),
    };
    match response {
        Ok(stream) => {
            let messages = stream.into_inner();
            answer::collect(messages, &mut deadline, sink, limits.redaction).await?
        }
        Err(status) => Err(refused(&status, limits.redaction)),
    }
}

fn wire_request(
    call: Call<'_>,
    tool: &str,
    arguments: &str,
    trace: CallTrace,
) -> Request<CallToolRequest> {
    let (session, asked, spec) = (call.session, call.request, call.spec);
    let cap = Duration::from_millis(spec.absolute_cap_ms);
    let traceparent = trace.traceparent.unwrap_or_default();
    let mut request = traced(&traceparent, |traceparent| CallToolRequest {
        session_id: session.session.to_string(),
        key: session.key_of(asked.call),
        call: asked.call.to_string(),
        attempt: asked.attempt,
        epoch: asked.epoch,
        tool: tool.to_owned(),
        arguments_sha256: sha256_hex(arguments),
        arguments_json: arguments.to_owned(),
        deadline: SystemTime::now().checked_add(cap).map(timestamp),
        timeout: Some(Duration::from_millis(spec.timeout_ms).into()),
        traceparent,
        instance: asked.instance(),
    });
    request.set_timeout(cap + TRANSPORT_SLACK);
    request
}

/// A message with the trace that it belongs to, in itself and in its metadata.
fn traced<T>(traceparent: &str, message: impl FnOnce(String) -> T) -> Request<T> {
    let mut request = Request::new(message(traceparent.to_owned()));
    if let Ok(header) = traceparent.parse()
        && !traceparent.is_empty()
    {
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

#[cfg(test)]
mod tests;
