//! Which instance of its sidecar an attempt is meant for, and which one may be asked about the call.

use std::{collections::BTreeMap, sync::Arc};

use super::kit::{Session, specs};
use crate::{
    Event, Instances,
    agent::{EffectClass, Limits, ToolSpec},
    ids::CallId,
    outcome::ToolFailureKind::{self, Ambiguous, NotExecuted},
};

/// A session whose sidecar `t` is the instance `i1`.
fn session() -> Session {
    let mut s = Session::started(Limits::default());
    let like = specs().remove(0);
    let spec = |name: &str, effect, lookup| ToolSpec {
        name: name.to_owned(),
        effect,
        lookup,
        ..like.clone()
    };
    s.change_tools(vec![
        spec("t__once", EffectClass::AtMostOnce, true),
        spec("t__idem", EffectClass::Idempotent, true),
        spec("t__blind", EffectClass::AtMostOnce, false),
        spec("away__once", EffectClass::AtMostOnce, true),
    ]);
    is_now(&mut s, "i1");
    s
}

fn is_now(s: &mut Session, instance: &str) {
    let by_name = BTreeMap::from([("t".to_owned(), instance.to_owned())]);
    s.instances = Instances::Present(Arc::new(by_name));
}

/// The instances that dispatches name, in order.
fn named(events: &[Event]) -> Vec<String> {
    let of = |event: &Event| {
        if let Event::ToolCallStarted(e) = event {
            return Some(e.sidecar_instance.clone());
        }
        None
    };
    events.iter().filter_map(of).collect()
}

/// Which instance may be asked what became of the first call.
fn may_know(s: &Session) -> String {
    let request = s.state.tool_request(CallId(2)).expect("it was dispatched");
    (*request.sidecar_instance).to_owned()
}

#[test]
fn a_dispatch_names_the_instance_where_it_may_be_asked_about() {
    let mut s = session();
    let events = s.ask(&["t__once", "t__blind", "away__once"]);
    assert_eq!(named(&events), ["i1", "", ""]);
    assert_eq!(may_know(&s), "i1");
}

#[test]
fn the_next_attempt_names_the_instance_of_then() {
    for (tool, kind, knows) in [
        ("t__once", NotExecuted, "i2"),
        // The first attempt may have run, and the second instance saw nothing of it.
        ("t__idem", Ambiguous, ""),
    ] {
        let mut s = session();
        s.ask(&[tool]);
        is_now(&mut s, "i2");
        s.tool_fails(2, 1, kind, true);
        assert_eq!(named(&s.fire_next()), ["i2"]);
        assert_eq!(may_know(&s), knows, "{tool}");
    }
}

#[test]
fn once_two_may_have_run_it_none_can_tell() {
    let mut s = session();
    s.ask(&["t__idem"]);
    for attempt in 1..3 {
        is_now(&mut s, "i2");
        s.tool_fails(2, attempt, Ambiguous, true);
        assert_eq!(named(&s.fire_next()), ["i2"]);
        assert_eq!(may_know(&s), "", "after attempt {attempt}");
    }
}

#[test]
fn a_driver_that_takes_over_keeps_what_the_log_says() {
    let mut s = session();
    s.ask(&["t__once", "t__idem"]);
    is_now(&mut s, "i2");
    let events = s.attach();
    assert_eq!(named(&events), ["i2"], "the one that may be repeated is");
    assert_eq!(may_know(&s), "i1");
    let repeated = s.state.tool_request(CallId(3)).expect("it was dispatched");
    assert_eq!(&*repeated.sidecar_instance, "");
}

#[test]
fn attempts_at_one_instance_are_known_to_it() {
    let kinds: [ToolFailureKind; 2] = [NotExecuted, Ambiguous];
    for kind in kinds {
        let mut s = session();
        s.ask(&["t__idem"]);
        s.tool_fails(2, 1, kind, true);
        s.fire_next();
        assert_eq!(may_know(&s), "i1", "{kind:?}");
    }
}
