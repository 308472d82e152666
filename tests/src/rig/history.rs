//! What a client was told, against the log as it is read at the end.

use super::Outcome;
use loopwright_proto::v1::{EndReason, Entry, Event, MessageAdded, event::Kind, part};

/// What the client of one session was told. What was acknowledged or shown is kept as it came, and
/// never made good.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The session.
    pub session: String,
    /// The entries, as they came.
    pub entries: Vec<Entry>,
    /// The commands that were answered.
    pub acks: Vec<Ack>,
    /// Times that the watch was broken and went on by cursor.
    pub interruptions: u64,
    /// Why the client gave up.
    pub gave_up: Option<String>,
}

/// A command that was answered.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The request's id.
    pub request_id: String,
    /// What was said, unique; empty for a command that says nothing.
    pub text: String,
    /// Where the answer says that it is.
    pub seq: u64,
}

/// What the log of a session is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The client watched to the end: it was shown everything.
    ToTheEnd,
    /// The client watched a while.
    InPart,
}

/// The counts that [`check`] adds to, in the order of a line.
pub const COUNTS: [&str; 8] = [
    "sessions",
    "loops",
    "entries",
    "commands",
    "interruptions",
    "lost",
    "duplicated",
    "reordered",
];

/// Checks one session.
pub fn check(report: &mut Outcome, history: &History, log: &[Entry], watched: Watched) {
    let session = &history.session;
    report.count("sessions", 1);
    report.count("entries", log.len() as u64);
    report.count("commands", history.acks.len() as u64);
    report.count("interruptions", history.interruptions);
    if let Some(why) = &history.gave_up {
        report.wrong(format!("{session}: the client gave up: {why}"));
    }
    for (at, entry) in log.iter().enumerate() {
        report.expect(entry.seq == at as u64 + 1, || {
            format!(
                "{session}: entry {} of the log has seq {}",
                at + 1,
                entry.seq
            )
        });
    }
    order(report, session, &history.entries);
    content(report, history, log);
    if watched == Watched::ToTheEnd {
        all_shown(report, history, log);
    }
    for ack in &history.acks {
        acknowledged(report, session, ack, log);
    }
    epochs(report, session, log);
    loops(report, session, log);
}

/// Each entry that was shown follows on the one before.
fn order(report: &mut Outcome, session: &str, shown: &[Entry]) {
    let mut last = 0;
    for entry in shown {
        let seq = entry.seq;
        let words = || format!("{session}: the watcher was sent seq {seq} after {last}");
        if seq == last {
            report.wrong_as("duplicated", words());
        } else if seq < last {
            report.wrong_as("reordered", words());
        } else if seq > last + 1 {
            report.wrong_as("lost", words());
        }
        last = last.max(seq);
    }
}

/// What was shown is what the log says.
fn content(report: &mut Outcome, history: &History, log: &[Entry]) {
    let session = &history.session;
    for shown in &history.entries {
        let seq = shown.seq;
        match log.get(usize::try_from(seq).unwrap_or(0).wrapping_sub(1)) {
            Some(logged) if logged == shown => {}
            Some(_) => report.wrong_as(
                "lost",
                format!("{session}: seq {seq} was shown with other content"),
            ),
            None => report.wrong_as(
                "lost",
                format!("{session}: seq {seq} was shown, the log has it not"),
            ),
        }
    }
}

/// All of it was shown.
fn all_shown(report: &mut Outcome, history: &History, log: &[Entry]) {
    let session = &history.session;
    // A client that gave up has seen a part only, and that is wrong already.
    let rest = log.get(history.entries.len()..).unwrap_or_default();
    let says_nothing = |event: &Event| {
        matches!(
            event.kind,
            Some(Kind::DriverAttached(_) | Kind::DriverDetached(_) | Kind::LogRecovered(_))
        )
    };
    let unseen = rest
        .iter()
        .find(|entry| !entry.events.iter().all(says_nothing));
    if let Some(entry) = unseen.filter(|_| history.gave_up.is_none()) {
        report.wrong_as(
            "lost",
            format!("{session}: seq {} was never shown", entry.seq),
        );
    }
}

