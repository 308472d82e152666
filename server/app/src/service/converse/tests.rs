#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_proto::v1::{converse_request::Command, event::Kind};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::drain::Drain;
use crate::service::{caller::Caller, fixture, status};

const QUICK: &str = "turns:\n- text: one\n- text: two\n- text: three\n";
const SLOW: &str = "at_end: repeat\nturns:\n- text: late\n  delay_ms: 3600000\n";

/// A client on one stream.
struct Client {
    up: Option<mpsc::Sender<Result<v1::ConverseRequest, Status>>>,
    down: EncodedStream<v1::ConverseResponse>,
    /// Seqs of the entries that came.
    seqs: Vec<u64>,
}

fn rig(script: &str) -> (ServiceState, Drain) {
    fixture::state(script)
}

impl Client {
    fn on(state: &ServiceState) -> Self {
        let (up, commands) = mpsc::channel(8);
        let order = Order {
            caller: Caller::local(),
            traceparent: None,
        };
        let down = over(state.clone(), order, ReceiverStream::new(commands).boxed());
        Self {
            up: Some(up),
            down,
            seqs: Vec::new(),
        }
    }

    async fn send(&mut self, command: Command) {
        let request = v1::ConverseRequest {
            command: Some(command),
        };
        self.up.as_mut().unwrap().send(Ok(request)).await.unwrap();
    }

    async fn next(&mut self) -> Option<Item> {
        let bytes = self.down.next().await?.unwrap();
        let item = v1::ConverseResponse::decode(bytes.bytes().clone())
            .unwrap()
            .item
            .unwrap();
        if let Item::Entry(entry) = &item {
            self.seqs.push(entry.seq);
        }
        Some(item)
    }

    async fn reply(&mut self) -> v1::Reply {
        loop {
            if let Item::Reply(reply) = self.next().await.unwrap() {
                return reply;
            }
        }
    }

    /// `request_id CODE` of the next reply, and its reason where it is a rejection.
    async fn answer(&mut self) -> String {
        let reply = self.reply().await;
        let status = reply.status.unwrap();
        let code = Code::from(status.code);
        let reason = status.details.iter().find_map(|any| {
            let named = any.type_url.ends_with("ErrorInfo");
            named.then(|| {
                tonic_types::pb::ErrorInfo::decode(any.value.clone())
                    .unwrap()
                    .reason
            })
        });
        let words = [Some(reply.request_id), Some(format!("{code:?}")), reason];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    async fn until_ended(&mut self) -> v1::LoopEnded {
        loop {
            let Item::Entry(entry) = self.next().await.unwrap() else {
                continue;
            };
            for event in entry.events {
                if let Some(Kind::LoopEnded(ended)) = event.kind {
                    return ended;
                }
            }
        }
    }
}

fn start(request_id: &str, session: &str) -> Command {
    Command::Start(v1::StartLoopRequest {
        request_id: request_id.into(),
        session_id: session.into(),
        agent: Some(v1::Agent {
            model: "m".into(),
            ..Default::default()
        }),
        input: Some(v1::start_loop_request::Input::Text("go".into())),
        ..Default::default()
    })
}

fn message(request_id: &str, session: &str) -> Command {
    Command::Message(v1::SendMessageRequest {
        request_id: request_id.into(),
        session_id: session.into(),
        input: Some(v1::send_message_request::Input::Text("more".into())),
        ..Default::default()
    })
}

fn attach(request_id: &str, session: &str, after_seq: u64) -> Command {
    let (request_id, session_id) = (request_id.into(), session.into());
    Command::Attach(v1::ConverseAttach {
        session_id,
        after_seq,
        deltas: true,
        request_id,
        ..Default::default()
    })
}

#[tokio::test]
async fn one_stream_starts_a_loop_and_sees_all_of_it_after_the_half_close_too() {
    let (state, _drain) = rig(QUICK);
    let mut client = Client::on(&state);
    client.send(start("r1", "s1")).await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.session_id.as_str(), reply.loop_id.as_str()),
        ("s1", "l1")
    );
    assert_eq!(reply.status.unwrap().code, 0);
    client.up = None;
    let ended = client.until_ended().await;
    assert_eq!(
        (ended.reason(), ended.result_text.as_str()),
        (v1::EndReason::Completed, "one")
    );
    let dense: Vec<u64> = (1..=client.seqs.len() as u64).collect();
    assert_eq!(
        client.seqs, dense,
        "from the entry that created the session"
    );
    assert!(client.seqs.contains(&reply.seq));
}

