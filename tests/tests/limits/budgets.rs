//! The budget of a loop: what is reserved, what is clamped, what is settled, and how the loop ends.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    BudgetAmount, BudgetDimension as Dimension, BudgetExceededDetail, BudgetLimits, BudgetScope,
    EndReason, Entry, LoopLimits, ModelCallStarted, OutputBound, StartLoopRequest, event::Kind,
    loop_ended::Detail,
};
use loopwright_tests::scene::{Scene, Stage, ask, end_of, kinds};

const CALL: &str = "tool_calls: [{tool: none__such}]";

fn request(model: &str, budget: BudgetLimits) -> StartLoopRequest {
    let mut request = ask(model);
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(LoopLimits {
            budget: Some(budget),
            ..LoopLimits::default()
        });
    }
    request
}

fn exceeded(entries: &[Entry]) -> Result<BudgetExceededDetail> {
    let end = end_of(entries)?;
    ensure!(end.reason() == EndReason::BudgetExceeded, "{end:?}");
    match &end.detail {
        Some(Detail::BudgetExceeded(detail)) => {
            let budget = detail.budget.clone().context("which budget")?;
            ensure!(budget.scope() == BudgetScope::Loop, "{budget:?}");
            Ok(detail.clone())
        }
        other => anyhow::bail!("{other:?}"),
    }
}

fn calls(entries: &[Entry]) -> Vec<&ModelCallStarted> {
    let started = kinds(entries).filter_map(|kind| match kind {
        Kind::ModelCallStarted(started) => Some(started),
        _ => None,
    });
    started.collect()
}

/// What was reserved for each call, and what it was settled at and whether that is an estimate.
fn books(entries: &[Entry]) -> (Vec<BudgetAmount>, Vec<(BudgetAmount, bool)>) {
    let (mut reserved, mut settled) = (Vec::new(), Vec::new());
    for kind in kinds(entries) {
        match kind {
            Kind::BudgetReserved(one) => reserved.extend(one.amount),
            Kind::BudgetSettled(one) => settled.extend(one.amount.map(|a| (a, one.estimated))),
            _ => {}
        }
    }
    (reserved, settled)
}

fn scene() -> Result<Scene> {
    let forever = |turn: &str| format!("{{at_end: repeat, turns: [{{text: so, {CALL}, {turn}}}]}}");
    let talks = forever("usage: {input: 10, output: 100}");
    let cached = forever("usage: {cache_read: 900000, output: 1}");
    let mute = forever("no_usage: true");
    Stage::new(&[("talks", &talks), ("cached", &cached), ("mute", &mute)])?.start()
}

#[tokio::test]
async fn each_dimension_ends_the_loop_with_what_was_used_and_asked() -> Result<()> {
    let scene = scene()?;
    // Nothing was called: the prompt alone is bounded above the limit.
    let budget = BudgetLimits {
        max_input_tokens: Some(100),
        ..BudgetLimits::default()
    };
    let entries = scene.run(request("talks", budget)).await?;
    let detail = exceeded(&entries)?;
    assert_eq!(detail.dimension(), Dimension::InputTokens);
    assert_eq!((detail.limit, detail.used), (100, 0));
    assert!(detail.requested > 100, "{detail:?}");
    assert!(calls(&entries).is_empty(), "a call was made");

    // One reply of 100 of 150: 50 are left, fewer than the 64 that a call is worth.
    let budget = BudgetLimits {
        max_output_tokens: Some(150),
        ..BudgetLimits::default()
    };
    let entries = scene.run(request("talks", budget)).await?;
    let detail = exceeded(&entries)?;
    assert_eq!(detail.dimension(), Dimension::OutputTokens);
    assert_eq!(
        (detail.limit, detail.used, detail.requested),
        (150, 100, 64)
    );
    let end = end_of(&entries)?;
    assert_eq!(end.result_text, "so", "what was said is kept");

    let budget = BudgetLimits {
        max_model_calls: Some(2),
        ..BudgetLimits::default()
    };
    let entries = scene.run(request("talks", budget)).await?;
    let detail = exceeded(&entries)?;
    assert_eq!(detail.dimension(), Dimension::ModelCalls);
    assert_eq!((detail.limit, detail.used, detail.requested), (2, 2, 1));
    assert_eq!(calls(&entries).len(), 2);
    Ok(())
}

