use super::*;

fn read(text: &str) -> Result<Event, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn a_kind_that_is_not_known_is_kept_to_the_letter() {
    let text = r#"{"MoonRose":{"at" :  1e999,"parts":[null,{"x":"ä\u00e4"}]}}"#;
    let event = read(text).expect("it is an event");
    assert_eq!(event.kind(), "MoonRose");
    assert_eq!(serde_json::to_string(&event).expect("JSON"), text);
}

#[test]
fn only_a_plain_word_of_its_writer_makes_a_kind_ignorable() {
    let ignorable = |json: &str| {
        let event = read(&format!("{{\"MoonRose\":{json}}}")).expect("it is an event");
        matches!(event, Event::Unknown(unknown) if unknown.is_ignorable())
    };
    assert!(ignorable(r#"{"n":1,"ignorable":true}"#));
    for not in [
        r#"{"n":1}"#,
        r#"{"ignorable":false}"#,
        r#"{"ignorable":"true"}"#,
        r#"{"ignorable":1}"#,
        r#"{"inner":{"ignorable":true}}"#,
        "[true]",
        "true",
        "null",
    ] {
        assert!(!ignorable(not), "{not}");
    }
}

#[test]
fn what_is_no_event_is_refused() {
    for text in [
        "{}",
        "[]",
        "1",
        "\"DriverDetached\"",
        r#"{"DriverAttached":{}}"#,
    ] {
        assert!(read(text).is_err(), "{text} was read");
    }
    let two = read(r#"{"DriverDetached":{},"DriverAttached":{"epoch":1}}"#);
    let error = two.expect_err("one event is of one kind");
    assert!(
        error.contains("DriverDetached and DriverAttached"),
        "{error}"
    );
}

#[test]
fn fields_of_a_later_version_do_not_stop_a_reader() {
    let event = read(r#"{"DriverAttached":{"epoch":3,"mood":"bright"}}"#);
    assert_eq!(event, Ok(DriverAttached { epoch: 3 }.into()));
}

#[test]
fn every_kind_is_named_once() {
    let mut kinds = Event::KINDS.to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), Event::KINDS.len());
    for kind in kinds {
        let known = read(&format!("{{\"{kind}\":[]}}"));
        let unknown = matches!(known, Ok(Event::Unknown(_)));
        assert!(!unknown, "{kind} is not read as itself");
    }
}
