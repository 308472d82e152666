#![expect(clippy::unwrap_used, reason = "tests")]

mod asking;
mod control;
mod ends;
mod events;
mod records;
mod requests;

use loopwright_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::kinds::KIND_NAMES;

fn message(name: &str) -> DescriptorProto {
    let all = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut messages = all.file.into_iter().flat_map(|file| file.message_type);
    messages.find(|message| message.name() == name).unwrap()
}

fn number(of: &str, field: &str) -> i32 {
    let message = message(of);
    message
        .field
        .iter()
        .find(|one| one.name() == field)
        .unwrap()
        .number()
}

#[test]
fn kinds_are_the_fields_of_event_in_their_order() {
    let mut fields: Vec<_> = message("Event").field;
    fields.retain(|field| field.oneof_index.is_some());
    fields.sort_by_key(|field| field.number());
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    assert_eq!(names, KIND_NAMES);
    assert!(names.len() <= 64, "a bit each");
}

#[test]
fn one_encoding_of_entries_and_deltas_serves_every_stream() {
    for response in [
        "WatchLoopResponse",
        "ConverseResponse",
        "ReadEntriesResponse",
    ] {
        assert_eq!(number(response, "entry"), 1, "{response}");
    }
    for response in ["WatchLoopResponse", "ConverseResponse"] {
        assert_eq!(number(response, "delta"), 2, "{response}");
    }
}
