//! The golden sessions, as scripts.

use loopwright_core::{
    Cause, Entry, Event, What,
    agent::{Agent, BudgetLimits, Limits, UnknownPolicy},
    event::{Unknown, UnknownResolution},
    ids::{CallId, LoopId},
    input::{AdoptOrigin, Mode, TimerWhy},
    message::{Opaque, Part, Thinking},
    outcome::{LookupAnswer, ModelFailureKind, StopReason, ToolFailure, ToolFailureKind},
};

use super::script::{Line, Script, agent, call, text, tokens};

/// All of them, by name.
pub(crate) fn all() -> Vec<(&'static str, Vec<Line>)> {
    vec![
        ("simple", simple()),
        ("parallel_tools", parallel_tools()),
        ("crash_in_doubt", crash_in_doubt()),
        ("crash_in_model_call", crash_in_model_call()),
        ("cancel", cancel()),
        ("budget_exceeded", budget_exceeded()),
        ("last_call", last_call()),
        ("named_budget", named_budget()),
        ("steer_queue_interrupt", steer_queue_interrupt()),
        ("unknown_kinds", unknown_kinds()),
        ("held_and_allowed", held_and_allowed()),
        ("held_and_expired", held_and_expired()),
        ("unknown_and_asked", unknown_and_asked()),
        ("lookup_never_started", lookup_never_started()),
        ("fork_in_mid_call", fork_in_mid_call()),
        ("import", import()),
    ]
}

fn simple() -> Vec<Line> {
    let mut script = Script::new(agent(), Limits::default());
    script.start("What is a kite?");
    let parts = vec![
        Part::Thinking(Thinking {
            text: "A toy.".to_owned(),
            signature: Some("c2ln".to_owned()),
        }),
        Part::Opaque(Opaque {
            provider: "anthropic".to_owned(),
            json: "{\"type\":\"odd\",\"n\":null}".to_owned(),
        }),
        text("A toy on a string."),
    ];
    script.reply(parts, StopReason::EndTurn, tokens(40, 12));
    script.lines
}

/// Two tools at once, of which the second ends first; then a third after a failure.
fn parallel_tools() -> Vec<Line> {
    let mut script = Script::new(agent(), Limits::default());
    script.start("Read two files.");
    let both = vec![text("Both."), call("files__read"), call("files__read")];
    script.reply(both, StopReason::ToolUse, tokens(60, 20));
    script.tool(3, 1, "second");
    script.tool(2, 1, "first");
    let more = vec![call("mail__send"), call("files__gone")];
    script.reply(more, StopReason::ToolUse, tokens(90, 10));
    script.go(What::ToolFailed {
        call: CallId(5),
        attempt: 1,
        failure: ToolFailure {
            kind: ToolFailureKind::Ambiguous,
            message: "deadline".to_owned(),
            retryable: false,
            retry_after_ms: None,
            cause: None,
        },
        jitter: 250_000,
    });
    script.wait(1_000);
    script.go(What::TimerFired(TimerWhy::RetryTool(CallId(5))));
    script.tool(5, 2, "sent");
    script.reply(vec![text("Done.")], StopReason::EndTurn, tokens(120, 3));
    script.lines
}

/// A driver dies while a call that must not be repeated runs beside one that may be.
fn crash_in_doubt() -> Vec<Line> {
    let limits = Limits {
        on_unknown: Some(UnknownPolicy::TellModel),
        ..Limits::default()
    };
    let mut script = Script::new(agent(), limits);
    script.start("Write it down.");
    let both = vec![
        call("files__write"),
        call("files__read"),
        call("files__write"),
    ];
    script.reply(both, StopReason::ToolUse, tokens(60, 20));
    script.attach();
    script.go(What::LookedUp {
        call: CallId(2),
        answer: LookupAnswer::NotKnown("the sidecar was restarted".to_owned()),
    });
    script.go(What::LookedUp {
        call: CallId(4),
        answer: LookupAnswer::NeverStarted,
    });
    script.tool(3, 2, "read");
    script.tool(4, 2, "written");
    script.reply(vec![text("Perhaps.")], StopReason::EndTurn, tokens(90, 4));
    script.lines
}

/// Failures with a floor, a crash, another model, a drain.
fn crash_in_model_call() -> Vec<Line> {
    let mut script = Script::new(agent(), Limits::default());
    script.start("Hello?");
    script.fail(ModelFailureKind::RateLimited, Some(3_000));
    script.wait(5_000);
    script.go(What::TimerFired(TimerWhy::RetryModel(CallId(1))));
    script.attach();
    script.fail(ModelFailureKind::Auth, None);
    script.go(What::Detach);
    script.attach();
    let reply = vec![text("Hello.")];
    script.reply(reply, StopReason::EndTurn, tokens(9, 2));
    script.lines
}

