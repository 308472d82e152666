//! ToolService as a client sees it: pages, statuses and what they carry.
#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_log::MemoryLog;
use tonic_types::StatusExt as _;

use super::*;
use crate::config::Config;
use crate::sidecars::tests::fake::{Fake, tool};
use crate::telemetry::Telemetry;

fn tools() -> Tools {
    Tools::new(Sidecars::new(
        &Config::default(),
        MemoryLog::new(),
        Telemetry::off(),
    ))
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::local());
    request
}

async fn register(
    tools: &Tools,
    name: &str,
    endpoint: &str,
) -> Result<v1::RegisterSidecarResponse, Status> {
    let request = v1::RegisterSidecarRequest {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        ..v1::RegisterSidecarRequest::default()
    };
    Ok(tools.register_sidecar(asked(request)).await?.into_inner())
}

#[tokio::test]
async fn refusals_carry_their_code_and_reason() {
    let tools = tools();
    for (name, endpoint, code, reason) in [
        (
            "a",
            "http://192.0.2.1:1",
            Code::PermissionDenied,
            "ENDPOINT_NOT_ALLOWED",
        ),
        (
            "a",
            "http://127.0.0.1:1",
            Code::FailedPrecondition,
            "SIDECAR_UNREACHABLE",
        ),
        (
            "A",
            "http://127.0.0.1:1",
            Code::InvalidArgument,
            "INVALID_FIELDS",
        ),
    ] {
        let status = register(&tools, name, endpoint).await.unwrap_err();
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), info.reason.as_str()),
            (code, reason),
            "{status:?}"
        );
    }
    let both = register(&tools, "A", "nonsense").await.unwrap_err();
    let fields = both.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, ["name", "endpoint"]);

    let lease = v1::RenewLeaseRequest {
        lease_id: "gone".to_owned(),
    };
    let status = tools.renew_lease(asked(lease)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let none = v1::DeregisterSidecarRequest { target: None };
    let status = tools.deregister_sidecar(asked(none)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

#[tokio::test]
async fn pages_hold_every_tool_once_in_order_and_never_too_much() {
    let tools = tools();
    let large = |name: &str| v1::ToolSpec {
        input_schema_json: format!(
            r#"{{"type":"object","description":"{}"}}"#,
            "x".repeat(60_000)
        ),
        ..tool(name)
    };
    let mut fakes = Vec::new();
    for name in ["e", "a", "d", "c", "b", "h", "g", "f", "i", "j", "k"] {
        let fake = Fake::tcp(&[]);
        let six = ["t1", "t2", "t3", "t4", "t5", "t6"].map(large);
        fake.state.tools.lock().unwrap().extend(six);
        register(&tools, name, &fake.endpoint()).await.unwrap();
        fakes.push(fake);
    }
    let mut names = Vec::new();
    let mut request = v1::ListToolsRequest {
        page_size: 500,
        ..v1::ListToolsRequest::default()
    };
    loop {
        let page = tools
            .list_tools(asked(request.clone()))
            .await
            .unwrap()
            .into_inner();
        assert!(page.encoded_len() < 4 << 20 && !page.tools.is_empty());
        names.extend(page.tools.into_iter().map(|tool| tool.tool.unwrap().name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let mut wanted = names.clone();
    wanted.sort();
    wanted.dedup();
    assert_eq!((names.len(), &names), (66, &wanted));

    request.sidecar = "a".to_owned();
    let status = tools.list_tools(asked(request)).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::InvalidArgument,
        "a token of other filters was taken"
    );

    let request = v1::ListSidecarsRequest {
        page_size: 4,
        ..v1::ListSidecarsRequest::default()
    };
    let page = tools
        .list_sidecars(asked(request))
        .await
        .unwrap()
        .into_inner();
    let names: Vec<_> = page.sidecars.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert!(!page.next_page_token.is_empty());
}

#[tokio::test]
async fn a_registration_answers_with_what_is_offered_and_what_is_not() {
    let (tools, fake) = (tools(), Fake::tcp(&["good"]));
    let bad = v1::ToolSpec {
        input_schema_json: "[]".to_owned(),
        ..tool("bad")
    };
    let promised = v1::ToolSpec {
        effect_class: v1::EffectClass::Deduplicated as i32,
        retention: Some(std::time::Duration::from_millis(1500).into()),
        output_schema_json: r#"{"type":"object"}"#.to_owned(),
        max_concurrency: 3,
        supports_cancel: true,
        ..tool("kept")
    };
    fake.state
        .tools
        .lock()
        .unwrap()
        .extend([bad, promised.clone()]);
    let answer = register(&tools, "fake", &fake.endpoint()).await.unwrap();
    assert_eq!(answer.lease_ttl.unwrap().seconds, 30);
    let names: Vec<_> = answer
        .accepted
        .iter()
        .map(|tool| tool.name.as_str())
        .collect();
    assert_eq!(names, ["fake__good", "fake__kept"]);
    let said = answer.accepted[1].spec.clone().unwrap();
    let wanted = v1::ToolSpec {
        timeout: Some(std::time::Duration::from_secs(120).into()),
        ..promised
    };
    assert_eq!(said, wanted);
    assert_eq!(answer.quarantined[0].name, "fake__bad");
    assert!(answer.quarantined[0].reason.contains("object"));
}
