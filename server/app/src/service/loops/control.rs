//! PauseLoop, ResumeLoop and UpdateLimits.

use loopwright_core::{
    What,
    agent::{Agent, LimitsChange},
    budget::{LOOP_BUDGET, SESSION_BUDGET},
};
use loopwright_proto::v1;
use tonic::Status;

use super::{Done, Order};
use crate::service::{
    ServiceState,
    convert::commands::{self, Told},
    status,
};

impl ServiceState {
    /// PauseLoop.
    ///
    /// # Errors
    /// As PauseLoop names them.
    pub async fn pause_loop(
        &self,
        order: &Order,
        request: &v1::PauseLoopRequest,
    ) -> Result<Done, Status> {
        let told = commands::pause(request, &order.caller);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }

    /// ResumeLoop.
    ///
    /// # Errors
    /// As ResumeLoop names them.
    pub async fn resume_loop(
        &self,
        order: &Order,
        request: &v1::ResumeLoopRequest,
    ) -> Result<Done, Status> {
        let told = commands::resume(request, &order.caller);
        self.tell(told.map_err(|all| status::invalid(&all))?).await
    }

    /// UpdateLimits.
    ///
    /// # Errors
    /// As UpdateLimits names them.
    pub async fn update_limits(
        &self,
        order: &Order,
        request: &v1::UpdateLimitsRequest,
    ) -> Result<Done, Status> {
        let checked = commands::update_limits(request, &order.caller, &self.config);
        let (key, by, guard, mut change) = checked.map_err(|all| status::invalid(&all))?;
        if let Some(known) = self.known(&key).await?
            && known.state.answer(&by.request_id).is_none()
        {
            self.settle_output(&known.state.agent, &mut change);
            self.price(&known.state.agent, &mut change)?;
        }
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
    fn price(&self, agent: &Agent, change: &mut LimitsChange) -> Result<(), Status> {
        let limited = [
            (change.budget.cost_micro_usd, LOOP_BUDGET),
            (change.session_budget.cost_micro_usd, SESSION_BUDGET),
        ];
        let Some((_, budget)) = limited.iter().find(|(limit, _)| limit.is_some()) else {
            return Ok(());
        };
        for model in [&agent.model].into_iter().chain(&agent.fallbacks) {
            let facts = self.models.check(model).map_err(status::no_model)?;
            let Some(price) = facts.price else {
                return Err(status::no_price(model, budget));
            };
            change.prices.insert(model.clone(), price);
        }
        Ok(())
    }
}
