//! What is said of the two runs: where they part, and what each cost.

use loopwright_client::render::{cost_words, table, token_words};
use loopwright_core::usage::Totals;
use serde_json::{Value, json};

use super::{
    machine::{Machine, Stopped},
    trail::{Asked, Did, Parting, Trail},
};
use crate::effects::model::ModelFacts;

/// Characters of arguments that are shown.
const MAX_ARGUMENTS: usize = 120;

pub(super) struct Report<'a> {
    name: &'a str,
    model: &'a str,
    has_price: bool,
    recorded: &'a Trail,
    now: &'a Trail,
    parting: Option<Parting>,
    stopped: Option<&'a Stopped>,
    failed: Option<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        name: &'a str,
        facts: &'a ModelFacts,
        recorded: &'a Trail,
        machine: &'a Machine<'_>,
    ) -> Self {
        Self {
            name,
            model: &facts.name,
            has_price: facts.price.is_some(),
            recorded,
            now: &machine.trail,
            parting: recorded.parting(&machine.trail),
            stopped: machine.stopped(),
            failed: machine.failed().map(|failure| failure.message.clone()),
        }
    }

    /// For a person.
    pub(super) fn lines(&self) -> Vec<String> {
        let steps = self.now.steps.len();
        let calls = if steps == 1 {
            "model call"
        } else {
            "model calls"
        };
        let mut lines = vec![format!(
            "{}: run again with {} ({steps} {calls}, no tool was called)",
            self.name, self.model
        )];
        match &self.parting {
            None => lines.push(self.alike()),
            Some(parting) => {
                let Parting { of, step, .. } = parting;
                lines.push(format!("  they part at {of} step {step}:"));
                lines.push(format!("    recorded  {}", did_words(&parting.recorded)));
                lines.push(format!("    now       {}", did_words(&parting.now)));
            }
        }
        match self.stopped {
            Some(Stopped::NotRecorded { call, asked }) => lines.push(format!(
                "  it ends there: {call} {} was not recorded{}",
                asked_words(asked),
                self.where_it_stands()
            )),
            Some(Stopped::LoopOver(of)) => lines.push(format!(
                "  it ends there: what was said next belongs to a {of} that went on"
            )),
            None => {}
        }
        if let Some(failed) = &self.failed {
            lines.push(format!("  the model could not be called: {failed}"));
        }
        lines.push(String::new());
        lines.extend(self.costs().into_iter().map(|line| format!("  {line}")));
        lines
    }

    fn alike(&self) -> String {
        let texts = |trail: &Trail| -> Vec<String> {
            trail.ends.iter().map(|end| end.text.clone()).collect()
        };
        let words = if texts(self.recorded) == texts(self.now) {
            "and said the same in the end"
        } else {
            "and said something else in the end"
        };
        format!("  they do not part: it asked for the same tools at every step, {words}")
    }

    fn where_it_stands(&self) -> String {
        match (self.now.steps.last(), &self.parting) {
            (Some(last), Some(parting)) if (last.of, last.number) != (parting.of, parting.step) => {
                format!(" (asked for at {} step {})", last.of, last.number)
            }
            _ => String::new(),
        }
    }

    /// What each used: up to where they part, and in all.
    fn costs(&self) -> Vec<String> {
        const HEAD: [&str; 7] = [
            "",
            "STEPS",
            "INPUT",
            "CACHE WRITE",
            "CACHE READ",
            "OUTPUT",
            "COST",
        ];
        let recorded = match self.recorded.models.as_slice() {
            [] => "recorded".to_owned(),
            models => format!("recorded, {}", models.join(" + ")),
        };
        let now = format!("now, {}", self.model);
        let mut rows = Vec::new();
        if let Some(Parting { of, step, .. }) = self.parting {
            for (name, trail) in [(&recorded, self.recorded), (&now, self.now)] {
                let steps = trail.steps.iter();
                let steps = steps.filter(|at| (at.of, at.number) <= (of, step)).count();
                let spent = trail.spent_through(of, step);
                rows.push(self.row(format!("{name}, to there"), steps, &spent, trail));
            }
        }
        for (name, trail) in [(&recorded, self.recorded), (&now, self.now)] {
            let name = format!("{name}, in all");
            rows.push(self.row(name, trail.steps.len(), &trail.spent, trail));
        }
        table(&HEAD, &rows)
    }

    fn row(&self, name: String, steps: usize, spent: &Totals, trail: &Trail) -> Vec<String> {
        let usage = &spent.usage;
        vec![
            name,
            steps.to_string(),
            token_words(usage.input),
            token_words(usage.cache_write),
            token_words(usage.cache_read),
            token_words(usage.output),
            match self.cost(spent, trail) {
                Some(cost) => cost_words(cost),
                None => "no price".to_owned(),
            },
        ]
    }

    /// Money; the recording does not say of a model whether it had a price, but one that cost nothing
    /// had none.
    fn cost(&self, spent: &Totals, trail: &Trail) -> Option<u64> {
        let is_now = std::ptr::eq(trail, self.now);
        let known = if is_now {
            self.has_price
        } else {
            spent.cost_micro_usd > 0
        };
        (known || spent.usage.total() == 0).then_some(spent.cost_micro_usd)
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        let parted = self.parting.as_ref().map(|parting| {
            json!({
                "loop": parting.of, "step": parting.step,
                "recorded": parting.recorded, "now": parting.now,
                "recorded_used": self.used(&self.recorded.spent_through(parting.of, parting.step), self.recorded),
                "now_used": self.used(&self.now.spent_through(parting.of, parting.step), self.now),
            })
        });
        let not_recorded = match self.stopped {
            Some(Stopped::NotRecorded { call, asked }) => {
                json!({ "call": call, "tool": asked.tool, "arguments": asked.arguments })
            }
            Some(Stopped::LoopOver(_)) | None => Value::Null,
        };
        json!({
            "source": self.name, "model": self.model, "parted": parted,
            "not_recorded": not_recorded, "failed": self.failed,
            "recorded": self.whole(self.recorded), "now": self.whole(self.now),
        })
        .to_string()
    }

    fn whole(&self, trail: &Trail) -> Value {
        let ends = trail.ends.iter();
        let ends =
            ends.map(|end| json!({ "loop": end.of, "reason": end.reason, "text": end.text }));
        json!({
            "models": trail.models, "steps": trail.steps.len(),
            "ends": ends.collect::<Vec<_>>(), "used": self.used(&trail.spent, trail),
        })
    }

    fn used(&self, spent: &Totals, trail: &Trail) -> Value {
        let usage = &spent.usage;
        json!({
            "input_tokens": usage.input, "cache_write_tokens": usage.cache_write,
            "cache_read_tokens": usage.cache_read, "output_tokens": usage.output,
            "cost_micro_usd": self.cost(spent, trail),
        })
    }
}

fn did_words(did: &Did) -> String {
    match did {
        Did::AskedFor(all) => {
            let all: Vec<String> = all.iter().map(asked_words).collect();
            format!("asked for {}", all.join(", "))
        }
        Did::Answered => "answered, and asked for no tool".to_owned(),
        Did::Ended(words) => format!("had ended: {words}"),
        Did::Nothing => "did not come so far".to_owned(),
    }
}

fn asked_words(asked: &Asked) -> String {
    let arguments = asked.arguments.to_string();
    let mut cut: String = arguments.chars().take(MAX_ARGUMENTS).collect();
    if cut.len() < arguments.len() {
        cut.push_str("..");
    }
    format!("{}{cut}", asked.tool)
}
