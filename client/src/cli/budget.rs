//! `loopwright budget create|list|show|set|watch|rm`.
//!
//! Boundary: BudgetService. Invariant: `set` changes what was named and nothing else.

use clap::{Args, Subcommand, ValueEnum};
use loopwright_proto::v1::watch_budget_response::Item;
use loopwright_proto::v1::{
    Budget, BudgetLimits, BudgetPeriod, BudgetPeriodKind, BudgetTerms, CreateBudgetRequest,
    ListBudgetsRequest, OnExhausted, UpdateBudgetRequest,
};
use loopwright_proto::well_known;

use super::{ConnectArgs, Exit, Failure, Terminal, amount};
use crate::render::{budget_lines, token_words};
use crate::{Client, Error};

/// Pages that are read at most; with 500 budgets each, more than a namespace has.
const MAX_PAGES: usize = 100;

/// Budgets that sessions share.
#[derive(Debug, Clone, Subcommand)]
pub enum BudgetCommand {
    /// Create a budget
    Create(SetBudget),
    /// List budgets, by name
    List(ListBudgets),
    /// Show where a budget stands
    Show(NamedBudget),
    /// Change what a budget allows; what is not named stays
    Set(SetBudget),
    /// Show a budget, and each change, until Ctrl-C
    Watch(WatchBudget),
    /// Delete a budget
    Rm(NamedBudget),
}

/// List budgets, by name.
#[derive(Debug, Clone, Args)]
pub struct ListBudgets {
    /// One budget a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// One budget.
#[derive(Debug, Clone, Args)]
pub struct NamedBudget {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Show a budget, and each change.
#[derive(Debug, Clone, Args)]
pub struct WatchBudget {
    /// Its name; without one, all budgets
    #[arg(value_name = "NAME", default_value = "")]
    pub name: String,
    /// One change a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// A budget's terms.
#[derive(Debug, Clone, Args)]
pub struct SetBudget {
    /// Its name; `namespace` is charged with every loop
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The budget that it is a part of
    #[arg(long, value_name = "NAME")]
    pub parent: Option<String>,
    /// Most tokens, read and written: 50000, 50k, 1.5M
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_tokens: Option<u64>,
    /// Most tokens read
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_input_tokens: Option<u64>,
    /// Most tokens written
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_output_tokens: Option<u64>,
    /// Most US dollars: 0.25
    #[arg(long, value_name = "USD", value_parser = amount::money)]
    pub max_cost: Option<u64>,
    /// Most model calls
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_model_calls: Option<u64>,
    /// Most tool calls
    #[arg(long, value_name = "N", value_parser = amount::count)]
    pub max_tool_calls: Option<u64>,
    /// Most time that loops may run, pauses not counted: 90s, 15m, 24h
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds)]
    pub max_wall_time: Option<u64>,
    /// When what was used is forgotten
    #[arg(long, value_name = "WHEN")]
    pub period: Option<PeriodWord>,
    /// For `rolling`: how long a use counts: 90s, 15m, 24h, 30d
    #[arg(long, value_name = "SPAN", value_parser = amount::seconds)]
    pub window: Option<u64>,
    /// What a loop does when the budget does not cover its next call
    #[arg(long, value_name = "WHAT")]
    pub on_exhausted: Option<ExhaustedWord>,
    /// The share of a limit at which a warning is written
    #[arg(long, value_name = "SHARE")]
    pub warn_at: Option<f64>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// When what was used is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeriodWord {
    /// Never
    None,
    /// At midnight, UTC
    Day,
    /// On the first of a month, UTC
    Month,
    /// Each use once it is as old as --window
    Rolling,
}

/// What a loop does when a budget does not cover its next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExhaustedWord {
    /// It ends
    End,
    /// It waits until the budget is raised or begins anew
    Pause,
}

impl ExhaustedWord {
    pub(super) fn to_wire(self) -> OnExhausted {
        match self {
            Self::End => OnExhausted::End,
            Self::Pause => OnExhausted::Pause,
        }
    }
}

