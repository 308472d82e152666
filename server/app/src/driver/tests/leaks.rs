//! That nothing of a loop is left once it has ended, and nothing of a session once it is closed.

use loopwright_log::{Id, JsonlLog, JsonlOptions, SyncPolicy};
use tokio::runtime::Handle;

use super::*;
use crate::sidecars::{Registration, Who, tests::fake::Fake};

const CALLS: &str = "at_end: repeat\nturns:\n- tool_calls:\n  - tool: fake__gated\n    arguments: {}\n- text: done\n";
const LOOPS: u32 = 20;
/// Sessions that come and go.
const SESSIONS: usize = 2_000;
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

async fn register(rig: &Rig, fake: &Fake) {
    let who = Who {
        namespace: Id::parse("default").unwrap(),
        principal: "ann".to_owned(),
        admin: false,
    };
    let registration = Registration {
        name: "fake".to_owned(),
        endpoint: fake.endpoint(),
        ..Registration::default()
    };
    rig.sidecars.register(&who, registration).await.unwrap();
}

/// Starts so many loops, each of which waits for its tool.
async fn start_held(rig: &Rig, fake: &Fake, round: &str) -> Vec<StreamKey> {
    let mut keys = Vec::new();
    for n in 0..LOOPS {
        let id = format!("{round}-{n}");
        rig.begin(&id, "r1").await;
        keys.push(key(&id));
    }
    until_running(fake, LOOPS).await;
    keys
}

async fn until_running(fake: &Fake, calls: u32) {
    let mut running = fake.state.running.subscribe();
    let seen = tokio::time::timeout(PATIENCE, running.wait_for(|&now| now == calls));
    assert!(
        seen.await.is_ok(),
        "{} calls are open, not {calls}",
        *fake.state.running.borrow()
    );
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Until no more tasks are alive than that.
async fn until_tasks(most: usize) {
    let began = tokio::time::Instant::now();
    while tasks() > most {
        assert!(
            began.elapsed() < PATIENCE,
            "{} tasks are alive, not {most}",
            tasks()
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn no_task_and_no_stream_outlives_its_loop() {
    let rig = rig_with(MemoryLog::new(), CALLS, |world| world.max_active = 64);
    let fake = Fake::tcp(&["gated"]);
    register(&rig, &fake).await;
    // Whatever a connection needs for itself is there once it was used.
    fake.state.gate.add_permits(1);
    let warm = key("warm");
    let started = rig.drivers.start_loop(&warm, create("warm"), start("r1"));
    started.await.unwrap();
    until_ended(&rig.log, &warm, 1).await;
    drop(rig.drivers.release(&warm).await.unwrap());
    until_running(&fake, 0).await;
    let base = tasks();

    let cancelled = start_held(&rig, &fake, "cancelled").await;
    assert!(tasks() >= base + LOOPS as usize, "each has a driver");
    for key in &cancelled {
        rig.drivers.command(key, cancel("r2")).await.unwrap();
    }
    until_running(&fake, 0).await;
    let ended = start_held(&rig, &fake, "ended").await;
    fake.state.gate.add_permits(LOOPS as usize);
    for key in &ended {
        until_ended(&rig.log, key, 1).await;
    }
    until_running(&fake, 0).await;
    for key in cancelled.iter().chain(&ended) {
        drop(rig.drivers.release(key).await.unwrap());
    }
    until_tasks(base).await;
    assert_eq!(rig.drivers.active(), 0);

    start_held(&rig, &fake, "killed").await;
    rig.drain.begin();
    rig.drivers.drained().await;
    until_running(&fake, 0).await;
    until_tasks(base).await;
}

/// What is kept in memory afterwards is what is kept after none.
#[tokio::test]
async fn closed_sessions_leave_nothing_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = JsonlOptions {
        sync: SyncPolicy::Never,
        idle: Duration::ZERO,
        ..JsonlOptions::new(dir.path())
    };
    let (log, _) = JsonlLog::open(options).unwrap();
    let index = Index::open(log.clone(), &dir.path().join("index.redb")).await;
    let rig = rig_with(log, "at_end: repeat\nturns:\n- text: one\n", |world| {
        world.index = index;
    });
    let base = tasks();
    for n in 0..SESSIONS {
        let id = format!("s{n}");
        let a = key(&id);
        let started = rig.drivers.start_loop(&a, create(&id), start("r1")).await;
        started.unwrap();
        until_ended(&rig.log, &a, 1).await;
        drop(rig.drivers.release(&a).await.unwrap());
    }
    until_tasks(base).await;
    assert_eq!(rig.drivers.active(), 0);
    let began = tokio::time::Instant::now();
    while rig.log.stats().resident_streams > 0 {
        let stats = rig.log.stats();
        assert!(
            began.elapsed() < PATIENCE,
            "streams are in memory: {stats:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.index.close().await;
    assert_eq!(rig.index.digests(), 0);
    let survey = Index::open(Arc::clone(&rig.log), &dir.path().join("index.redb")).await;
    let survey = survey.survey().await.unwrap();
    assert_eq!((survey.sessions, survey.known.len()), (SESSIONS, 0));
    assert_eq!(survey.unknown, [], "each was written down at its end");
}
