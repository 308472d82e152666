use loopwright_proto::v1::loop_service_server::LoopServiceServer;
use loopwright_proto::v1::{
    Entry, GetLoopRequest, ReadDirection, ReadEntriesRequest, SendMessageRequest, StartLoopRequest,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Code, Status};

use super::fake::{Cut, Fake, status};
use super::session::{Step, entry, sample};
use crate::{Client, ClientOptions, Error, WatchEvent};

#[tokio::test]
async fn a_command_is_tried_again_with_the_same_request_id() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state().refusals.extend([
        status(Code::Unavailable, "DRAINING"),
        Status::unavailable("a proxy's word"),
        Status::unknown("transport error"),
    ]);

    let started = client
        .start_loop(StartLoopRequest::default())
        .await
        .unwrap();

    assert_eq!(started.session_id, "s1");
    let commands = fake.state().commands.clone();
    assert_eq!(commands.len(), 4);
    assert!(!commands[0].1.is_empty());
    assert!(commands.iter().all(|command| *command == commands[0]));
    let token = fake.state().authorization.clone();
    assert_eq!(token.as_deref(), Some("Bearer secret"));
}

#[tokio::test]
async fn two_commands_never_share_a_request_id_and_a_given_one_is_kept() {
    let (fake, client) = Fake::serve(sample()).await;
    let given = SendMessageRequest {
        request_id: "mine".into(),
        ..SendMessageRequest::default()
    };

    client.send_message(given).await.unwrap();
    client
        .send_message(SendMessageRequest::default())
        .await
        .unwrap();
    client
        .send_message(SendMessageRequest::default())
        .await
        .unwrap();

    let ids: Vec<String> = fake.state().commands.iter().map(|c| c.1.clone()).collect();
    assert_eq!(ids[0], "mine");
    assert_ne!(ids[1], ids[2]);
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_and_names_every_field() {
    let (fake, client) = Fake::serve(sample()).await;
    let refusal = status(Code::InvalidArgument, "INVALID_FIELDS");
    fake.state().refusals.push_back(refusal);

    let error = client
        .start_loop(StartLoopRequest::default())
        .await
        .unwrap_err();

    assert_eq!(fake.state().commands.len(), 1);
    assert_eq!(error.reason(), Some("INVALID_FIELDS"));
    assert_eq!(
        error.to_string(),
        "refused (INVALID_FIELDS)\n  agent.limits.max_steps: must be at least 1\n  \
         text: must not be empty"
    );
}

#[tokio::test]
async fn an_internal_error_by_the_servers_own_word_is_not_tried_again() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state()
        .refusals
        .push_back(status(Code::Internal, "BROKEN"));

    let error = client
        .get_loop(GetLoopRequest::default())
        .await
        .unwrap_err();

    assert_eq!(error.code(), Some(Code::Internal));
    assert_eq!(fake.state().commands.len(), 1);
}

