#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use http::HeaderValue;
use prost::Message as _;
use tonic::Code;

use super::*;

fn gate() -> Gate {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    let mut file = std::fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    for role in ["admin", "user", "viewer", "sidecar"] {
        writeln!(file, "{role}-token-0123456789 acme {role}-1 {role}").unwrap();
    }
    Gate::new(Some(Tokens::read(&path).unwrap()))
}

fn headers(authorization: &str) -> HeaderMap {
    let value = HeaderValue::from_str(authorization).unwrap();
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

fn rpcs() -> Vec<String> {
    let all =
        prost_types::FileDescriptorSet::decode(loopwright_proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = all.file.into_iter().flat_map(|file| file.service);
    let served = services.filter(|service| service.name() != "SidecarService");
    let path = |service: &prost_types::ServiceDescriptorProto| {
        let methods = service.method.iter();
        methods
            .map(|m| format!("/loopwright.v1.{}/{}", service.name(), m.name()))
            .collect::<Vec<_>>()
    };
    served.flat_map(|service| path(&service)).collect()
}

#[test]
fn every_rpc_stands_in_the_table() {
    let mut table: Vec<_> = ACCESS.iter().map(|(path, _)| (*path).to_owned()).collect();
    let mut served = rpcs();
    table.sort();
    served.sort();
    assert_eq!(
        table, served,
        "an rpc that is not in the table is open to admins alone"
    );
}

#[test]
fn roles_reach_as_far_as_the_table_says() {
    let gate = gate();
    let reaches = |role: &str| {
        let headers = headers(&format!("Bearer {role}-token-0123456789"));
        let admitted = |path: &&String| match gate.admit(path, &headers) {
            Ok(caller) => {
                let caller = caller.unwrap();
                assert_eq!(caller.namespace.as_str(), "acme");
                assert_eq!(caller.principal, format!("{role}-1"));
                true
            }
            Err(status) => {
                assert_eq!(status.code(), Code::PermissionDenied);
                false
            }
        };
        let all = rpcs();
        let names = all
            .iter()
            .filter(admitted)
            .map(|path| path.rsplit('/').next().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let all = rpcs().len();
    assert_eq!(reaches("admin").split(' ').count(), all);
    assert_eq!(reaches("user").split(' ').count(), all - 6);
    assert!(!reaches("user").contains("Sidecar ") && !reaches("user").contains("RenewLease"));
    assert!(!reaches("user").contains("CreateBudget") && reaches("user").contains("Reserve"));
    assert_eq!(
        reaches("viewer"),
        "GetBudget ListBudgets WatchBudget GetLoop ListLoops WatchLoop WatchLoops ListSessions \
         GetSession ReadEntries VerifySession ExportSession ListSidecars ListTools"
    );
    assert_eq!(
        reaches("sidecar"),
        "Reserve Settle Release RegisterSidecar RenewLease DeregisterSidecar ListSidecars ListTools"
    );
}

#[test]
fn a_call_without_a_good_token_is_refused_and_health_needs_none() {
    let gate = gate();
    let path = "/loopwright.v1.LoopService/GetLoop";
    let refused = |headers: &HeaderMap| {
        let status = gate.admit(path, headers).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        status.message().split(';').next().unwrap().to_owned()
    };
    assert_eq!(refused(&HeaderMap::new()), "the call has no credential");
    assert_eq!(
        refused(&headers("Basic YTpi")),
        "the credential is not `Bearer TOKEN`"
    );
    assert_eq!(refused(&headers("Bearer wrong")), "the token is nobody's");
    assert!(
        gate.admit(path, &headers("bearer admin-token-0123456789"))
            .is_ok(),
        "any case"
    );
    for open in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/X",
    ] {
        assert_eq!(gate.admit(open, &HeaderMap::new()).unwrap(), None);
    }
    let other = "/loopwright.v1.BudgetService/CreateBudget";
    let user = headers("Bearer user-token-0123456789");
    assert_eq!(
        gate.admit(other, &user).unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[test]
fn without_a_token_file_everybody_is_local() {
    let caller = Gate::new(None).admit("/loopwright.v1.LoopService/GetLoop", &HeaderMap::new());
    let caller = caller.unwrap().unwrap();
    assert_eq!(caller, Caller::local());
    assert_eq!(
        (
            caller.namespace.as_str(),
            caller.principal.as_str(),
            caller.role
        ),
        ("default", "local", Role::Admin)
    );
}
