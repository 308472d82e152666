//! What a model call is asked: a view of the state, rendered by a provider when the call starts.

mod recap;

use std::sync::Arc;

use crate::{
    agent::{Agent, BudgetLimits, ToolSet},
    budget::{
        Amount, Ask, Bound, Dimension, Grant, HoldBack, LOOP_BUDGET, Price, SESSION_BUDGET,
        Shortfall, TOOL_CALLS_AT_ONCE, grant,
    },
    ids::{Attempt, CallId, Epoch, Timestamp},
    ledger::OnExhausted,
    message::CallPart,
    outcome::EndReason,
    state::{Conversation, ModelPhase, State, ToolPhase},
};

mod left;

/// One request to a model. Cheap to make: everything in it is shared with the state.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRequest {
    /// The call.
    pub call: CallId,
    /// Its attempt.
    pub attempt: Attempt,
    /// The model, an alias or `provider/id`.
    pub model: String,
    /// Which step of its loop it is, from 1.
    pub step: u32,
    /// System prompt, sampling and the rest.
    pub agent: Arc<Agent>,
    /// The tools on offer, ordered by name.
    pub tools: Arc<ToolSet>,
    /// What was said, oldest first.
    pub conversation: Conversation,
    /// Output cap, tokens.
    pub max_output_tokens: u64,
    /// Whether it is the loop's last, in which no tool may be called.
    pub concludes: bool,
    /// What the model is told behind all that was said, in this call alone.
    pub note: Option<String>,
    /// Whether it asks for a recap: what it says is shown to nobody as the model's word.
    pub recap: bool,
}

/// One request to a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolRequest {
    /// The call; with the session it is the key, stable over attempts.
    pub call: CallId,
    /// Its attempt.
    pub attempt: Attempt,
    /// Generation of the driver that dispatches it.
    pub epoch: Epoch,
    /// What the model asked for: the tool's name on its wire, and the arguments.
    pub part: CallPart,
    /// When its first attempt started.
    pub first_at: Timestamp,
    /// The instance of its sidecar that every attempt was meant for that may have run; empty where that
    /// is not known, or where there was more than one.
    pub sidecar_instance: Arc<str>,
    /// Whether the model can read its whole result back by the call's id, where it is told less.
    pub reads_output: bool,
}

impl ToolRequest {
    /// The instance of its sidecar that it is meant for, where one is known.
    #[must_use]
    pub fn instance(&self) -> Option<String> {
        (!self.sidecar_instance.is_empty()).then(|| (*self.sidecar_instance).to_owned())
    }
}

impl ModelRequest {
    /// Whether tools must be called: `auto`, `none`, `required` or a tool's name. What the agent
    /// forces it forces in the first step alone: a loop could not end otherwise. In a loop's last
    /// call none may be called; what is on offer stays, so that the prefix does.
    #[must_use]
    pub fn tool_choice(&self) -> Option<&str> {
        if self.concludes {
            return Some("none");
        }
        match self.agent.tool_choice.as_deref() {
            Some("auto" | "none") | None => self.agent.tool_choice.as_deref(),
            Some(forced) => Some(if self.step <= 1 { forced } else { "auto" }),
        }
    }
}

impl State {
    /// The request of the model call that is licensed to run.
    #[must_use]
    pub fn model_request(&self) -> Option<ModelRequest> {
        let active = self.active.as_ref()?;
        let model = active.model.as_ref()?;
        let ModelPhase::Running {
            max_output_tokens, ..
        } = model.phase
        else {
            return None;
        };
        if let Some(ask) = model.recap {
            return Some(self.recap_request(model, ask, max_output_tokens));
        }
        Some(ModelRequest {
            call: model.call,
            attempt: model.attempt,
            model: self.model_name(active.model_index).to_owned(),
            step: active.totals.steps,
            agent: Arc::clone(&self.agent),
            tools: Arc::clone(&self.tools),
            conversation: self.conversation.clone(),
            max_output_tokens,
            concludes: self.concludes(),
            note: left::note(self),
            recap: false,
        })
    }

    /// The request of a tool call that is licensed to run.
    #[must_use]
    pub fn tool_request(&self, call: CallId) -> Option<ToolRequest> {
        let active = self.active.as_ref()?;
        let tool = active.tool(call)?;
        let dispatched = matches!(tool.phase, ToolPhase::Running | ToolPhase::InDoubt { .. });
        Some(ToolRequest {
            call,
            attempt: tool.attempt,
            epoch: self.epoch,
            part: active.call_part(tool.index).filter(|_| dispatched)?.clone(),
            first_at: tool.first_at?,
            sidecar_instance: Arc::clone(&tool.sidecar_instance),
            reads_output: self.tools.reads_output(),
        })
    }

