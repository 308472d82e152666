//! Timers: a retry is due, a person did not answer in time, or a loop's time is up. A timer that the state no longer wants, or whose
//! time has not come, decides to nothing.

use super::{Draft, approval, budget, control, step, tool};
use crate::{
    effect::{EffectKey, wanted},
    input::TimerWhy,
};

pub(super) fn fired(draft: &mut Draft, fired: TimerWhy) {
    let due = wanted(&draft.state).into_iter().any(|key| match key {
        EffectKey::Timer { at, why } => why == fired && at <= draft.at,
        EffectKey::Model { .. }
        | EffectKey::Tool { .. }
        | EffectKey::Lookup { .. }
        | EffectKey::Reserve { .. }
        | EffectKey::Settle { .. } => false,
    });
    let Some(active) = draft.state.active.as_ref().filter(|_| due) else {
        return;
    };
    match fired {
        TimerWhy::RetryModel(call) => {
            let attempt = active.model.as_ref().map_or(1, |model| model.attempt);
            step::start_call(draft, call, attempt);
        }
        TimerWhy::RetryTool(call) => tool::retry(draft, call),
        TimerWhy::Approval(call) => approval::expired(draft, call),
        TimerWhy::Deadline(_) => step::end(draft, step::LATE),
        TimerWhy::Idle(_) => step::end(draft, step::IDLE),
        TimerWhy::WallTime(_) => control::time_is_up(draft),
        TimerWhy::WallTimeNear(_) => budget::warn(draft),
    }
}