impl BudgetCommand {
    /// Which server the command is for.
    pub(super) fn connect(&self) -> &ConnectArgs {
        match self {
            Self::Create(set) | Self::Set(set) => &set.connect,
            Self::List(list) => &list.connect,
            Self::Show(named) | Self::Rm(named) => &named.connect,
            Self::Watch(watch) => &watch.connect,
        }
    }

    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        match self {
            Self::Create(set) => {
                let terms = Some(set.over(BudgetTerms::default()));
                let name = set.name.clone();
                let budget = client
                    .create_budget(CreateBudgetRequest { name, terms })
                    .await?;
                show(&budget, set.json, terminal)?;
            }
            Self::Set(set) => {
                let known = client.get_budget(&set.name).await?;
                let terms = Some(set.over(known.terms.unwrap_or_default()));
                let name = set.name.clone();
                let budget = client
                    .update_budget(UpdateBudgetRequest { name, terms })
                    .await?;
                show(&budget, set.json, terminal)?;
            }
            Self::Show(named) => {
                show(&client.get_budget(&named.name).await?, named.json, terminal)?;
            }
            Self::Rm(named) => {
                client.delete_budget(&named.name).await?;
                terminal.note(&format!("deleted {}", named.name))?;
            }
            Self::List(list) => list.execute(client, terminal).await?,
            Self::Watch(watch) => return watch.execute(client, terminal).await,
        }
        Ok(Exit::Completed)
    }
}