    /// What the model call that is reserving asks of named budgets.
    #[must_use]
    pub fn budget_request(&self) -> Option<Ask> {
        let model = self.active.as_ref()?.model.as_ref()?;
        let reserving = model.phase == ModelPhase::Reserving;
        let ask = match model.recap {
            Some(ask) => self.recap_budget(ask),
            None => self.ask_of_shared(self.own_grant().ok()?.reserved.output),
        };
        // What is left is said to the loop's own model alone.
        let tells = self.limits.tell_budget && model.recap.is_none();
        reserving.then_some(Ask {
            keep: self.held_back(),
            tells,
            ..ask
        })
    }

    /// A call of the loop's own model, of so much output. What was too little for the last reply is too
    /// little to go on with; the last call of all takes what there is.
    fn ask_of_shared(&self, output: u64) -> Ask {
        let ask = self.ask();
        let cut_at = self.active.as_ref().and_then(|active| active.cut_at);
        let cut_at = cut_at.filter(|_| !self.concludes());
        let more = cut_at.map_or(0, |cap| cap.saturating_add(1).min(output));
        Ask {
            output,
            min_output: ask.min_output.max(more),
            ..ask
        }
    }

    /// What the loop's own limits and the session's allow its next model call.
    ///
    /// # Errors
    /// `EndReason::BudgetExceeded`, where they do not.
    pub fn own_grant(&self) -> Result<Grant, EndReason> {
        let (limits, ask) = (&self.limits, self.ask());
        let totals = self.active.as_ref().map(|active| active.totals);
        let gone = Amount::from(&totals.unwrap_or_default());
        let own = grant(&limits.budget, &gone, self.keeping(ask));
        let own = own.map_err(|short| short.of(LOOP_BUDGET))?;
        if limits.session_budget.is_open() {
            return Ok(own);
        }
        let gone = Amount::from(&self.totals);
        let session = grant(&limits.session_budget, &gone, ask);
        let session = session.map_err(|short| short.of(SESSION_BUDGET))?;
        if session.reserved.output >= own.reserved.output {
            return Ok(own);
        }
        let bound = match session.bound {
            Bound::Budget(dimension) => Bound::SessionBudget(dimension),
            Bound::Configured | Bound::Requested | Bound::NamedBudget | Bound::SessionBudget(_) => {
                session.bound
            }
        };
        Ok(Grant { bound, ..session })
    }

    /// Why the loop's own limits allow no further tool call, with so many of them besides those
    /// that were dispatched; none where they do.
    #[must_use]
    pub fn tool_shortfall_after(&self, more: u64) -> Option<(&'static str, Shortfall)> {
        let totals = self.active.as_ref().map(|active| active.totals);
        let of = |budget, limits: &BudgetLimits, used: u64| {
            let used = used.saturating_add(more);
            let limit = limits.tool_calls.filter(|&limit| used >= limit)?;
            let short = Shortfall {
                dimension: Dimension::ToolCalls,
                limit,
                used,
                requested: 1,
            };
            Some((budget, short))
        };
        let limits = &self.limits;
        let loops = totals.unwrap_or_default().tool_calls;
        let session = self.totals.tool_calls;
        of(LOOP_BUDGET, &limits.budget, loops)
            .or_else(|| of(SESSION_BUDGET, &limits.session_budget, session))
    }

    /// The most tokens that a prompt takes beside what was said: the note on the budget.
    pub(crate) fn note_bound(&self) -> u64 {
        left::bound(self)
    }

    /// Whether the loop's next or running model call is its last.
    #[must_use]
    pub fn concludes(&self) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| active.landing.is_some())
    }

    /// What no call but the last one may use; none where that is the next one, or none is made.
    fn held_back(&self) -> Option<HoldBack> {
        let tokens = self.limits.final_call_tokens;
        Some(HoldBack {
            tokens: tokens.filter(|_| !self.concludes())?,
            max_output: self.limits.max_output_tokens,
            price: self.price(),
        })
    }

    /// The same call, which leaves of the loop's own budget what is held back. A loop that waits at its
    /// limits makes no last call.
    fn keeping(&self, ask: Ask) -> Ask {
        let ends = self.limits.on_exhausted == OnExhausted::End;
        let keep = self.held_back().filter(|_| ends);
        Ask { keep, ..ask }
    }

    /// What tokens of the model that is called cost at most, where it has a price.
    #[must_use]
    pub fn price(&self) -> Option<Price> {
        let index = self.active.as_ref().map_or(0, |active| active.model_index);
        self.limits.prices.get(self.model_name(index)).copied()
    }

    fn ask(&self) -> Ask {
        Ask {
            input: self.prompt_bound(),
            output: self.limits.max_output_tokens,
            min_output: self.limits.min_output_tokens,
            price: self.price(),
            tool_calls: if self.tools.is_empty() || self.concludes() {
                0
            } else {
                TOOL_CALLS_AT_ONCE
            },
            ..Ask::default()
        }
    }

    /// The agent's model (0) or one of its fallbacks (from 1).
    #[must_use]
    pub fn model_name(&self, index: u32) -> &str {
        let fallback = (index as usize)
            .checked_sub(1)
            .and_then(|i| self.agent.fallbacks.get(i));
        fallback.unwrap_or(&self.agent.model)
    }
}

#[cfg(test)]
mod tests;
