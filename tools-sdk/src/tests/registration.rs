//! Registering, renewing, waiting and leaving.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tonic::Code;

use super::fake::{Asked, Fake};
use super::*;
use crate::{NoArgs, ServeError, Tool, ToolContext};

type Lines = Arc<Mutex<Vec<String>>>;

fn greeter(server: &Path) -> (Sidecar, Lines) {
    let lines = Lines::default();
    let written = Arc::clone(&lines);
    let greet = |_: ToolContext, _: NoArgs| async move { Ok("hello") };
    let sidecar = Sidecar::new("greeter")
        .tool(Tool::new("greet", "Greets.", greet).read_only())
        .server(format!("unix:{}", server.display()))
        .token("s3cret")
        .label("team", "demo")
        .notices(move |line| written.lock().unwrap().push(line.to_owned()));
    (sidecar, lines)
}

fn count(lines: &Lines, part: &str) -> usize {
    lines
        .lock()
        .unwrap()
        .iter()
        .filter(|line| line.contains(part))
        .count()
}

#[tokio::test]
async fn it_registers_renews_and_takes_itself_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let mut fake = Fake::at(&path);
    let (sidecar, lines) = greeter(&path);
    let mut serving = sidecar.spawn().await.unwrap();
    assert!(within(serving.registered()).await);
    let Asked::Register {
        request,
        authorization,
        tools,
    } = fake.next().await
    else {
        panic!()
    };
    assert_eq!((request.name.as_str(), tools), ("greeter", 1));
    assert_eq!(request.endpoint, serving.endpoint());
    assert_eq!(request.labels["team"], "demo");
    assert_eq!(authorization.as_deref(), Some("Bearer s3cret"));
    for _ in 0..3 {
        assert_eq!(
            fake.next().await,
            Asked::Renew {
                lease_id: "lease-1".to_owned()
            }
        );
    }
    within(serving.shutdown()).await.unwrap();
    let left = fake.next_but_renewals().await;
    assert_eq!(
        left,
        Asked::Deregister {
            lease_id: "lease-1".to_owned()
        }
    );
    assert_eq!(count(&lines, "offers: greeter__greet"), 1);
    assert_eq!(count(&lines, "s3cret"), 0);
}

#[tokio::test]
async fn a_forgotten_lease_is_registered_again_under_a_new_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let mut fake = Fake::at(&path);
    let (sidecar, lines) = greeter(&path);
    let _serving = sidecar.spawn().await.unwrap();
    let Asked::Register { request: first, .. } = fake.next().await else {
        panic!()
    };
    fake.refuse_renewal(Code::NotFound);
    let Asked::Register {
        request: second, ..
    } = fake.next_but_renewals().await
    else {
        panic!()
    };
    assert_ne!(first.request_id, second.request_id);
    assert_eq!(
        fake.next().await,
        Asked::Renew {
            lease_id: "lease-2".to_owned()
        }
    );
    assert_eq!(count(&lines, "registering again"), 1);
}

#[tokio::test]
async fn a_server_in_trouble_is_waited_out_without_registering_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let mut fake = Fake::at(&path);
    let (sidecar, lines) = greeter(&path);
    let _serving = sidecar.spawn().await.unwrap();
    assert!(matches!(fake.next().await, Asked::Register { .. }));
    fake.refuse_renewal(Code::Unavailable);
    fake.refuse_renewal(Code::Internal);
    for _ in 0..4 {
        assert_eq!(
            fake.next().await,
            Asked::Renew {
                lease_id: "lease-1".to_owned()
            }
        );
    }
    assert_eq!(
        count(&lines, "trying again") + count(&lines, "waits for"),
        1
    );
    assert_eq!(count(&lines, "answers again"), 1);
}