/// An acknowledged command is in the log where its answer says, and nowhere else.
fn acknowledged(report: &mut Outcome, session: &str, ack: &Ack, log: &[Entry]) {
    let says_it = |entry: &&Entry| {
        let events = entry.events.iter();
        events
            .filter(|event| said(event) == Some(&ack.text))
            .count()
            > 0
    };
    let found: Vec<u64> = log.iter().filter(says_it).map(|entry| entry.seq).collect();
    let Ack {
        text,
        seq,
        request_id,
    } = ack;
    match found[..] {
        _ if text.is_empty() => {}
        [] => report.wrong_as(
            "lost",
            format!("{session}: {text} was acknowledged and is not in the log"),
        ),
        [at] if at == *seq => {}
        [at] => report.wrong(format!(
            "{session}: {text} was acknowledged at {seq} and is at {at}"
        )),
        _ => report.wrong_as(
            "duplicated",
            format!("{session}: {text} is in the log at {found:?}"),
        ),
    }
    let caused = |entry: &&Entry| {
        let id = entry.cause.as_ref().map(|cause| &cause.request_id);
        id == Some(request_id)
    };
    let at: Vec<u64> = log.iter().filter(caused).map(|entry| entry.seq).collect();
    report.expect(at.last() == Some(seq), || {
        format!("{session}: {request_id} was acknowledged at {seq} and caused {at:?}")
    });
}

fn said(event: &Event) -> Option<&String> {
    let Some(Kind::MessageAdded(MessageAdded {
        message: Some(message),
        ..
    })) = &event.kind
    else {
        return None;
    };
    match &message.parts.first()?.kind {
        Some(part::Kind::Text(text)) => Some(text),
        _ => None,
    }
}

/// The epoch rises by one at each attach, and an entry has the epoch of the attach before it.
fn epochs(report: &mut Outcome, session: &str, log: &[Entry]) {
    let mut epoch = 0;
    for entry in log {
        for event in &entry.events {
            if let Some(Kind::DriverAttached(attached)) = &event.kind {
                report.expect(attached.epoch == epoch + 1, || {
                    format!(
                        "{session}: epoch {} was attached after {epoch}",
                        attached.epoch
                    )
                });
                epoch = attached.epoch;
            }
        }
        report.expect(entry.epoch == epoch, || {
            format!(
                "{session}: seq {} of epoch {} in {epoch}",
                entry.seq, entry.epoch
            )
        });
    }
}

/// Every loop ends once, before the next one begins, and because the model was done.
fn loops(report: &mut Outcome, session: &str, log: &[Entry]) {
    let mut open: Option<&str> = None;
    for event in log.iter().flat_map(|entry| &entry.events) {
        match &event.kind {
            Some(Kind::LoopStarted(started)) => {
                report.count("loops", 1);
                report.expect(open.is_none(), || {
                    format!("{session}: {} began while {open:?} ran", started.loop_id)
                });
                open = Some(&started.loop_id);
            }
            Some(Kind::LoopEnded(ended)) => {
                report.expect(open == Some(&ended.loop_id), || {
                    format!("{session}: {} ended while {open:?} ran", ended.loop_id)
                });
                report.expect(ended.reason() == EndReason::Completed, || {
                    format!("{session}: {} ended as {:?}", ended.loop_id, ended.reason())
                });
                open = None;
            }
            _ => {}
        }
    }
    report.expect(open.is_none(), || {
        format!("{session}: {open:?} did not end")
    });
}

/// The oracle must fail for each lie that it is there to catch.
#[cfg(test)]
mod tests {
    use loopwright_proto::v1::{Cause, DriverAttached, LoopEnded, LoopStarted, Message, Part};

    use super::*;

    fn event(kind: Kind) -> Event {
        Event {
            kind: Some(kind),
            ..Event::default()
        }
    }

    fn entry(seq: u64, epoch: u64, request_id: &str, kinds: Vec<Kind>) -> Entry {
        Entry {
            seq,
            epoch,
            cause: Some(Cause {
                request_id: request_id.to_owned(),
                ..Cause::default()
            }),
            events: kinds.into_iter().map(event).collect(),
            ..Entry::default()
        }
    }