#[tokio::test]
async fn a_rejection_is_a_reply_and_never_the_end() {
    let (state, _drain) = rig(QUICK);
    let mut client = Client::on(&state);
    client.send(message("a", "s1")).await;
    assert_eq!(client.answer().await, "a FailedPrecondition NOT_ATTACHED");
    client.send(attach("b", "s1", 0)).await;
    assert_eq!(client.answer().await, "b NotFound SESSION_NOT_FOUND");
    client
        .up
        .as_mut()
        .unwrap()
        .send(Ok(v1::ConverseRequest::default()))
        .await
        .unwrap();
    assert_eq!(client.answer().await, " InvalidArgument INVALID_FIELDS");
    client.send(start("c", "No Id")).await;
    assert_eq!(client.answer().await, "c InvalidArgument INVALID_FIELDS");
    client.send(start("d", "s1")).await;
    assert_eq!(client.answer().await, "d Ok");
    client.send(start("e", "s1")).await;
    assert_eq!(
        client.answer().await,
        "e FailedPrecondition ALREADY_ATTACHED"
    );
    client.send(attach("f", "s1", 0)).await;
    assert_eq!(
        client.answer().await,
        "f FailedPrecondition ALREADY_ATTACHED"
    );
    client.send(message("g", "s2")).await;
    assert_eq!(
        client.answer().await,
        "g FailedPrecondition SESSION_MISMATCH"
    );
    client.send(message("h", "")).await;
    assert_eq!(client.answer().await, "h Ok");
}

#[tokio::test]
async fn a_start_given_again_sends_from_its_first_entry_again() {
    let (state, _drain) = rig(QUICK);
    let mut first = Client::on(&state);
    first.send(start("r1", "")).await;
    let reply = first.reply().await;
    first.until_ended().await;
    first.send(message("r2", "")).await;
    first.until_ended().await;

    let mut again = Client::on(&state);
    again.send(start("r1", "")).await;
    assert_eq!(again.reply().await, reply, "the first answer");
    again.until_ended().await;
    again.until_ended().await;
    assert_eq!(again.seqs, first.seqs);

    let mut later = Client::on(&state);
    later.send(start("r3", &reply.session_id)).await;
    let started = later.reply().await;
    later.until_ended().await;
    assert_eq!(
        later.seqs[0], started.seq,
        "of a session that it did not create"
    );
}

#[tokio::test]
async fn an_attach_goes_on_by_cursor_and_a_cancel_reaches_the_loop() {
    let (state, _drain) = rig(SLOW);
    let mut first = Client::on(&state);
    first.send(start("r1", "s1")).await;
    let seq = first.reply().await.seq;
    let mut second = Client::on(&state);
    second.send(attach("a", "s1", seq)).await;
    assert_eq!(second.reply().await.seq, seq, "the tail");
    let reason = "enough".to_owned();
    let cancel = v1::CancelLoopRequest {
        request_id: "c".into(),
        reason,
        ..Default::default()
    };
    second.send(Command::Cancel(cancel)).await;
    assert_eq!(second.answer().await, "c Ok");
    let ended = second.until_ended().await;
    assert_eq!(ended.reason(), v1::EndReason::Cancelled);
    assert_eq!(second.seqs[0], seq + 1);
}

#[tokio::test]
async fn an_attach_behind_an_entry_that_is_another_is_refused_and_the_stream_goes_on() {
    let (state, _drain) = rig(QUICK);
    let mut client = Client::on(&state);
    client.send(start("a", "s1")).await;
    client.until_ended().await;

    let mut again = Client::on(&state);
    let of_epoch = |request_id: &str, after_epoch| {
        Command::Attach(v1::ConverseAttach {
            session_id: "s1".into(),
            after_seq: 2,
            request_id: request_id.into(),
            after_epoch: Some(after_epoch),
            ..Default::default()
        })
    };
    again.send(of_epoch("b", 7)).await;
    assert_eq!(again.answer().await, "b DataLoss CURSOR_DIVERGED");
    again.send(of_epoch("c", 1)).await;
    assert_eq!(again.answer().await, "c Ok");
}

#[tokio::test]
async fn a_drain_says_goodbye_with_and_without_a_session() {
    let (state, drain) = rig(SLOW);
    let mut with = Client::on(&state);
    with.send(start("r1", "s1")).await;
    let seq = with.reply().await.seq;
    while with.seqs.last() != Some(&seq) {
        with.next().await.unwrap();
    }
    let mut without = Client::on(&state);
    drain.begin();
    let goodbye = |item| match item {
        Some(Item::Goodbye(goodbye)) => goodbye.cursor,
        other => panic!("{other:?}"),
    };
    let mut last = with.next().await;
    while !matches!(last, Some(Item::Goodbye(_)) | None) {
        last = with.next().await;
    }
    assert!(goodbye(last) >= seq);
    assert!(with.next().await.is_none());
    assert_eq!(goodbye(without.next().await), 0);
    assert!(without.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_closes_before_it_attached_ends_the_stream() {
    let (state, _drain) = rig(QUICK);
    let mut client = Client::on(&state);
    client.up = None;
    assert!(client.next().await.is_none());
}

#[test]
fn a_reply_carries_the_whole_status() {
    let status = status::draining();
    let reply = commands::in_reply(&status);
    let read = tonic_types::pb::Status::decode(reply.encode_to_vec().as_slice()).unwrap();
    assert_eq!((read.code, read.message.as_str()), (14, status.message()));
    let mut urls: Vec<_> = read
        .details
        .iter()
        .map(|any| any.type_url.as_str())
        .collect();
    urls.sort_unstable();
    let expected = [
        "type.googleapis.com/google.rpc.ErrorInfo",
        "type.googleapis.com/google.rpc.RetryInfo",
    ];
    assert_eq!(urls, expected);
}
