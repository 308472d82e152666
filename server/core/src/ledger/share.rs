//! What a call gets of budgets that others share, beside its tokens: tool calls of its reply, and word of
//! what is left.

use super::{Ledger, Name, OnExhausted, Terms};
use crate::{
    budget::{Amount, Ask, Dimension, Left, Shortfall},
    ids::Timestamp,
};

/// What is left for a call that `own` is set aside for already: the tightest of each dimension that a
/// budget of its chain limits, where that is asked.
pub(super) fn said_left(
    ledger: &Ledger,
    at: Timestamp,
    chain: &[Name],
    own: &Amount,
    ask: Ask,
) -> Vec<Left> {
    let of = |dimension: Dimension| {
        let budgets = chain.iter().filter_map(|name| ledger.budgets.get(name));
        let left = budgets.filter_map(|budget| {
            let used = budget.used_at(at).minus(own);
            Left::of(&budget.terms.limits, dimension, &used)
        });
        left.reduce(Left::tighter)
    };
    let all = Dimension::ALL.into_iter().filter(|_| ask.tells);
    all.filter_map(of).collect()
}

/// How many tool calls a budget lets through of one reply: an eighth of what is left, so that loops that
/// run together get some each; `None` where it limits none. A budget that loops wait for has at least
/// one left; of another one none may be left, and a reply without tools is still paid for.
pub(super) fn share_of_tools(
    terms: &Terms,
    used: &Amount,
    ask: Ask,
) -> Result<Option<u64>, Shortfall> {
    let Some(limit) = terms.limits.tool_calls.filter(|_| ask.tool_calls > 0) else {
        return Ok(None);
    };
    let left = limit.saturating_sub(used.tool_calls);
    if left == 0 && terms.on_exhausted == OnExhausted::Pause {
        return Err(Shortfall {
            dimension: Dimension::ToolCalls,
            limit,
            used: used.tool_calls,
            requested: 1,
        });
    }
    Ok(Some(left.div_ceil(8).min(ask.tool_calls)))
}
