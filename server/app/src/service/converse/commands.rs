//! One command of a Converse stream, and its reply.

use loopwright_log::StreamKey;
use loopwright_proto::{
    v1::{self, converse_request::Command},
    well_known,
};
use prost::Message as _;
use tonic::{Code, Status};

use crate::service::{
    ServiceState,
    convert::{
        commands,
        questions::{self, Watched},
    },
    loops::{Done, Order},
    status,
    watch::Watch,
};

/// What became of a command.
pub(super) struct Answered {
    pub(super) reply: v1::Reply,
    /// The session that the stream has from now on, where the command fixed it.
    pub(super) watched: Option<(StreamKey, Watch)>,
}

/// How a command went: what it wrote, and what is watched from now on.
type Outcome = Result<(Done, Option<(StreamKey, Watch)>), Status>;

/// Carries out one command; `fixed` is the stream's session, once it has one.
pub(super) async fn answer(
    state: ServiceState,
    order: Order,
    fixed: Option<StreamKey>,
    request: v1::ConverseRequest,
) -> Answered {
    let Some(command) = request.command else {
        let problem = "is empty; send start, attach, message, cancel, pause, resume, \
                       update_limits, resolve_approval or resolve_unknown";
        return reply(
            String::new(),
            Err(status::invalid_field("command", problem)),
        );
    };
    let request_id = match &command {
        Command::Start(start) => start.request_id.clone(),
        Command::Attach(attach) => attach.request_id.clone(),
        Command::Message(message) => message.request_id.clone(),
        Command::Cancel(cancel) => cancel.request_id.clone(),
        Command::ResolveApproval(answer) => answer.request_id.clone(),
        Command::ResolveUnknown(answer) => answer.request_id.clone(),
        Command::Pause(pause) => pause.request_id.clone(),
        Command::Resume(resume) => resume.request_id.clone(),
        Command::UpdateLimits(update) => update.request_id.clone(),
    };
    let outcome = match (command, fixed) {
        (Command::Start(request), None) => start(&state, &order, request).await,
        (Command::Attach(request), None) => attach(&state, &order, request).await,
        (_, None) => Err(status::not_attached()),
        (command, Some(fixed)) => told(&state, &order, command, &fixed)
            .await
            .map(|done| (done, None)),
    };
    reply(request_id, outcome)
}

/// A command to the stream's session.
async fn told(
    state: &ServiceState,
    order: &Order,
    command: Command,
    fixed: &StreamKey,
) -> Result<Done, Status> {
    match command {
        Command::Message(mut request) => {
            addressed(&mut request.session_id, fixed)?;
            state.send_message(order, request).await
        }
        Command::Cancel(mut request) => {
            addressed(&mut request.session_id, fixed)?;
            state.cancel_loop(order, request).await
        }
        Command::ResolveApproval(mut request) => {
            addressed(&mut request.session_id, fixed)?;
            state.resolve_approval(order, request).await
        }
        Command::ResolveUnknown(mut request) => {
            addressed(&mut request.session_id, fixed)?;
            state.resolve_unknown(order, request).await
        }
        Command::Pause(mut request) => {
            addressed(&mut request.session_id, fixed)?;
            state.pause_loop(order, &request).await
        }
        Command::Resume(mut request) => {
            addressed(&mut request.session_id, fixed)?;
            state.resume_loop(order, &request).await
        }
        Command::UpdateLimits(mut request) => {
            addressed(&mut request.session_id, fixed)?;
            state.update_limits(order, &request).await
        }
        Command::Start(_) | Command::Attach(_) => Err(status::already_attached(fixed.id())),
    }
}

async fn start(state: &ServiceState, order: &Order, request: v1::StartLoopRequest) -> Outcome {
    let start = commands::start(request, &order.caller, &state.config);
    let start = start.map_err(|all| status::invalid(&all))?;
    let (key, by) = (start.key.clone(), start.by.request_id.clone());
    // Before the command, so that a server without room refuses it rather than leave it unwatched.
    let watching = state.watching();
    let seat = watching.seats.take(&key)?;
    let done = state.start_loop(order, start).await?;
    let after = state.before_start(&key, &by, done.seq).await?;
    let what = Watched::everything(key.clone(), after, true);
    let watch = watching.open_seated(what, seat).await?;
    Ok((done, Some((key, watch))))
}

async fn attach(state: &ServiceState, order: &Order, request: v1::ConverseAttach) -> Outcome {
    let what = questions::attach(&request, &order.caller.namespace);
    let what = what.map_err(|all| status::invalid(&all))?;
    let key = what.key.clone();
    let watch = state.watching().open(what).await?;
    let tail = state
        .log
        .tail(&key)
        .await
        .ok()
        .flatten()
        .unwrap_or(request.after_seq);
    let done = Done {
        session: key.id().to_owned(),
        seq: tail,
        loop_id: String::new(),
    };
    Ok((done, Some((key, watch))))
}

/// Fills in the stream's session; another one is refused.
fn addressed(session_id: &mut String, fixed: &StreamKey) -> Result<(), Status> {
    if session_id.is_empty() {
        fixed.id().clone_into(session_id);
    }
    if session_id == fixed.id() {
        return Ok(());
    }
    Err(status::session_mismatch(session_id, fixed.id()))
}

fn reply(request_id: String, outcome: Outcome) -> Answered {
    match outcome {
        Ok((done, watched)) => {
            let status = v1::CommandStatus {
                code: Code::Ok as i32,
                ..Default::default()
            };
            let reply = v1::Reply {
                request_id,
                status: Some(status),
                seq: done.seq,
                session_id: done.session,
                loop_id: done.loop_id,
            };
            Answered { reply, watched }
        }
        Err(refused) => {
            let status = Some(in_reply(&refused));
            let reply = v1::Reply {
                request_id,
                status,
                ..Default::default()
            };
            Answered {
                reply,
                watched: None,
            }
        }
    }
}

/// A status as a reply carries it: what stands in the trailers of an rpc, as a message.
pub(super) fn in_reply(status: &Status) -> v1::CommandStatus {
    let rich = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
    let details = rich.details.into_iter().map(|any| well_known::Any {
        type_url: any.type_url,
        value: any.value.into(),
    });
    v1::CommandStatus {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: details.collect(),
    }
}
