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
    assert_eq!(
        event,
        Ok(DriverAttached {
            epoch: 3,
            server: String::new()
        }
        .into())
    );
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

#[test]
fn an_end_of_a_version_that_did_not_say_what_did_not_fit_is_read() {
    let ended = |reason: &str| {
        read(&format!(
            r#"{{"LoopEnded":{{"loop":"l1","at":5,"reason":{reason},"text":"","totals":{{"steps":1,"model_calls":1,"tool_calls":0,"usage":{{"input":1,"output":1,"cache_write":0,"cache_read":0}},"wall_ms":1}}}}}}"#
        ))
    };
    let reason = |event: Result<Event, String>| match event {
        Ok(Event::LoopEnded(e)) => e.reason,
        other => panic!("{other:?}"),
    };
    let exhausted = |tokens, limit| EndReason::ContextExhausted { tokens, limit };
    assert_eq!(reason(ended(r#""context_exhausted""#)), exhausted(0, 0));
    let whole = r#"{"context_exhausted":{"tokens":9,"limit":8}}"#;
    assert_eq!(reason(ended(whole)), exhausted(9, 8));
    assert_eq!(reason(ended(r#""completed""#)), EndReason::Completed);
    assert!(ended(r#""max_steps""#).is_err(), "it has a limit");
    assert!(ended(r#""bored""#).is_err());
}
