//! The budget bench: goal 18 of the project's performance page.
//!
//! `cargo bench -p loopwright-tests --bench budget` takes the smoke size, which ends within a minute;
//! `LOOPWRIGHT_BENCH=full` more runs. Loops under one shared budget, which all of them reserve on before
//! each model call, are held against the same loops without, in turns on one server.

use anyhow::{Result, ensure};
use loopwright_proto::v1::{BudgetLimits, BudgetTerms, CreateBudgetRequest};
use loopwright_tests::bench::{
    Workload,
    goal::{Better, Goal, median},
    program::{self, is_full, say},
    rig::{Loaded, Rig, Run},
};

/// The budget: more than any run uses, so that it grants whatever is asked.
const POOL: &str = "pool";
const TOKENS: u64 = 1_000_000_000_000;

fn main() -> Result<()> {
    program::run(bench)
}

/// One run, and what a group commit took in it.
struct Timed {
    run: Run,
    commit_ms: f64,
}

async fn bench() -> Result<()> {
    let runs = if is_full() { 7 } else { 3 };
    let mut rig = program::rig()?;
    let mut loaded = rig.serve(true, &[]).await?;
    create(&loaded).await?;
    let work = Workload::new(100, 20);
    let (mut plain, mut charged) = (Vec::new(), Vec::new());
    // The first of each is not counted: connections, caches, the allocator.
    for number in 0..=runs {
        for (budgets, timed) in [(&[][..], &mut plain), (&[POOL][..], &mut charged)] {
            rig.charge(budgets);
            let one = timed_run(&mut rig, &mut loaded, work).await?;
            if number > 0 {
                timed.push(one);
            }
        }
    }
    settled(&loaded, work, runs + 1).await?;
    show(&plain, &charged)
}

/// The budget that all charged loops share.
async fn create(loaded: &Loaded) -> Result<()> {
    let limits = BudgetLimits {
        max_total_tokens: Some(TOKENS),
        ..BudgetLimits::default()
    };
    let terms = Some(BudgetTerms {
        limits: Some(limits),
        ..BudgetTerms::default()
    });
    let name = POOL.to_owned();
    let request = CreateBudgetRequest { name, terms };
    loaded.client().create_budget(request).await?;
    Ok(())
}

async fn timed_run(rig: &mut Rig, loaded: &mut Loaded, work: Workload) -> Result<Timed> {
    let before = loaded.counters().await?.1;
    let run = rig.load(loaded, work, 1).await?;
    let syncs = (loaded.counters().await?.1 - before).max(1.0);
    let commit_ms = run.seen.seconds * 1_000.0 / syncs;
    Ok(Timed { run, commit_ms })
}

/// The bench measured what it says: every call of every charged run went through the ledger.
async fn settled(loaded: &Loaded, work: Workload, runs: u32) -> Result<()> {
    let expected = u64::from(work.loops * (work.steps + 1) * runs);
    loop {
        let pool = loaded.client().get_budget(POOL).await?;
        let calls = pool.settled.unwrap_or_default().model_calls;
        ensure!(calls <= expected, "{calls} model calls, not {expected}");
        if pool.open_reservations == 0 && calls == expected {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn show(plain: &[Timed], charged: &[Timed]) -> Result<()> {
    let of = |timed: &[Timed], figure: fn(&Timed) -> f64| {
        median(&timed.iter().map(figure).collect::<Vec<_>>())
    };
    let speed = |timed: &[Timed]| of(timed, |one| one.run.steps_per_second);
    let p50 = |timed: &[Timed]| of(timed, |one| one.run.seen.p50_ms);
    let commit_ms = of(plain, |one| one.commit_ms);
    let goals = [
        Goal {
            number: "18",
            name: "budget_steps_per_second_w100x20".to_owned(),
            value: speed(charged) / speed(plain).max(1e-9),
            must: 0.7,
            aim: 0.9,
            better: Better::Higher,
        },
        Goal {
            number: "18",
            name: "budget_added_p50_in_group_commits_w100x20".to_owned(),
            value: (p50(charged) - p50(plain)) / commit_ms.max(1e-9),
            must: 2.0,
            aim: 1.0,
            better: Better::Lower,
        },
    ];
    for goal in &goals {
        say(&goal.to_string())?;
    }
    say("\n  what                   p50 ms   p99 ms  steps/s  CPU ms/step  commit ms")?;
    for (name, timed) in [("without a budget", plain), ("under one budget", charged)] {
        let p99 = of(timed, |one| one.run.seen.p99_ms);
        let cpu = of(timed, |one| one.run.cpu_ms_per_step);
        let commit = of(timed, |one| one.commit_ms);
        say(&format!(
            "  {name:<20} {:>8.3} {p99:>8.3} {:>8.0} {cpu:>12.4} {commit:>10.3}",
            p50(timed),
            speed(timed)
        ))?;
    }
    Ok(())
}