#[tokio::test]
async fn the_output_cap_is_clamped_to_what_is_left_of_the_total() -> Result<()> {
    let scene = scene()?;
    let limit = 2_000;
    let budget = BudgetLimits {
        max_total_tokens: Some(limit),
        ..BudgetLimits::default()
    };
    let entries = scene.run(request("talks", budget)).await?;
    let detail = exceeded(&entries)?;
    assert_eq!(
        (detail.dimension(), detail.limit),
        (Dimension::TotalTokens, limit)
    );
    let (reserved, settled) = books(&entries);
    let calls = calls(&entries);
    ensure!(calls.len() > 1 && reserved.len() == calls.len() && settled.len() == calls.len());
    let mut used = 0;
    for ((call, reserved), (settled, estimated)) in calls.iter().zip(&reserved).zip(&settled) {
        ensure!(call.output_bound() == OutputBound::Budget, "{call:?}");
        ensure!(call.max_output_tokens == reserved.output_tokens, "{call:?}");
        ensure!(
            used + reserved.input_tokens + reserved.output_tokens == limit,
            "{used} used, and {reserved:?} reserved"
        );
        ensure!((settled.input_tokens, settled.output_tokens) == (10, 100) && !estimated);
        used += 110;
    }
    assert_eq!(detail.used, used);
    assert!(detail.used + detail.requested > limit, "{detail:?}");
    // Without a budget the configured cap holds.
    let mut open = ask("talks");
    if let Some(agent) = &mut open.agent {
        agent.limits = Some(LoopLimits {
            max_steps: Some(1),
            ..LoopLimits::default()
        });
    }
    let entries = scene.run(open).await?;
    let call = *self::calls(&entries).first().context("a call")?;
    assert_eq!(
        (call.output_bound(), call.max_output_tokens),
        (OutputBound::Config, 4_096)
    );
    Ok(())
}

#[tokio::test]
async fn without_a_report_a_call_costs_all_that_was_reserved_for_it() -> Result<()> {
    let scene = scene()?;
    let budget = BudgetLimits {
        max_output_tokens: Some(5_000),
        ..BudgetLimits::default()
    };
    let entries = scene.run(request("mute", budget)).await?;
    let (reserved, settled) = books(&entries);
    let whole: Vec<(BudgetAmount, bool)> = reserved.iter().map(|all| (*all, true)).collect();
    assert_eq!(settled, whole);
    let outputs: Vec<u64> = reserved.iter().map(|amount| amount.output_tokens).collect();
    assert_eq!(outputs, [4_096, 904], "the second call gets what is left");
    assert_eq!(exceeded(&entries)?.used, 5_000);
    let usage = end_of(&entries)?.totals.and_then(|totals| totals.usage);
    assert_eq!(usage.context("totals")?.output_tokens, 5_000);
    Ok(())
}

#[tokio::test]
async fn tokens_read_from_a_cache_count() -> Result<()> {
    let scene = scene()?;
    for budget in [
        BudgetLimits {
            max_total_tokens: Some(10_000),
            ..BudgetLimits::default()
        },
        BudgetLimits {
            max_input_tokens: Some(10_000),
            ..BudgetLimits::default()
        },
    ] {
        let entries = scene.run(request("cached", budget)).await?;
        let detail = exceeded(&entries)?;
        ensure!(
            detail.used >= 900_000 && detail.limit == 10_000,
            "{detail:?}"
        );
        assert_eq!(calls(&entries).len(), 1);
        let overrun = kinds(&entries).any(|kind| matches!(kind, Kind::BudgetOverrun(_)));
        ensure!(overrun, "the overrun is told");
    }
    Ok(())
}
