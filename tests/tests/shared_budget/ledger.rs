//! The ledger as it lies on disk, read without the server: its arithmetic done again, record by record.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// What a ledger's records add up to.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Limit of the budget's tokens, settled and set aside.
    pub(crate) budgets: BTreeMap<String, Account>,
    holds: BTreeMap<String, (Vec<String>, u64)>,
    /// Reservations and settlements that were seen.
    pub(crate) reserved: usize,
    pub(crate) settled: usize,
    /// Calls that were settled whole: session, call, attempt.
    pub(crate) whole: BTreeSet<(String, String, u32)>,
    pub(crate) records: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) limit: Option<u64>,
    pub(crate) settled: u64,
    pub(crate) held: u64,
}

impl Ledger {
    /// Reads the ledger of the default namespace; no record of it may pass a limit.
    ///
    /// # Errors
    /// Where one does, or a hold is settled twice, or not there.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let mut ledger = Self::default();
        let path = find(dir).context("no ledger on disk")?;
        for line in std::fs::read_to_string(&path)?
            .lines()
            .filter(|line| !line.is_empty())
        {
            let record: Value = serde_json::from_str(line)?;
            ledger.records += 1;
            for event in record["events"].as_array().context("no events")? {
                let (kind, fact) = event
                    .as_object()
                    .and_then(|o| o.iter().next())
                    .context("no kind")?;
                ledger.take(kind, fact)?;
                ledger.check().with_context(|| format!("after {event}"))?;
            }
        }
        Ok(ledger)
    }

    fn take(&mut self, kind: &str, fact: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let tokens = |amount: &Value| {
            amount["input"].as_u64().unwrap_or(0) + amount["output"].as_u64().unwrap_or(0)
        };
        match kind {
            "BudgetCreated" | "LimitsUpdated" => {
                let account = self.budgets.entry(text(&fact["name"])).or_default();
                account.limit = fact["terms"]["limits"]["total_tokens"].as_u64();
            }
            "BudgetReserved" => {
                let names = fact["budgets"].as_array().context("no budgets")?;
                let names: Vec<String> = names.iter().map(text).collect();
                let amount = tokens(&fact["amount"]);
                for name in &names {
                    self.budgets.get_mut(name).context("no budget")?.held += amount;
                }
                let again = self.holds.insert(text(&fact["hold"]), (names, amount));
                ensure!(again.is_none(), "reserved twice: {fact}");
                self.reserved += 1;
            }
            "BudgetSettled" | "BudgetReleased" => {
                let hold = self.holds.remove(&text(&fact["hold"]));
                let (names, held) = hold.with_context(|| format!("settles nothing: {fact}"))?;
                let used = tokens(&fact["amount"]);
                for name in &names {
                    let account = self.budgets.get_mut(name).context("no budget")?;
                    account.held -= held;
                    account.settled += used;
                }
                self.settled += 1;
                if fact["estimated"] == true {
                    ensure!(used == held, "{used} of {held} count: {fact}");
                    self.whole.extend(call_of(&text(&fact["hold"])));
                }
            }
            "BudgetOverrun" => anyhow::bail!("an overrun: {fact}"),
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        for (name, account) in &self.budgets {
            let gone = account.settled + account.held;
            let limit = account.limit.unwrap_or(u64::MAX);
            ensure!(gone <= limit, "{name}: {gone} of {limit} are gone");
        }
        Ok(())
    }

    /// Reservations that nobody settled.
    pub(crate) fn open(&self) -> Vec<&String> {
        self.holds.keys().collect()
    }
}

/// The session, the call and the attempt that a reservation is of.
fn call_of(hold: &str) -> Option<(String, String, u32)> {
    let mut parts = hold.strip_prefix("call/")?.split('/').map(str::to_owned);
    Some((parts.next()?, parts.next()?, parts.next()?.parse().ok()?))
}

fn find(dir: &Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    entries.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return find(&path);
        }
        let is_ledger = path.ends_with("ledger/budgets/log.jsonl");
        is_ledger.then_some(path)
    })
}

#[test]
fn a_record_that_passes_a_limit_is_found() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("default/ledger/budgets");
    std::fs::create_dir_all(&folder)?;
    let created =
        r#"{"events":[{"BudgetCreated":{"name":"b","terms":{"limits":{"total_tokens":10}}}}]}"#;
    let reserved = |id: u32, input: u32| {
        format!(
            r#"{{"events":[{{"BudgetReserved":{{"hold":"h{id}","budgets":["b"],"amount":{{"input":{input}}}}}}}]}}"#
        )
    };
    let write = |lines: &[String]| std::fs::write(folder.join("log.jsonl"), lines.join("\n"));
    write(&[created.to_owned(), reserved(1, 6), reserved(2, 5)])?;
    assert!(Ledger::read(dir.path()).is_err());
    write(&[created.to_owned(), reserved(1, 6), reserved(1, 1)])?;
    assert!(Ledger::read(dir.path()).is_err());
    write(&[created.to_owned(), reserved(1, 6), reserved(2, 4)])?;
    assert_eq!(Ledger::read(dir.path())?.open().len(), 2);
    Ok(())
}