fn cancel() -> Vec<Line> {
    let limits = Limits {
        max_parallel_tool_calls: 1,
        deadline_ms: Some(60_000),
        ..Limits::default()
    };
    let mut script = Script::new(agent(), limits);
    script.start("Write it twice.");
    let both = vec![
        text("As you say."),
        call("files__write"),
        call("files__write"),
    ];
    script.reply(both, StopReason::ToolUse, tokens(60, 20));
    script.send("Wait!", Mode::Steer);
    let by = script.by();
    script.go(What::CancelLoop {
        by,
        guard: Some(LoopId(1)),
        reason: "changed my mind".to_owned(),
    });
    script.lines
}

/// A cap shrinks the second call's output; the reply that it cuts ends the loop.
fn budget_exceeded() -> Vec<Line> {
    let limits = Limits {
        budget: BudgetLimits {
            total_tokens: Some(2_000),
            tool_calls: Some(5),
            ..BudgetLimits::default()
        },
        ..Limits::default()
    };
    let mut script = Script::new(agent(), limits);
    script.start("Be long.");
    script.reply(
        vec![call("files__read")],
        StopReason::ToolUse,
        tokens(300, 200),
    );
    script.tool(2, 1, "text");
    script.reply(vec![text("So far so")], StopReason::MaxTokens, None);
    script.lines
}

/// Nothing new comes, few steps are left, and the budget covers no further one.
fn last_call() -> Vec<Line> {
    let limits = Limits {
        max_steps: 7,
        max_output_tokens: 500,
        no_progress: Some(5),
        wrapup_steps: 4,
        final_call_tokens: Some(2_500),
        tell_budget: true,
        budget: BudgetLimits {
            total_tokens: Some(9_000),
            ..BudgetLimits::default()
        },
        ..Limits::default()
    };
    let mut script = Script::new(agent(), limits);
    script.start("Look until you see it.");
    for (step, input) in [(0, 900), (1, 1_000), (2, 3_400)] {
        script.reply(
            vec![text("I look."), call("files__read")],
            StopReason::ToolUse,
            tokens(input, 10),
        );
        script.tool(2 + 2 * step, 1, "nothing yet");
    }
    script.reply(
        vec![text("I did not see it.")],
        StopReason::EndTurn,
        tokens(1_100, 10),
    );
    script.lines
}

fn named_budget() -> Vec<Line> {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..agent()
    };
    let mut script = Script::new(agent, Limits::default());
    script.start("Be brief.");
    let (call, attempt) = script.model();
    script.go(What::BudgetGranted {
        call,
        attempt,
        max_output_tokens: 100,
        tool_calls: None,
        left: std::sync::Arc::default(),
    });
    script.attach();
    script.go(What::BudgetSettled {
        call,
        attempt,
        more: Vec::new(),
        warnings: Vec::new(),
    });
    let (call, attempt) = script.model();
    script.go(What::BudgetGranted {
        call,
        attempt,
        max_output_tokens: 100,
        tool_calls: Some(1),
        left: std::sync::Arc::default(),
    });
    script.reply(vec![text("Yes.")], StopReason::EndTurn, tokens(2_000, 1));
    script.go(What::BudgetSettled {
        call,
        attempt,
        more: Vec::new(),
        warnings: Vec::new(),
    });
    script.lines
}

fn steer_queue_interrupt() -> Vec<Line> {
    let mut script = Script::new(agent(), Limits::default());
    script.start("Count.");
    script.send("In French.", Mode::Steer);
    script.send("Then sing.", Mode::Queue);
    script.reply(vec![text("One")], StopReason::MaxTokens, tokens(20, 4_096));
    script.send("No, in Greek.", Mode::Interrupt);
    script.reply(vec![text("Ena")], StopReason::EndTurn, tokens(40, 2));
    script.reply(vec![text("La la.")], StopReason::EndTurn, tokens(50, 3));
    script.lines
}

/// Two kinds of a later version: one that may be skipped, beside events of ours, and one that may
/// not.
fn unknown_kinds() -> Vec<Line> {
    let unknown = |kind: &str, json: &str| {
        Event::Unknown(Unknown {
            kind: kind.to_owned(),
            json: json.to_owned(),
        })
    };
    let mut script = Script::new(agent(), Limits::default());
    script.start("Hi.");
    script.reply(vec![text("Hi!")], StopReason::EndTurn, tokens(5, 2));
    let last = script.lines.last_mut().expect("there is a last line");
    let mut events = last.entry.events.clone();
    events.insert(
        1,
        unknown(
            "MoodNoted",
            "{\"ignorable\":true,\"mood\":\"bright\",\"score\":1e400}",
        ),
    );
    last.entry.events = events;
    let newer = unknown("QuorumReached", "{\"n\":3,  \"deep\":[{\"x\":null}]}");
    script.push(Entry::new(Cause::Tools, vec![newer]));
    script.lines
}

fn says(script: &mut Script, calls: &[&str]) {
    let parts = calls.iter().map(|tool| call(tool)).collect();
    script.reply(parts, StopReason::ToolUse, tokens(60, 20));
}