    fn said(text: &str) -> Kind {
        let part = Part {
            kind: Some(part::Kind::Text(text.to_owned())),
            ..Part::default()
        };
        Kind::MessageAdded(MessageAdded {
            message: Some(Message {
                parts: vec![part],
                ..Message::default()
            }),
            ..MessageAdded::default()
        })
    }

    fn attached(epoch: u64) -> Kind {
        Kind::DriverAttached(DriverAttached {
            epoch,
            ..DriverAttached::default()
        })
    }

    /// A session that was told two things, in two epochs, and what its client was shown of it.
    fn sound() -> (History, Vec<Entry>) {
        let started = Kind::LoopStarted(LoopStarted {
            loop_id: "l1".to_owned(),
            ..LoopStarted::default()
        });
        let ended = Kind::LoopEnded(LoopEnded {
            loop_id: "l1".to_owned(),
            reason: EndReason::Completed.into(),
            ..LoopEnded::default()
        });
        let log = vec![
            entry(1, 1, "r1", vec![attached(1), started, said("one")]),
            entry(2, 1, "r2", vec![said("two")]),
            entry(3, 2, "", vec![attached(2)]),
            entry(4, 2, "", vec![ended]),
        ];
        let ack = |request_id: &str, text: &str, seq| Ack {
            request_id: request_id.to_owned(),
            text: text.to_owned(),
            seq,
        };
        let history = History {
            session: "s1".to_owned(),
            entries: log.clone(),
            acks: vec![ack("r1", "one", 1), ack("r2", "two", 2)],
            ..History::default()
        };
        (history, log)
    }

    fn judged(history: &History, log: &[Entry]) -> Outcome {
        let mut outcome = Outcome::new("oracle", 0);
        check(&mut outcome, history, log, Watched::ToTheEnd);
        outcome
    }

    #[test]
    fn a_sound_history_passes() {
        let (history, log) = sound();
        assert_eq!(judged(&history, &log).wrongs(), Vec::<String>::new());
    }

    #[test]
    fn every_lie_is_caught() {
        type Lie = fn(&mut History, &mut Vec<Entry>);
        let lies: [(&str, &str, Lie); 13] = [
            ("lost", "the last entry is gone", |_, log| drop(log.pop())),
            ("lost", "an entry says something else", |_, log| {
                log[1].events[0] = event(said("three"));
            }),
            ("lost", "an entry was never shown", |history, _| {
                drop(history.entries.pop())
            }),
            ("lost", "an entry was skipped", |history, _| {
                drop(history.entries.remove(1))
            }),
            ("duplicated", "an entry was shown twice", |history, _| {
                let again = history.entries[1].clone();
                history.entries.insert(2, again);
            }),
            ("reordered", "entries changed places", |history, _| {
                history.entries.swap(1, 2)
            }),
            (
                "lost",
                "an answered command is in no entry",
                |history, _| {
                    history.acks[1].text = "never said".to_owned();
                },
            ),
            ("duplicated", "a command was carried out twice", |_, log| {
                log[3].events.push(event(said("two")));
            }),
            ("", "an answer names another place", |history, _| {
                history.acks[1].seq = 3
            }),
            ("", "a command without words is elsewhere", |history, _| {
                history.acks[1].text.clear();
                history.acks[1].seq = 4;
            }),
            ("", "the log has a hole", |_, log| drop(log.remove(1))),
            ("", "an old driver wrote", |_, log| log[3].epoch = 1),
            ("", "a loop did not end", |_, log| drop(log[3].events.pop())),
        ];
        for (kind, lie, tell) in lies {
            let (mut history, mut log) = sound();
            tell(&mut history, &mut log);
            let outcome = judged(&history, &log);
            assert!(!outcome.is_ok(), "not caught: {lie}");
            let is_counted = kind.is_empty() || outcome.counted(kind) > 0;
            assert!(
                is_counted,
                "{lie} is not counted as {kind}: {:?}",
                outcome.wrongs()
            );
        }
        let (mut history, log) = sound();
        history.gave_up = Some("no answer".to_owned());
        assert!(
            !judged(&history, &log).is_ok(),
            "not caught: a client gave up"
        );
    }
}
