//! Which tools a loop is offered, and what is too large for an entry.

use loopwright_core::{State, agent::READ_OUTPUT};
use loopwright_log::{AppendError, Id};

use super::*;
use crate::sidecars::{
    Registration, Who,
    tests::fake::{Fake, script, tool},
};

const AGAIN: &str = "at_end: repeat\nturns:\n- text: one\n";

async fn register(rig: &Rig, name: &str, fake: &Fake) {
    let who = Who {
        namespace: Id::parse("default").unwrap(),
        principal: "ann".to_owned(),
        admin: false,
    };
    let registration = Registration {
        name: name.to_owned(),
        endpoint: fake.endpoint(),
        ..Registration::default()
    };
    rig.sidecars.register(&who, registration).await.unwrap();
}

fn selecting(tools: Option<&[&str]>) -> Agent {
    let tools = tools.map(|names| names.iter().map(|&name| name.to_owned()).collect());
    let model = "m".to_owned();
    Agent {
        model,
        tools,
        ..Agent::default()
    }
}

/// Starts the session's next loop, with this agent if any, and waits for the `n`-th end.
async fn run(rig: &Rig, agent: Option<Agent>, n: usize) {
    let start = StartLoop {
        agent: agent.map(Arc::new),
        ..start(&format!("start-{n}"))
    };
    let started = rig.drivers.start_loop(&key("a"), create("a"), start).await;
    started.unwrap();
    until_ended(&rig.log, &key("a"), n).await;
}

/// The tools that the session is offered by now.
async fn offered(rig: &Rig) -> Vec<String> {
    let mut state = State::default();
    let mut items = rig.log.read(&key("a"), 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        if let ReadItem::Fact(record) = item.unwrap() {
            let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
            state.apply_entry(record.seq, &entry);
        }
    }
    let served = state.tools.iter().filter(|tool| tool.name != READ_OUTPUT);
    served.map(|tool| tool.name.clone()).collect()
}

#[tokio::test]
async fn a_loop_that_brings_an_agent_is_offered_the_tools_that_it_selects() {
    let rig = rig(AGAIN);
    let fake = Fake::tcp(&["one", "two"]);
    register(&rig, "fake", &fake).await;
    run(&rig, Some(selecting(Some(&["fake__one"]))), 1).await;
    assert_eq!(offered(&rig).await, ["fake__one"]);
    run(&rig, Some(selecting(Some(&[]))), 2).await;
    assert_eq!(offered(&rig).await, [""; 0]);
    run(&rig, None, 3).await;
    assert_eq!(offered(&rig).await, [""; 0], "the agent is the one before");
    run(&rig, Some(selecting(None)), 4).await;
    assert_eq!(offered(&rig).await, ["fake__one", "fake__two"]);
}

#[tokio::test]
async fn tools_that_no_entry_holds_do_not_take_the_session_with_them() {
    let rig = rig(AGAIN);
    run(&rig, None, 1).await;
    let mut fakes = Vec::new();
    for name in ["x", "y", "z"] {
        let fake = Fake::at("127.0.0.1:0", script(&[]));
        let schema = format!(
            r#"{{"type":"object","description":"{}"}}"#,
            "d".repeat(60 << 10)
        );
        *fake.state.tools.lock().unwrap() = (0..6)
            .map(|n| loopwright_proto::v1::ToolSpec {
                input_schema_json: schema.clone(),
                ..tool(&format!("t{n}"))
            })
            .collect();
        register(&rig, name, &fake).await;
        fakes.push(fake);
    }
    assert_eq!(rig.sidecars.tools("default", None).len(), 19);
    run(&rig, None, 2).await;
    assert_eq!(offered(&rig).await, [""; 0]);
    assert_eq!(rig.drivers.restarts(&key("a")), 0);
}

#[tokio::test]
async fn a_session_that_no_entry_holds_is_refused_for_its_size() {
    let rig = rig(AGAIN);
    let large = Agent {
        system_prompt: "x".repeat(1 << 20),
        ..selecting(None)
    };
    let large = Create {
        agent: Arc::new(large),
        ..create("a")
    };
    let refused = rig.drivers.start_loop(&key("a"), large, start("r1")).await;
    assert!(
        matches!(
            refused,
            Err(CommandError::Log(AppendError::TooLarge { .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(rig.drivers.restarts(&key("a")), 0);
    run(&rig, None, 1).await;
}

#[tokio::test]
async fn a_loop_that_is_taken_up_is_offered_what_has_come_meanwhile() {
    let first = rig(SLOW);
    first.begin("a", "r1").await;
    first.drain.begin();
    first.drivers.drained().await;
    let next = rig_on(Arc::clone(&first.log), SLOW);
    let fake = Fake::tcp(&["one"]);
    register(&next, "fake", &fake).await;
    next.drivers.recover().await.unwrap();
    let mut items = next.log.read(&key("a"), 0, ReadMode::Follow);
    loop {
        let item = items.next().await.unwrap().unwrap();
        if let ReadItem::Fact(record) = item {
            let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
            let changed = |event: &Event| matches!(event, Event::ToolsChanged(_));
            if record.seq > 1 && entry.events.iter().any(changed) {
                break;
            }
        }
    }
    assert_eq!(offered(&next).await, ["fake__one"]);
}
