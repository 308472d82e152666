//! Each role may do what the table says, and nothing else, on every rpc that there is.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use tonic::{Code, Request, Status, client::Grpc, metadata::MetadataValue, transport::Channel};
use tonic_types::StatusExt as _;

use super::tokens::{Guarded, ROLES, token};

/// Who may call what, in the order of [`ROLES`].
const TABLE: &[(&str, [bool; 4])] = &[
    ("LoopService/StartLoop", COMMAND),
    ("LoopService/SendMessage", COMMAND),
    ("LoopService/CancelLoop", COMMAND),
    ("LoopService/PauseLoop", COMMAND),
    ("LoopService/ResumeLoop", COMMAND),
    ("LoopService/UpdateLimits", COMMAND),
    ("LoopService/ResolveApproval", COMMAND),
    ("LoopService/ResolveUnknown", COMMAND),
    ("LoopService/Converse", COMMAND),
    ("LoopService/GetLoop", READ),
    ("LoopService/ListLoops", READ),
    ("LoopService/WatchLoop", READ),
    ("LoopService/WatchLoops", READ),
    ("SessionLogService/ListSessions", READ),
    ("SessionLogService/GetSession", READ),
    ("SessionLogService/ReadEntries", READ),
    ("SessionLogService/GetModelRequest", COMMAND),
    ("SessionLogService/ForkSession", COMMAND),
    ("SessionLogService/VerifySession", READ),
    ("SessionLogService/ExportSession", READ),
    ("SessionLogService/ImportSession", COMMAND),
    ("SessionLogService/DeleteSession", COMMAND),
    ("ToolService/RegisterSidecar", REGISTER),
    ("ToolService/RenewLease", REGISTER),
    ("ToolService/DeregisterSidecar", REGISTER),
    ("ToolService/ListSidecars", READ_TOOLS),
    ("ToolService/ListTools", READ_TOOLS),
    ("BudgetService/CreateBudget", BUDGETS),
    ("BudgetService/UpdateBudget", BUDGETS),
    ("BudgetService/DeleteBudget", BUDGETS),
    ("BudgetService/GetBudget", READ),
    ("BudgetService/ListBudgets", READ),
    ("BudgetService/WatchBudget", READ),
    ("BudgetService/Reserve", SPEND),
    ("BudgetService/Settle", SPEND),
    ("BudgetService/Release", SPEND),
];
const COMMAND: [bool; 4] = [true, true, false, false];
const READ: [bool; 4] = [true, true, true, false];
const READ_TOOLS: [bool; 4] = [true, true, true, true];
const REGISTER: [bool; 4] = [true, false, false, true];
const SPEND: [bool; 4] = [true, true, false, true];
const BUDGETS: [bool; 4] = [true, false, false, false];

/// Every rpc that the server serves, as the contract lists them.
fn rpcs() -> Result<Vec<String>> {
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?.file;
    let mut rpcs = Vec::new();
    for service in files.iter().flat_map(|file| &file.service) {
        // What sidecars serve.
        if service.name() != "SidecarService" {
            let methods = service.method.iter();
            rpcs.extend(methods.map(|method| format!("{}/{}", service.name(), method.name())));
        }
    }
    rpcs.sort();
    Ok(rpcs)
}

/// Calls an rpc of any kind with an empty message: how it was refused, if it was.
async fn call(channel: &Channel, rpc: &str, credential: Option<&str>) -> Result<Option<Status>> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let mut request = Request::new(tokio_stream::once(()));
    if let Some(credential) = credential {
        let value = MetadataValue::try_from(credential)?;
        request.metadata_mut().insert("authorization", value);
    }
    let path = format!("/loopwright.v1.{rpc}").parse()?;
    let codec: tonic_prost::ProstCodec<(), ()> = tonic_prost::ProstCodec::default();
    Ok(match grpc.streaming(request, path, codec).await {
        Ok(answer) => answer.into_inner().message().await.err(),
        Err(status) => Some(status),
    })
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says_and_no_more() -> Result<()> {
    let guarded = Guarded::start()?;
    let url = guarded.scene.server.url.clone();
    let channel = Channel::from_shared(url)?.connect().await?;
    let mut listed: Vec<&str> = TABLE.iter().map(|(rpc, _)| *rpc).collect();
    listed.sort_unstable();
    assert_eq!(rpcs()?, listed, "the table has every rpc");
    for (rpc, may) in TABLE {
        for (role, may) in ROLES.iter().zip(may) {
            let bearer = format!("Bearer {}", token("red", role));
            let refused = call(&channel, rpc, Some(&bearer)).await?;
            let code = refused.as_ref().map(Status::code);
            let forbidden = code == Some(Code::PermissionDenied);
            ensure!(forbidden != *may, "{role} {rpc}: {refused:?}");
            ensure!(code != Some(Code::Unauthenticated), "{role} {rpc}");
            if let Some(status) = refused.filter(|_| forbidden) {
                ensure!(reason(&status) == "ROLE_NOT_ALLOWED", "{status:?}");
                ensure!(status.message().contains(role), "{status:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_a_good_credential_nothing_of_the_service_answers() -> Result<()> {
    let guarded = Guarded::start()?;
    let url = guarded.scene.server.url.clone();
    let channel = Channel::from_shared(url)?.connect().await?;
    let good = token("red", "admin");
    let credentials = [
        None,
        Some("Bearer nobody-has-this-one-0123456789".to_owned()),
        Some(format!("Basic {good}")),
        Some(good.clone()),
        Some("Bearer".to_owned()),
        Some(format!("Bearer {}", &good[..good.len() - 1])),
    ];
    for (rpc, _) in TABLE {
        for credential in &credentials {
            let refused = call(&channel, rpc, credential.as_deref()).await?;
            let status = refused.with_context(|| format!("{rpc} with {credential:?}"))?;
            ensure!(
                status.code() == Code::Unauthenticated && reason(&status) == "NO_CREDENTIAL",
                "{rpc} with {credential:?}: {status:?}"
            );
        }
    }
    // An rpc that nobody knows is no way around either.
    let status = call(&channel, "LoopService/DropEverything", None).await?;
    assert_eq!(status.map(|s| s.code()), Some(Code::Unauthenticated));
    Ok(())
}