#[tokio::test(start_paused = true)]
async fn started_before_its_server_it_waits_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let (sidecar, lines) = greeter(&path);
    let mut serving = sidecar.spawn().await.unwrap();
    // A minute of vain tries, on the paused clock; connections need the real one.
    tokio::time::sleep(Duration::from_secs(60)).await;
    tokio::time::resume();
    let mut fake = Fake::at(&path);
    assert!(within(serving.registered()).await);
    assert!(matches!(fake.next().await, Asked::Register { .. }));
    assert_eq!(count(&lines, "waits for the Loopwright server at unix:"), 1);
    let said = lines.lock().unwrap().len();
    assert_eq!(
        said,
        3,
        "serves, waits, is registered: {:?}",
        lines.lock().unwrap()
    );
    // It served all the while.
    let mut client = dial(serving.endpoint()).await;
    assert_eq!(
        last(call(&mut client, request("greet", "{}")).await)
            .await
            .1,
        "hello"
    );
}

#[tokio::test]
async fn a_name_still_taken_is_tried_until_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let fake = Fake::at(&path);
    for _ in 0..3 {
        fake.refuse_registration(Code::AlreadyExists);
    }
    let (sidecar, lines) = greeter(&path);
    let mut serving = sidecar.spawn().await.unwrap();
    assert!(within(serving.registered()).await);
    assert_eq!(
        count(&lines, "as the test says"),
        1,
        "{:?}",
        lines.lock().unwrap()
    );
}

#[tokio::test]
async fn a_refusal_for_good_ends_serving_and_names_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let fake = Fake::at(&path);
    fake.refuse_registration(Code::Unauthenticated);
    let (sidecar, _) = greeter(&path);
    let mut serving = sidecar.spawn().await.unwrap();
    let error = within(serving.ended()).await.unwrap_err();
    assert!(matches!(error, ServeError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("LOOPWRIGHT_TOKEN"), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_running_call_may_end_while_the_sidecar_goes_down() {
    let gate = Arc::new(Notify::new());
    let passed = Arc::clone(&gate);
    let wait = move |ctx: ToolContext, _: NoArgs| {
        let passed = Arc::clone(&passed);
        async move {
            ctx.progress(None, "begun");
            passed.notified().await;
            Ok("went")
        }
    };
    let sidecar = Sidecar::new("slow")
        .tool(Tool::new("wait", "Waits.", wait))
        .drain(PATIENCE);
    let (serving, mut client) = served(sidecar).await;
    let mut stream = call(&mut client, request("wait", "{}")).await;
    assert!(matches!(next(&mut stream).await, Some(Kind::Progress(_))));
    let down = tokio::spawn(serving.shutdown());
    // Once the connection refuses new calls, it is going down.
    within(async {
        while client.call_tool(request("nothing", "{}")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.notify_one();
    assert_eq!(last(stream).await.1, "went");
    within(down).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outstays_the_drain_is_told_to_stop() {
    let wait = |ctx: ToolContext, _: NoArgs| async move {
        ctx.cancelled().await;
        Ok("wound up")
    };
    let sidecar = Sidecar::new("slow")
        .tool(Tool::new("wait", "Waits.", wait))
        .without_server();
    let sidecar = sidecar.notices(|_| ());
    // Checked, so that the clone shares its toolbox.
    sidecar.check().unwrap();
    let same = sidecar.clone();
    let serving = sidecar.spawn().await.unwrap();
    let running = tokio::spawn(async move { same.call("wait", serde_json::json!({})).await });
    tokio::task::yield_now().await;
    serving.shutdown().await.unwrap();
    assert_eq!(running.await.unwrap().unwrap().text(), "wound up");
}

#[tokio::test]
async fn sigterm_takes_the_sidecar_out_and_ends_serve_without_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let mut fake = Fake::at(&path);
    let (sidecar, lines) = greeter(&path);
    let served = tokio::spawn(sidecar.serve());
    // Registered, so its signals are its own by now and do not end the tests.
    assert!(matches!(fake.next().await, Asked::Register { .. }));
    fake.next().await;
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
        .unwrap();
    let left = fake.next_but_renewals().await;
    assert_eq!(
        left,
        Asked::Deregister {
            lease_id: "lease-1".to_owned()
        }
    );
    within(served).await.unwrap().unwrap();
    assert_eq!(count(&lines, "sidecar greeter stops"), 1);
}
