//! The request of a call that writes a recap, and what it reserves.

use std::sync::Arc;

use super::ModelRequest;
use crate::{
    agent::Agent,
    budget::{
        Amount, Ask, MARGIN_PER_MESSAGE, MARGIN_PER_PROMPT, Price, Reservation, covers, grant,
    },
    context::{RecapAsk, SYSTEM_PROMPT},
    message::Part,
    state::{Conversation, ModelCall, State, Turn},
};

impl State {
    /// The model that writes recaps; empty where none does.
    #[must_use]
    pub fn recap_model(&self) -> &str {
        let terms = self.limits.context.as_ref();
        terms
            .and_then(|terms| terms.recap_by_model.as_deref())
            .unwrap_or_default()
    }

    /// What a recap call sets aside, where the loop's own limits cover it and the step that waits for
    /// it: its cap is never less than the recap may need.
    #[must_use]
    pub fn recap_grant(&self, ask: RecapAsk) -> Option<Reservation> {
        let totals = self.active.as_ref().map(|active| active.totals);
        let gone = Amount::from(&totals.unwrap_or_default());
        let limits = &self.limits.budget;
        let asked = self.keeping(self.recap_budget(ask));
        let reserved = grant(limits, &gone, asked).ok()?.reserved;
        let cost = asked
            .price
            .map(|price| price.cost(reserved.input, reserved.output));
        let recap = Amount {
            input: reserved.input,
            output: reserved.output,
            cost_micro_usd: cost.unwrap_or(0),
            model_calls: 1,
            ..Amount::default()
        };
        grant(limits, &gone.plus(&recap), self.keeping(self.ask())).ok()?;
        let (session, gone) = (&self.limits.session_budget, Amount::from(&self.totals));
        covers(session, &gone, &recap).ok()?;
        grant(session, &gone.plus(&recap), self.ask()).ok()?;
        Some(reserved)
    }

    /// What a recap call asks of budgets.
    pub(crate) fn recap_budget(&self, ask: RecapAsk) -> Ask {
        let message = ask.message(&self.conversation.turns());
        let bytes = (SYSTEM_PROMPT.len() + message.len()) as u64;
        let output = ask.max_output_tokens();
        Ask {
            input: bytes + MARGIN_PER_PROMPT + MARGIN_PER_MESSAGE,
            output,
            min_output: output,
            price: self.recap_price(),
            ..Ask::default()
        }
    }

    /// What tokens of the model that writes recaps cost at most, where it has a price.
    pub(crate) fn recap_price(&self) -> Option<Price> {
        self.limits.prices.get(self.recap_model()).copied()
    }

    pub(super) fn recap_request(
        &self,
        model: &ModelCall,
        ask: RecapAsk,
        max_output_tokens: u64,
    ) -> ModelRequest {
        let message = ask.message(&self.conversation.turns());
        let turn = Turn::User(Arc::new(vec![Part::Text(message)]));
        let name = self.recap_model().to_owned();
        ModelRequest {
            call: model.call,
            attempt: model.attempt,
            model: name.clone(),
            step: 0,
            agent: Arc::new(Agent {
                model: name,
                system_prompt: SYSTEM_PROMPT.to_owned(),
                ..Agent::default()
            }),
            tools: Arc::default(),
            conversation: Conversation::one(turn),
            max_output_tokens,
            concludes: false,
            note: None,
            recap: true,
        }
    }
}