impl ListBudgets {
    async fn execute(&self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut page_token = String::new();
        let mut any = false;
        for _ in 0..MAX_PAGES {
            let request = ListBudgetsRequest {
                page_size: 500,
                page_token,
            };
            let page = client.list_budgets(request).await?;
            any |= !page.budgets.is_empty();
            for budget in &page.budgets {
                show(budget, self.json, terminal)?;
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        if !any && !self.json {
            terminal.note(
                "no budgets; `loopwright budget create team --max-tokens 1M --period day` makes one",
            )?;
        }
        Ok(())
    }
}

impl WatchBudget {
    async fn execute(&self, client: &Client, terminal: &mut Terminal) -> Result<Exit, Failure> {
        let url = client.options().url.clone();
        let mut items = client.watch_budget(&self.name).await?;
        loop {
            let item = tokio::select! {
                item = items.message() => item.map_err(|status| Error::from_status(&status, &url))?,
                () = terminal.interrupted() => return Ok(Exit::Cancelled),
            };
            let Some(item) = item else {
                return Ok(Exit::Completed);
            };
            if self.json {
                terminal.json(&item)?;
                continue;
            }
            match item.item {
                Some(Item::Budget(budget)) => show(&budget, false, terminal)?,
                Some(Item::Deleted(name)) => terminal.line(&format!("{name}  deleted"))?,
                Some(Item::Warning(warning)) => {
                    let name = warning.budget.clone().unwrap_or_default().name;
                    let dimension = dimension_word(warning.dimension().as_str_name());
                    let (used, limit) = (token_words(warning.used), token_words(warning.limit));
                    terminal.line(&format!("{name}  warning: {dimension} {used} of {limit}"))?;
                }
                Some(Item::Overrun(over)) => {
                    let whose = match over.call.as_str() {
                        "" => over.reservation_id.clone(),
                        call => format!("{} {call}", over.session_id),
                    };
                    let dimension = dimension_word(over.dimension().as_str_name());
                    let (used, reserved) = (token_words(over.used), token_words(over.reserved));
                    terminal.line(&format!(
                        "{}  overrun by {whose}: {dimension} {used}, {reserved} were set aside",
                        over.budgets.join(", ")
                    ))?;
                }
                Some(Item::Goodbye(_)) => terminal.note("the server is shutting down")?,
                Some(Item::Heartbeat(_)) | None => {}
            }
        }
    }
}

impl SetBudget {
    /// These terms with what the command line names.
    fn over(&self, terms: BudgetTerms) -> BudgetTerms {
        let known = terms.limits.unwrap_or_default();
        let on_exhausted = self
            .on_exhausted
            .map_or(known.on_exhausted(), ExhaustedWord::to_wire);
        let limits = BudgetLimits {
            max_input_tokens: self.max_input_tokens.or(known.max_input_tokens),
            max_output_tokens: self.max_output_tokens.or(known.max_output_tokens),
            max_total_tokens: self.max_tokens.or(known.max_total_tokens),
            max_cost_micro_usd: self.max_cost.or(known.max_cost_micro_usd),
            max_model_calls: self.max_model_calls.or(known.max_model_calls),
            max_tool_calls: self.max_tool_calls.or(known.max_tool_calls),
            max_wall_time: self.max_wall_time.map(span).or(known.max_wall_time),
            warn_at: self.warn_at.or(known.warn_at),
            on_exhausted: on_exhausted.into(),
            ..known
        };
        BudgetTerms {
            parent: self.parent.clone().unwrap_or(terms.parent),
            limits: Some(limits),
            period: self.period(terms.period),
        }
    }

    fn period(&self, known: Option<BudgetPeriod>) -> Option<BudgetPeriod> {
        let kind = match self.period {
            Some(PeriodWord::None) => BudgetPeriodKind::None,
            Some(PeriodWord::Day) => BudgetPeriodKind::Day,
            Some(PeriodWord::Month) => BudgetPeriodKind::Month,
            Some(PeriodWord::Rolling) => BudgetPeriodKind::Rolling,
            None if self.window.is_some() => BudgetPeriodKind::Rolling,
            None => return known,
        };
        let window = self.window.map(span);
        let kept = known
            .filter(|known| known.kind() == kind)
            .and_then(|known| known.window);
        Some(BudgetPeriod {
            kind: kind.into(),
            window: window.or(kept),
        })
    }
}

pub(super) fn span(seconds: u64) -> well_known::Duration {
    well_known::Duration {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

fn show(budget: &Budget, json: bool, terminal: &mut Terminal) -> Result<(), Failure> {
    if json {
        return Ok(terminal.json(budget)?);
    }
    for line in budget_lines(budget) {
        terminal.line(&line)?;
    }
    Ok(())
}

fn dimension_word(name: &str) -> String {
    let word = name.strip_prefix("BUDGET_DIMENSION_").unwrap_or(name);
    word.to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use clap::Parser;

    use super::*;
    use crate::render::cost_words;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        set: SetBudget,
    }

    fn parse(words: &str) -> SetBudget {
        Line::parse_from(words.split(' ')).set
    }

    #[test]
    fn set_changes_what_is_named_and_nothing_else() {
        let made = parse("x team --max-tokens 1M --window 24h --on-exhausted pause");
        let terms = made.over(BudgetTerms::default());
        let limits = terms.limits.unwrap();
        assert_eq!(limits.max_total_tokens, Some(1_000_000));
        assert_eq!(limits.on_exhausted(), OnExhausted::Pause);
        let period = terms.period.unwrap();
        assert_eq!(period.kind(), BudgetPeriodKind::Rolling);
        assert_eq!(period.window.unwrap().seconds, 86_400);

        let more = parse("x team --max-tool-calls 2k --max-wall-time 15m").over(terms.clone());
        let more = more.limits.unwrap();
        assert_eq!(more.max_tool_calls, Some(2_000));
        assert_eq!(more.max_wall_time.map(|span| span.seconds), Some(900));

        let changed = parse("x team --max-cost 0.25").over(terms.clone());
        assert_eq!(changed.period, terms.period);
        let money = changed.limits.unwrap();
        assert_eq!(money.max_cost_micro_usd, Some(250_000));
        assert_eq!(
            BudgetLimits {
                max_cost_micro_usd: None,
                ..money
            },
            limits,
            "everything else stays"
        );
        let daily = parse("x team --period day").over(changed).period.unwrap();
        assert_eq!((daily.kind(), daily.window), (BudgetPeriodKind::Day, None));
    }

    #[test]
    fn a_cost_is_in_dollars() {
        assert_eq!(
            cost_words(parse("x team --max-cost $2.5").max_cost.unwrap()),
            "$2.5000"
        );
    }
}
