use super::*;

/// A cause of every kind.
pub(crate) fn one_of_each() -> Vec<Cause> {
    let mut causes = asked_for();
    causes.extend(came_about());
    causes
}

fn asked_for() -> Vec<Cause> {
    let by = Command::default();
    vec![
        Cause::Create(by.clone()),
        Cause::StartLoop(by.clone()),
        Cause::SendMessage {
            by: by.clone(),
            mode: Mode::Steer,
            guard: None,
        },
        Cause::CancelLoop {
            by: by.clone(),
            guard: None,
        },
        Cause::PauseLoop {
            by: by.clone(),
            guard: None,
        },
        Cause::ResumeLoop {
            by: by.clone(),
            guard: None,
        },
        Cause::UpdateLimits {
            by: by.clone(),
            guard: None,
        },
        Cause::ResolveApproval {
            by: by.clone(),
            guard: None,
        },
        Cause::ResolveUnknown {
            by: by.clone(),
            guard: None,
        },
        Cause::Adopt(by),
    ]
}

fn came_about() -> Vec<Cause> {
    let (call, attempt) = (CallId(1), 1);
    vec![
        Cause::Attach,
        Cause::Detach,
        Cause::Tools,
        Cause::Model {
            call,
            attempt,
            jitter: 0,
            retry_after_ms: None,
        },
        Cause::Tool {
            call,
            attempt,
            jitter: 0,
            retryable: false,
            retry_after_ms: None,
        },
        Cause::Lookup {
            call,
            not_known: None,
        },
        Cause::BudgetGranted {
            call,
            attempt,
            max_output_tokens: 1,
            tool_calls: None,
        },
        Cause::BudgetWaits { call, attempt },
        Cause::BudgetRefused { call, attempt },
        Cause::BudgetSpent { call, attempt },
        Cause::BudgetSettled {
            call,
            attempt,
            more: Vec::new(),
        },
        Cause::Timer(TimerWhy::RetryModel(call)),
    ]
}

#[test]
fn the_label_is_the_tag_in_the_log() {
    for cause in one_of_each() {
        let json = serde_json::to_value(&cause).expect("a cause is JSON");
        let members = json.as_object().and_then(|members| members.keys().next());
        let tag = json.as_str().or(members.map(String::as_str));
        assert_eq!(tag, Some(cause.label()));
        assert_eq!(cause.command().is_some(), json.to_string().contains("{}"));
        let back: Cause = serde_json::from_value(json).expect("it reads back");
        assert_eq!(back, cause);
    }
}
