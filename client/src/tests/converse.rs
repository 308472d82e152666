use std::time::Duration;

use loopwright_proto::v1::{
    ResolveApprovalRequest, ResolveUnknownRequest, SendMessageRequest, event::Kind,
};
use tonic::{Code, Status};

use super::fake::{Cut, Fake, status};
use super::session::{endless, sample};
use super::watch::Seen;
use crate::{
    Client, ClientOptions, CommandReply, Conversation, ConverseEvent, Error, Opening, WatchEvent,
};

fn start() -> Opening {
    Opening::Start(Box::default())
}

fn attach(after_seq: u64) -> Opening {
    Opening::Attach {
        session_id: "s1".into(),
        after_seq,
        after_mark: None,
    }
}

/// Reads on until the loop ended and all of `replies` came.
async fn drain(conversation: &mut Conversation, replies: usize) -> (Seen, Vec<CommandReply>) {
    drain_on(conversation, Seen::default(), replies).await
}

async fn drain_on(
    conversation: &mut Conversation,
    mut seen: Seen,
    replies: usize,
) -> (Seen, Vec<CommandReply>) {
    let (mut came, mut ended) = (Vec::new(), false);
    while !ended || came.len() < replies {
        match conversation.next().await.unwrap().unwrap() {
            ConverseEvent::Reply(reply) => came.push(reply),
            ConverseEvent::Watch(event) => {
                seen.take(&event);
                if let WatchEvent::Entry(entry) = &event {
                    let ends = |kind: &Kind| matches!(kind, Kind::LoopEnded(_));
                    let kinds = entry.events.iter().filter_map(|event| event.kind.as_ref());
                    ended = ended || kinds.into_iter().any(ends);
                }
            }
        }
    }
    (seen, came)
}

#[tokio::test]
async fn a_start_that_is_cut_anywhere_is_one_start_and_every_entry_once() {
    for at in 0..sample().len() {
        let (fake, client) = Fake::serve(sample()).await;
        let cut = Cut::Status(at, Status::unavailable("cut"));
        fake.state().cuts.extend([cut.clone(), cut]);

        let mut conversation = client.converse(start());
        let (seen, replies) = drain(&mut conversation, 1).await;

        seen.assert_whole(&format!("cut after {at} items"));
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].result.as_ref().unwrap().loop_id, "l1");
        assert_eq!(conversation.session_id(), Some("s1"));
        let ids: Vec<String> = fake.state().commands.iter().map(|c| c.1.clone()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        // Only a start without its first entry is given again; later ones go on by cursor.
        let kinds: Vec<&str> = fake.state().commands.iter().map(|c| c.0).collect();
        let again = if at == 0 { "start" } else { "attach" };
        assert_eq!(kinds[..2], ["start", again], "cut after {at} items");
        let said = fake
            .state()
            .marks
            .first()
            .is_some_and(|mark| mark.0 == Some(1));
        assert_eq!(said, at > 0, "cut after {at} items: what it had seen");
    }
}

#[tokio::test]
async fn a_start_whose_reply_is_lost_is_given_again_and_its_entries_are_not() {
    for at in 0..sample().len() {
        let (fake, client) = Fake::serve(sample()).await;
        fake.state().lost_replies = 1;
        let cut = Cut::Status(at, Status::unavailable("cut"));
        fake.state().cuts.push_back(cut);

        let mut conversation = client.converse(start());
        let (seen, replies) = drain(&mut conversation, 1).await;

        seen.assert_whole(&format!("reply lost, cut after {at} items"));
        assert_eq!(replies.len(), 1);
        let commands = fake.state().commands.clone();
        assert_eq!(commands.len(), 2);
        assert_eq!(
            commands[0], commands[1],
            "the same start, by its request_id"
        );
    }
}

#[tokio::test]
async fn a_command_that_was_answered_is_not_given_again() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state().cuts.push_back(Cut::Hang(4));
    let patient = ClientOptions {
        silence_timeout: Duration::from_secs(60),
        ..client.options().clone()
    };
    let mut conversation = Client::connect(patient).unwrap().converse(attach(0));
    let message = SendMessageRequest::default();
    let id = conversation.send_message(message).unwrap();
    let mut seen = Seen::default();
    loop {
        match conversation.next().await.unwrap().unwrap() {
            ConverseEvent::Reply(reply) if reply.request_id == id => break,
            ConverseEvent::Reply(_) => {}
            ConverseEvent::Watch(event) => seen.take(&event),
        }
    }
    fake.hang_up();

    // Commands go in order: the answer to this one comes after a repeated message would have.
    let cancel = conversation.cancel("enough").unwrap();

    let (seen, replies) = drain_on(&mut conversation, seen, 1).await;

    seen.assert_whole("cut after an answer");
    assert_eq!(replies[0].request_id, cancel);
    let kinds: Vec<&str> = fake.state().commands.iter().map(|c| c.0).collect();
    let mut after_the_first = kinds[2..].to_vec();
    after_the_first.retain(|kind| *kind != "cancel");
    assert_eq!(
        (&kinds[..2], &after_the_first[..]),
        (&["attach", "message"][..], &["attach"][..])
    );
}

