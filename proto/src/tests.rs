#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;

use crate::v1::{
    BlobRef, Cause, Entry, Event, Message, MessageAdded, MessageOrigin, Part, Role, event, part,
};
use crate::{FILE_DESCRIPTOR_SET, well_known};

#[test]
fn an_entry_survives_json() {
    let entry = Entry {
        seq: u64::MAX,
        session_id: "s1".into(),
        committed_at: Some(well_known::Timestamp {
            seconds: 1_763_800_000,
            nanos: 5_000_000,
        }),
        epoch: 3,
        cause: Some(Cause {
            kind: "send_message".into(),
            request_id: "r1".into(),
            principal: "ada".into(),
        }),
        events: vec![Event {
            ignorable: false,
            kind: Some(event::Kind::MessageAdded(added())),
        }],
        traceparent: String::new(),
    };

    let json = serde_json::to_string(&entry).unwrap();

    assert!(
        json.contains(r#""seq":"18446744073709551615""#),
        "64-bit numbers are strings: {json}"
    );
    assert!(
        json.contains(r#""origin":"MESSAGE_ORIGIN_STEER""#),
        "enums are names: {json}"
    );
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    assert_eq!(
        Entry::decode(entry.encode_to_vec().as_slice()).unwrap(),
        entry
    );
}

#[test]
fn json_of_a_newer_version_is_read() {
    let json = r#"{"seq":"7","introducedLater":{"a":1},"events":[{"ignorable":true}]}"#;

    let entry: Entry = serde_json::from_str(json).unwrap();

    assert_eq!((entry.seq, entry.events.len()), (7, 1));
}

#[test]
fn the_descriptor_set_holds_exactly_what_is_served() {
    let rpcs: BTreeSet<String> = descriptors()
        .file
        .iter()
        .filter(|file| file.package() == "loopwright.v1")
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            service
                .method
                .iter()
                .map(|method| format!("{}.{}", service.name(), method.name()))
        })
        .collect();

    let expected = [
        "BudgetService.CreateBudget",
        "BudgetService.DeleteBudget",
        "BudgetService.GetBudget",
        "BudgetService.ListBudgets",
        "BudgetService.Release",
        "BudgetService.Reserve",
        "BudgetService.Settle",
        "BudgetService.UpdateBudget",
        "BudgetService.WatchBudget",
        "SidecarService.AttachCall",
        "SidecarService.LookupCall",
        "LoopService.CancelLoop",
        "LoopService.Converse",
        "LoopService.GetLoop",
        "LoopService.ListLoops",
        "LoopService.PauseLoop",
        "LoopService.ResolveApproval",
        "LoopService.ResolveUnknown",
        "LoopService.ResumeLoop",
        "LoopService.SendMessage",
        "LoopService.StartLoop",
        "LoopService.UpdateLimits",
        "LoopService.WatchLoop",
        "LoopService.WatchLoops",
        "SessionLogService.DeleteSession",
        "SessionLogService.ExportSession",
        "SessionLogService.ForkSession",
        "SessionLogService.GetModelRequest",
        "SessionLogService.GetSession",
        "SessionLogService.ImportSession",
        "SessionLogService.ListSessions",
        "SessionLogService.ReadEntries",
        "SessionLogService.VerifySession",
        "SidecarService.CallTool",
        "SidecarService.Describe",
        "ToolService.DeregisterSidecar",
        "ToolService.ListSidecars",
        "ToolService.ListTools",
        "ToolService.RegisterSidecar",
        "ToolService.RenewLease",
    ];
    assert_eq!(rpcs, expected.map(String::from).into());
}

#[test]
fn event_kinds_leave_the_envelope_its_numbers() {
    let set = descriptors();
    let event = set
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .find(|message| message.name() == "Event")
        .unwrap();

    for field in event
        .field
        .iter()
        .filter(|field| field.oneof_index.is_some())
    {
        assert!(
            field.number() >= 10,
            "{} = {}",
            field.name(),
            field.number()
        );
    }
}

#[test]
fn a_command_status_is_a_google_rpc_status() {
    use crate::v1::CommandStatus;
    let status = CommandStatus {
        code: 9,
        message: "no model".into(),
        details: vec![well_known::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: b"\x0a\x08NO_MODEL".to_vec().into(),
        }],
    };

    let google = tonic_types::pb::Status::decode(status.encode_to_vec().as_slice()).unwrap();

    assert_eq!((google.code, google.message.as_str()), (9, "no model"));
    assert_eq!(google.details[0].type_url, status.details[0].type_url);
    assert_eq!(google.details[0].value, status.details[0].value);
}

fn added() -> MessageAdded {
    let part = Part {
        kind: Some(part::Kind::Text("Grüße".into())),
        full: Some(BlobRef {
            sha256: "ab".repeat(32),
            bytes: 1 << 20,
        }),
    };
    MessageAdded {
        origin: MessageOrigin::Steer.into(),
        message: Some(Message {
            role: Role::User.into(),
            parts: vec![part],
        }),
    }
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}
