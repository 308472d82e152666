//! Tool calls whose driver was lost in mid-call, and answers that come too late, against a real sidecar.

use std::{sync::atomic::Ordering, time::Duration};

use loopwright_log::Seq;
use tokio::sync::watch;

use super::*;
use crate::faulty::{Fault, Faulty, Write};
use crate::sidecars::tests::fake::Fake;
use crate::sidecars::{Registration, Who};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A model that calls one tool of the fake, then says that it is done.
fn calls(tool: &str) -> String {
    format!("turns:\n- tool_calls:\n  - tool: fake__{tool}\n    arguments: {{}}\n- text: done\n")
}

/// A fake whose tools are at most once and can be asked, registered.
async fn fake(rig: &Rig, tools: &[&str]) -> Fake {
    let fake = Fake::tcp(tools);
    for tool in &mut *fake.state.tools.lock().unwrap() {
        (tool.supports_lookup, tool.supports_attach) = (true, true);
    }
    let who = Who {
        namespace: "default".parse().unwrap(),
        principal: "ann".to_owned(),
        admin: false,
    };
    let registration = Registration {
        name: "fake".to_owned(),
        endpoint: fake.endpoint(),
        ..Registration::default()
    };
    rig.sidecars.register(&who, registration).await.unwrap();
    fake
}

/// The events of a loop whose driver was lost while the tool's first attempt ran; by which word the
/// meters counted the one lookup.
async fn interrupted(tool: &str) -> (Vec<Event>, Fake, String) {
    interrupted_on(MemoryLog::new(), tool).await
}

async fn interrupted_on(log: Arc<dyn Log>, tool: &str) -> (Vec<Event>, Fake, String) {
    let first = rig_on(log, &calls(tool));
    let fake = fake(&first, &[tool]).await;
    let mut started = fake.state.started.subscribe();
    let a = key("a");
    let begun = first.drivers.start_loop(&a, create("a"), start("r1"));
    begun.await.unwrap();
    let sent = started.wait_for(|&count| count == 1);
    tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
    first.drain.begin();
    first.drivers.drained().await;
    // The sidecars live on: as those of another replica, that takes the session over.
    let next = rig_with(Arc::clone(&first.log), &calls(tool), |world| {
        world.sidecars = Arc::clone(&first.sidecars);
    });
    assert_eq!(next.drivers.recover().await.unwrap(), 1);
    let ended = until_ended(&first.log, &a, 1);
    let events = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(reasons(&events), [EndReason::Completed]);
    let page = next.telemetry.metrics().render();
    let counted = page.lines().find_map(|line| {
        let line = line.strip_prefix("loopwright_tool_lookups_total{outcome=\"")?;
        line.strip_suffix(&format!("\",tool=\"fake__{tool}\"}} 1"))
    });
    (events, fake, counted.unwrap_or(&page).to_owned())
}

/// What happened to the call, by kind and attempt.
fn tale(events: &[Event]) -> Vec<(&str, u32)> {
    let attempt = |event: &Event| match event {
        Event::ToolCallStarted(e) => Some(e.attempt),
        Event::ToolCallCompleted(e) => Some(e.attempt),
        Event::ToolCallInDoubt(e) => Some(e.attempt),
        Event::ToolCallResultLate(e) => Some(e.attempt),
        Event::ToolCallUnknown(_) | Event::ToolCallCancelled(_) => Some(0),
        _ => None,
    };
    let told = |event| Some((Event::kind(event), attempt(event)?));
    events.iter().filter_map(told).collect()
}

fn output(events: &[Event]) -> &str {
    let text = events.iter().find_map(|event| match event {
        Event::ToolCallCompleted(e) => Some(e.output.text.as_str()),
        _ => None,
    });
    text.unwrap_or_default()
}

#[tokio::test]
async fn a_call_that_ended_while_nobody_listened_is_found_completed() {
    let (events, fake, counted) = interrupted("done").await;
    assert_eq!(counted, "completed");
    let expected = [
        ("ToolCallStarted", 1),
        ("ToolCallInDoubt", 1),
        ("ToolCallCompleted", 1),
    ];
    assert_eq!(tale(&events), expected);
    assert_eq!(output(&events), "looked up");
    assert_eq!(fake.state.calls.lock().unwrap().len(), 1);
    let lookups = fake.state.lookups.lock().unwrap();
    assert_eq!((lookups[0].epoch, lookups[0].attempt), (2, 1));
}

#[tokio::test]
async fn a_word_of_the_sidecar_that_no_entry_holds_is_kept_without_its_text() {
    let log = gated(Some("looked up"));
    let (events, _fake, _) = interrupted_on(log, "done").await;
    let expected = [
        ("ToolCallStarted", 1),
        ("ToolCallInDoubt", 1),
        ("ToolCallCompleted", 1),
    ];
    assert_eq!(tale(&events), expected);
    assert_eq!(output(&events), "The result was too large to be kept.");
    assert_eq!(epochs(&events), [1, 2], "no driver is lost over it");
}

