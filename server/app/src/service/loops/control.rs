//! Limits that move in mid-loop, settled with the models of the session.

use loopwright_core::{
    What,
    agent::{Agent, BudgetChange, Limits, LimitsChange},
    budget::{Dimension, LOOP_BUDGET, SESSION_BUDGET},
};
use tonic::Status;

use super::Done;
use crate::service::{
    ServiceState,
    convert::commands::{Moved, Told},
};

impl ServiceState {
    /// UpdateLimits, checked but for what the session's models have to say of it.
    ///
    /// # Errors
    /// As UpdateLimits names them, but for INVALID_ARGUMENT.
    pub(super) async fn move_limits(&self, moved: Moved) -> Result<Done, Status> {
        let Moved {
            key,
            by,
            guard,
            mut change,
        } = moved;
        if let Some(known) = self.known(&key).await?
            && known.state.answer(&by.request_id).is_none()
        {
            self.settle_output(&known.state.agent, &mut change);
            let (agent, limits) = (&known.state.agent, &known.state.limits);
            self.price(agent, limits, &mut change)?;
        }
        let change = Box::new(change);
        let what = What::UpdateLimits { by, guard, change };
        self.tell(Told {
            key,
            what,
            may_queue: false,
        })
        .await
    }

    /// No call asks for more output than its model gives.
    fn settle_output(&self, agent: &Agent, change: &mut LimitsChange) {
        let Ok(facts) = self.models.check(&agent.model) else {
            return;
        };
        let most = [facts.max_output, facts.context_window];
        let most = most.into_iter().flatten().min();
        if let Some(most) = most.filter(|most| change.max_output_tokens > Some(*most)) {
            change.max_output_tokens = Some(most);
            change.max_output_asked = Some(false);
        }
    }

    /// A limit on cost that comes in mid-loop needs the prices that one at its start needs.
    fn price(
        &self,
        agent: &Agent,
        limits: &Limits,
        change: &mut LimitsChange,
    ) -> Result<(), Status> {
        let limited = [
            (change.budget, LOOP_BUDGET),
            (change.session_budget, SESSION_BUDGET),
        ];
        let is_limited = |change: &BudgetChange| {
            let cost = change.at(Dimension::CostMicroUsd);
            cost.of(None).is_some()
        };
        if let Some((_, budget)) = limited.iter().find(|(change, _)| is_limited(change)) {
            change.prices = self.prices(agent, limits, Some(budget))?;
        }
        Ok(())
    }
}