#[tokio::test]
async fn tries_are_bounded_and_the_last_refusal_is_given() {
    let (fake, client) = Fake::serve(sample()).await;
    let refusals = (0..100).map(|_| status(Code::Unavailable, "LOG_UNAVAILABLE"));
    fake.state().refusals.extend(refusals);

    let error = client
        .start_loop(StartLoopRequest::default())
        .await
        .unwrap_err();

    assert_eq!(error.reason(), Some("LOG_UNAVAILABLE"));
    assert_eq!(fake.state().commands.len(), client.options().retries + 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let options = ClientOptions {
        retry_delay: std::time::Duration::from_millis(1),
        ..ClientOptions::at(&url)
    };
    let client = Client::connect(options).unwrap();

    let error = client
        .start_loop(StartLoopRequest::default())
        .await
        .unwrap_err();

    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let words = error.to_string();
    assert!(words.contains(&url) && words.contains("refused"), "{words}");
    let watched = client.watch("s1", 0).last_error().await;
    assert!(matches!(watched, Error::Unreachable { .. }), "{watched:?}");
}

#[tokio::test]
async fn options_that_cannot_be_used_are_refused_by_name() {
    for url in [
        "",
        "localhost:7070",
        "https://example.com",
        "http://",
        "unix:",
        "ftp://x",
    ] {
        let error = Client::connect(ClientOptions::at(url)).unwrap_err();
        assert!(
            matches!(error, Error::Options { field: "url", .. }),
            "{url}: {error}"
        );
    }
    let secret = ClientOptions {
        token: Some("hush\nhush".into()),
        ..ClientOptions::default()
    };
    let error = Client::connect(secret.clone()).unwrap_err();
    assert!(!error.to_string().contains("hush"));
    assert!(!format!("{secret:?}").contains("hush"));
}

#[tokio::test]
async fn a_log_that_is_cut_while_it_is_read_is_read_on() {
    let (fake, client) = Fake::serve(sample()).await;
    fake.state().cuts.extend([
        Cut::End(5),
        Cut::Status(4, Status::unavailable("cut")),
        Cut::End(1),
    ]);

    let mut entries = client.read_entries(ReadEntriesRequest {
        session_id: "s1".into(),
        ..ReadEntriesRequest::default()
    });
    let mut seqs = Vec::new();
    while let Some(entry) = entries.next().await {
        seqs.push(entry.unwrap().seq);
    }

    assert_eq!(seqs, (1..=9).collect::<Vec<_>>());
    assert_eq!(fake.state().cursors.len(), 4);
    let epochs: Vec<_> = fake.state().marks.iter().map(|mark| mark.0).collect();
    assert_eq!(epochs, [None, Some(1), Some(1), Some(1)]);
}

#[tokio::test]
async fn a_log_that_is_cut_while_it_is_read_backward_is_read_on_where_it_is_the_same() {
    for limit in [0, 7] {
        let (fake, client) = Fake::serve(sample()).await;
        let cuts = [
            Cut::End(3),
            Cut::End(0),
            Cut::Status(2, Status::unavailable("cut")),
        ];
        fake.state().cuts.extend(cuts);
        let mut entries = client.read_entries(backward(limit));
        let mut seqs = Vec::new();
        while let Some(entry) = entries.next().await {
            seqs.push(entry.unwrap().seq);
        }
        let last = if limit == 0 { 1 } else { 3 };
        assert_eq!(seqs, (last..=9).rev().collect::<Vec<_>>());
    }

    // The log lost its end while nobody was connected: it has another entry 7 then, or none.
    for lost in [entry_of(7, 2), entry_of(6, 1)] {
        let (fake, client) = Fake::serve(sample()).await;
        fake.state().cuts.push_back(Cut::End(3));
        let mut entries = client.read_entries(backward(0));
        for _ in 0..3 {
            entries.next().await.unwrap().unwrap();
        }
        fake.state().steps = vec![lost];
        let error = entries.next().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Diverged { seq: 7, .. }), "{error}");
    }
}

fn backward(limit: u64) -> ReadEntriesRequest {
    ReadEntriesRequest {
        session_id: "s1".into(),
        direction: ReadDirection::Backward.into(),
        limit,
        ..ReadEntriesRequest::default()
    }
}

fn entry_of(seq: u64, epoch: u64) -> Step {
    let Step::Entry(entry) = entry(seq, vec![]) else {
        unreachable!("an entry")
    };
    Step::Entry(Entry { epoch, ..entry })
}

#[tokio::test]
async fn a_hole_in_a_log_that_is_read_is_an_error() {
    let mut steps = sample();
    steps.retain(|step| !matches!(step, Step::Entry(entry) if entry.seq == 4));
    let (_fake, client) = Fake::serve(steps).await;
    let mut entries = client.read_entries(ReadEntriesRequest::default());
    for _ in 0..3 {
        entries.next().await.unwrap().unwrap();
    }

    let error = entries.next().await.unwrap().unwrap_err();

    assert!(
        matches!(
            error,
            Error::Gap {
                after: 3,
                got: 5,
                ..
            }
        ),
        "{error}"
    );
    assert!(entries.next().await.is_none());
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loopwright.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let fake = Fake::default();
    fake.state().steps = sample();
    let server = Server::builder().add_service(LoopServiceServer::new(fake));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));

    for url in [
        format!("unix:{}", path.display()),
        format!("unix://{}", path.display()),
    ] {
        let client = Client::connect(ClientOptions::at(url)).unwrap();
        let mut watch = client.watch("s1", 0);
        let first = watch.next().await.unwrap().unwrap();
        assert!(matches!(first, WatchEvent::Entry(entry) if entry.seq == 1));
    }
}

impl crate::Watch {
    /// The error that it ends with.
    async fn last_error(mut self) -> Error {
        loop {
            if let Err(error) = self.next().await.unwrap() {
                return error;
            }
        }
    }
}