#[tokio::test]
async fn a_call_that_still_runs_is_rejoined() {
    let (events, fake, counted) = interrupted("joins").await;
    assert_eq!(counted, "completed");
    assert_eq!(output(&events), "rejoined");
    assert_eq!(fake.state.calls.lock().unwrap().len(), 1);
    assert_eq!(fake.state.rejoined.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_that_never_started_is_made_again() {
    let (events, fake, counted) = interrupted("never").await;
    assert_eq!(counted, "never_started");
    let expected = [
        ("ToolCallStarted", 1),
        ("ToolCallInDoubt", 1),
        ("ToolCallStarted", 2),
        ("ToolCallCompleted", 2),
    ];
    assert_eq!(tale(&events), expected);
    let calls = fake.state.calls.lock().unwrap();
    let sent: Vec<_> = calls
        .iter()
        .map(|(call, _)| (call.attempt, call.epoch))
        .collect();
    assert_eq!(sent, [(1, 1), (2, 2)]);
}

#[tokio::test]
async fn a_call_that_nobody_knows_of_is_unknown() {
    let (events, _fake, counted) = interrupted("unsure").await;
    assert_eq!(counted, "not_known");
    let expected = [
        ("ToolCallStarted", 1),
        ("ToolCallInDoubt", 1),
        ("ToolCallUnknown", 0),
    ];
    assert_eq!(tale(&events), expected);
}

#[tokio::test]
async fn an_answer_that_was_here_when_the_call_was_cancelled_is_kept_as_late() {
    let log = gated(None);
    let gate = &log.fault;
    let rig = rig_on(Arc::clone(&log) as Arc<dyn Log>, &calls("gated"));
    let fake = fake(&rig, &["gated"]).await;
    let mut running = fake.state.running.subscribe();
    let (a, mut held) = (key("a"), gate.held.subscribe());
    rig.drivers
        .start_loop(&a, create("a"), start("r1"))
        .await
        .unwrap();
    running.wait_for(|&count| count == 1).await.unwrap();
    gate.open.send_replace(false);
    let cancelled = rig.drivers.command(&a, cancel("r2"));
    let answered = async {
        // The cancel is being written while the tool answers.
        held.wait_for(|&count| count > 0).await.unwrap();
        fake.state.gate.add_permits(1);
        running.wait_for(|&count| count == 0).await.unwrap();
        let (_, link) = rig.sidecars.reach("default", "fake").await.unwrap();
        // What is asked later over the same connection is answered later.
        for _ in 0..20 {
            link.describe().await.unwrap();
        }
        gate.open.send_replace(true);
    };
    let (cancelled, ()) = tokio::join!(cancelled, answered);
    cancelled.unwrap();
    let mut events = Vec::new();
    let mut items = rig.log.read(&a, 0, ReadMode::Follow);
    let all = async {
        while !events
            .iter()
            .any(|event| matches!(event, Event::ToolCallResultLate(_)))
        {
            if let ReadItem::Fact(record) = items.next().await.unwrap().unwrap() {
                let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
                events.extend(entry.events);
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    let expected = [
        ("ToolCallStarted", 1),
        ("ToolCallCancelled", 0),
        ("ToolCallResultLate", 1),
    ];
    assert_eq!(tale(&events), expected);
    assert_eq!(fake.state.most_running.load(Ordering::SeqCst), 1);
}

/// A gate that appends wait at while it is closed.
struct Gate {
    open: watch::Sender<bool>,
    /// Appends that had to wait.
    held: watch::Sender<u32>,
    /// A record with this text is more than it takes.
    too_large: Option<&'static str>,
}

fn gated(too_large: Option<&'static str>) -> Arc<Faulty<Gate>> {
    let fault = Gate {
        open: watch::Sender::new(true),
        held: watch::Sender::new(0),
        too_large,
    };
    let log = MemoryLog::new();
    Arc::new(Faulty { log, fault })
}

impl Fault for Gate {
    fn append<'a>(
        &'a self,
        _: &'a StreamKey,
        write: Write<'a, Seq, AppendError>,
    ) -> Write<'a, Seq, AppendError> {
        Box::pin(async move {
            if !*self.open.borrow() {
                self.held.send_modify(|count| *count += 1);
                let mut open = self.open.subscribe();
                open.wait_for(|open| *open).await.unwrap();
            }
            write.await
        })
    }

    fn refuses(&self, record: &NewRecord) -> Option<AppendError> {
        let text = String::from_utf8_lossy(&record.body);
        let is_too_large = self.too_large.is_some_and(|more| text.contains(more));
        is_too_large.then_some(AppendError::TooLarge { size: 2, limit: 1 })
    }
}
