//! What a loop is charged to, settled before it starts: shared budgets, and the prices of its models.

use std::collections::BTreeMap;
use std::sync::Arc;

use loopwright_core::{
    agent::{Agent, Limits},
    budget::{LOOP_BUDGET, Price, SESSION_BUDGET},
    ledger::{Ledger, NAMESPACE_BUDGET, Name},
};
use loopwright_log::{Id, StreamKey};
use tonic::Status;

use crate::service::{ServiceState, budgets, convert::agent::Terms, status};

impl ServiceState {
    /// What the next loop of a session runs under, where that is something else than the last one did: the
    /// namespace may have a budget since, or none any more, and a model another price.
    pub(super) async fn renewed(
        &self,
        key: &StreamKey,
        agent: &Agent,
        limits: &Arc<Limits>,
    ) -> Result<Option<Terms>, Status> {
        let mut terms = Terms {
            agent: agent.clone(),
            limits: Arc::clone(limits),
        };
        self.settle_budgets(key, &mut terms).await?;
        let is_new = terms.agent != *agent || terms.limits != *limits;
        Ok(is_new.then_some(terms))
    }

    /// Checks that the agent's budgets are there, puts the namespace's own beside them, and prices the
    /// models. Without a price nothing that limits money is entered: it would be a free ride.
    pub(super) async fn settle_budgets(
        &self,
        key: &StreamKey,
        terms: &mut Terms,
    ) -> Result<(), Status> {
        let named = &mut terms.agent.budgets;
        named.retain(|name| name != NAMESPACE_BUDGET);
        let asked = named.clone();
        let look = move |ledger: &Ledger, _| {
            let chain = ledger.chain(asked.iter().map(String::as_str))?;
            let limits_money = |name: &&Name| {
                let budget = ledger.budgets.get(*name);
                budget.is_some_and(|budget| budget.terms.limits.cost_micro_usd.is_some())
            };
            let money = chain.iter().find(limits_money).cloned();
            let has_own = ledger.budgets.contains_key(NAMESPACE_BUDGET);
            Ok::<_, Name>((has_own, money))
        };
        let namespace = Id::parse(key.namespace());
        let namespace = namespace.map_err(|_| status::session_not_found(key.id()))?;
        let found = self.ledgers.look(&namespace, look).await;
        let found = found.map_err(|error| budgets::refused(&error))?;
        let (has_own, money) = found.map_err(|name| status::budget_not_found(&name))?;
        if has_own {
            named.push(NAMESPACE_BUDGET.to_owned());
        }
        let limits = &terms.limits;
        let own = limits.budget.cost_micro_usd.map(|_| LOOP_BUDGET);
        let session = limits.session_budget.cost_micro_usd;
        let own = own.or(session.map(|_| SESSION_BUDGET)).map(Name::from);
        let prices = self.prices(&terms.agent, limits, own.or(money).as_deref())?;
        if terms.limits.prices != prices {
            Arc::make_mut(&mut terms.limits).prices = prices;
        }
        Ok(())
    }

    /// The prices of every model that a loop may call. None may be missing where a budget limits money.
    pub(super) fn prices(
        &self,
        agent: &Agent,
        limits: &Limits,
        limits_money: Option<&str>,
    ) -> Result<BTreeMap<String, Price>, Status> {
        let mut prices = BTreeMap::new();
        let context = limits.context.as_ref();
        let writer = context.and_then(|context| context.recap_by_model.as_ref());
        let models = [&agent.model].into_iter();
        for model in models.chain(&agent.fallbacks).chain(writer) {
            let facts = self.models.check(model).map_err(status::no_model)?;
            match (facts.price, limits_money) {
                (Some(price), _) => drop(prices.insert(model.clone(), price)),
                (None, Some(budget)) => return Err(status::no_price(model, budget)),
                (None, None) => {}
            }
        }
        Ok(prices)
    }
}

#[cfg(test)]
mod tests;