fn ends(mut script: Script) -> Vec<Line> {
    script.reply(vec![text("So be it.")], StopReason::EndTurn, tokens(90, 4));
    script.lines
}

fn policy(on_unknown: UnknownPolicy) -> Limits {
    Limits {
        on_unknown: Some(on_unknown),
        ..Limits::default()
    }
}

/// The model is told that nobody knows, asks again, and a person allows it; a result comes late.
fn held_and_allowed() -> Vec<Line> {
    let mut script = Script::new(agent(), policy(UnknownPolicy::TellModel));
    script.start("Pay them.");
    says(&mut script, &["files__write"]);
    script.breaks(2, 1);
    script.not_known(2);
    says(&mut script, &["files__write", "files__read"]);
    script.tool(5, 1, "read");
    script.attach();
    script.answer(4, true);
    script.tool(2, 1, "paid long ago");
    script.tool(4, 1, "paid");
    ends(script)
}

/// Nobody answers in time, and the next time a person says no.
fn held_and_expired() -> Vec<Line> {
    let limits = Limits {
        approval_timeout_ms: Some(60_000),
        idle_timeout_ms: Some(600_000),
        ..policy(UnknownPolicy::TellModel)
    };
    let mut script = Script::new(agent(), limits);
    script.start("Pay them.");
    says(&mut script, &["files__write"]);
    script.attach();
    script.not_known(2);
    says(&mut script, &["files__write"]);
    script.wait(60_000);
    script.go(What::TimerFired(TimerWhy::Approval(CallId(4))));
    says(&mut script, &["files__write"]);
    script.answer(6, false);
    says(&mut script, &["files__write"]);
    script.wait(600_000);
    script.go(What::TimerFired(TimerWhy::Approval(CallId(8))));
    ends(script)
}

/// A person is asked, and says each of what there is to say; the last time nobody does.
fn unknown_and_asked() -> Vec<Line> {
    let limits = Limits {
        on_unknown: None,
        idle_timeout_ms: Some(600_000),
        ..Limits::default()
    };
    let mut script = Script::new(agent(), limits);
    script.start("Pay them.");
    for (number, resolution) in [
        (2, UnknownResolution::Happened),
        (4, UnknownResolution::DidNotHappen),
        (6, UnknownResolution::RunAgain),
        (8, UnknownResolution::TellModel),
    ] {
        says(&mut script, &["files__write"]);
        script.breaks(number, 1);
        script.not_known(number);
        script.resolve(number, resolution);
        if resolution == UnknownResolution::RunAgain {
            script.tool(number, 2, "paid");
        }
    }
    says(&mut script, &["files__write"]);
    script.answer(10, true);
    script.breaks(10, 1);
    script.not_known(10);
    script.wait(600_000);
    script.go(What::TimerFired(TimerWhy::Idle(LoopId(1))));
    script.lines
}

/// Sidecars say that calls never started: one lost with its driver, one that broke off.
fn lookup_never_started() -> Vec<Line> {
    let mut script = Script::new(agent(), policy(UnknownPolicy::Ask));
    let never = |call| What::LookedUp {
        call: CallId(call),
        answer: LookupAnswer::NeverStarted,
    };
    script.start("Write it down.");
    says(&mut script, &["files__write"]);
    script.attach();
    script.go(never(2));
    script.breaks(2, 2);
    script.go(never(2));
    script.wait(1_000);
    script.go(What::TimerFired(TimerWhy::RetryTool(CallId(2))));
    script.tool(2, 3, "written");
    ends(script)
}

/// A copy that was cut where a call ran and another waited for a person.
fn fork_in_mid_call() -> Vec<Line> {
    let mut script = Script::new(agent(), policy(UnknownPolicy::TellModel));
    script.start("Pay them.");
    says(&mut script, &["files__write"]);
    script.breaks(2, 1);
    script.not_known(2);
    says(&mut script, &["mail__send", "files__write"]);
    script.send("And them.", Mode::Queue);
    let mut copy = script.copied();
    let by = copy.by();
    copy.go(What::Adopt {
        by,
        session: "branch".to_owned(),
        namespace: "default".to_owned(),
        origin: AdoptOrigin::Fork {
            from: "golden".to_owned(),
            from_seq: 7,
            labels: [("branch".to_owned(), "1".to_owned())].into(),
        },
    });
    copy.attach();
    copy.start("What happened?");
    ends(copy)
}

/// An export that was read in where a model call ran.
fn import() -> Vec<Line> {
    let mut script = Script::new(agent(), Limits::default());
    script.start("Hello?");
    script.send("And then?", Mode::Queue);
    let mut copy = script.copied();
    let by = copy.by();
    copy.go(What::Adopt {
        by,
        session: "restored".to_owned(),
        namespace: "team".to_owned(),
        origin: AdoptOrigin::Import {
            from: "default/golden".to_owned(),
            from_seq: 4,
        },
    });
    copy.attach();
    copy.start("Hello again.");
    ends(copy)
}