#[tokio::test]
async fn commands_without_a_reply_are_given_again_with_their_ids() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state().unanswered = 2;
    let mut conversation = client.converse(attach(0));
    let first = conversation
        .send_message(SendMessageRequest::default())
        .unwrap();
    let second = conversation
        .send_message(SendMessageRequest::default())
        .unwrap();

    let (seen, replies) = drain(&mut conversation, 3).await;

    seen.assert_whole("commands lost twice");
    let answered: Vec<&str> = replies.iter().map(|r| r.request_id.as_str()).collect();
    assert_eq!(answered[1..], [first.as_str(), second.as_str()]);
    let sent: Vec<String> = {
        let state = fake.state();
        let messages = state.commands.iter().filter(|c| c.0 == "message");
        messages.map(|c| c.1.clone()).collect()
    };
    assert_eq!(sent, [&first, &first, &first, &second].map(String::clone));
}

#[tokio::test]
async fn answers_to_waits_are_commands_as_others_are() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state().unanswered = 1;
    let mut conversation = client.converse(attach(0));
    let approval = ResolveApprovalRequest {
        call: "c7".into(),
        allow: true,
        ..ResolveApprovalRequest::default()
    };
    let first = conversation.resolve_approval(approval).unwrap();
    let unknown = ResolveUnknownRequest {
        request_id: "mine".into(),
        ..ResolveUnknownRequest::default()
    };
    assert_eq!(conversation.resolve_unknown(unknown).unwrap(), "mine");

    let (_, replies) = drain(&mut conversation, 3).await;

    let answered: Vec<&str> = replies.iter().map(|r| r.request_id.as_str()).collect();
    assert_eq!(answered[1..], [first.as_str(), "mine"]);
    let commands = fake.state().commands.clone();
    let kinds: Vec<&str> = commands.iter().map(|c| c.0).collect();
    assert_eq!(
        kinds,
        ["attach", "approval", "attach", "approval", "unknown"]
    );
    assert_eq!(commands[1].1, first);
    assert_eq!(commands[3].1, first);
}

#[tokio::test]
async fn a_refused_command_is_answered_and_the_conversation_goes_on() {
    let (fake, client) = Fake::serve(sample()).await;
    let mut conversation = client.converse(attach(0));
    loop {
        if let ConverseEvent::Reply(_) = conversation.next().await.unwrap().unwrap() {
            break;
        }
    }
    fake.state().refusals.extend([
        status(Code::Unavailable, "LOG_UNAVAILABLE"),
        // The second attach is accepted, the message is refused for good.
    ]);
    let id = conversation
        .send_message(SendMessageRequest::default())
        .unwrap();

    let (_, replies) = drain(&mut conversation, 1).await;

    assert_eq!(replies[0].request_id, id);
    assert!(replies[0].result.is_ok(), "{replies:?}");
    let kinds: Vec<&str> = fake.state().commands.iter().map(|c| c.0).collect();
    assert_eq!(kinds, ["attach", "message", "attach", "message"]);
}

#[tokio::test]
async fn a_refusal_for_good_is_the_commands_reply() {
    let (fake, client) = Fake::serve(endless()).await;
    let mut conversation = client.converse(start());
    while conversation.loop_id().is_none() {
        conversation.next().await.unwrap().unwrap();
    }
    let refusal = status(Code::ResourceExhausted, "QUEUE_FULL");
    fake.state().refusals.push_back(refusal);
    conversation
        .send_message(SendMessageRequest::default())
        .unwrap();
    let cancel = conversation.cancel("enough").unwrap();

    let (seen, replies) = drain(&mut conversation, 2).await;

    let reason = replies[0].result.as_ref().unwrap_err().reason();
    assert_eq!(reason, Some("QUEUE_FULL"));
    assert_eq!(replies[1].request_id, cancel);
    assert!(replies[1].result.is_ok());
    assert!(seen.seqs.ends_with(&[4]));
}

#[tokio::test]
async fn an_opening_that_is_refused_ends_the_conversation() {
    let (fake, client) = Fake::serve(sample()).await;
    let refusal = status(Code::FailedPrecondition, "LOOP_RUNNING");
    fake.state().refusals.push_back(refusal);
    let mut conversation = client.converse(start());

    let error = conversation.next().await.unwrap().unwrap_err();

    assert_eq!(error.reason(), Some("LOOP_RUNNING"));
    assert!(conversation.next().await.is_none());
}

#[tokio::test]
async fn commands_that_wait_for_replies_are_bounded() {
    let (_fake, client) = Fake::serve(sample()).await;
    let mut conversation = client.converse(attach(0));
    for _ in 0..64 {
        conversation
            .send_message(SendMessageRequest::default())
            .unwrap();
    }

    let error = conversation.cancel("one more").unwrap_err();

    assert!(matches!(error, Error::TooManyCommands { limit: 64 }));
    let (_, replies) = drain(&mut conversation, 65).await;
    assert_eq!(replies.len(), 65);
}
