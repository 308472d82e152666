//! The long loop: what a step costs does not grow with what was said before, since the conversation is
//! compacted to its window and only what is new is rendered.
//!
//! One loop of 300 steps in a window of 20,000 tokens; the mock counts a token for four bytes of each
//! request, so that the loop is compacted about as often as arithmetic says. The goal is the overhead of
//! steps 250 to 300 over that of steps 10 to 60 of the same loop. `LOOPWRIGHT_BENCH=full` makes five runs of
//! it instead of three.

use anyhow::{Result, ensure};
use loopwright_tests::bench::{
    Workload,
    goal::{Better, Goal, median},
    program::{self, is_full, say},
    rig::Run,
};

const STEPS: u32 = 300;
const WINDOW: u64 = 20_000;
const EARLY: std::ops::Range<usize> = 10..60;
const LATE: std::ops::Range<usize> = 250..300;

fn main() -> Result<()> {
    program::run(bench)
}

async fn bench() -> Result<()> {
    let runs = if is_full() { 5 } else { 3 };
    let mut rig = program::rig()?;
    let window = WINDOW.to_string();
    let mut loaded = rig.serve(true, &[("context.max_tokens", &window)]).await?;
    let work = Workload {
        result_bytes: 600,
        counted: true,
        ..Workload::new(1, STEPS)
    };
    // The first one warms caches, pools and the allocator.
    rig.load(&mut loaded, work, 1).await?;
    let mut all = Vec::new();
    for _ in 0..runs {
        all.push(rig.load(&mut loaded, work, 1).await?);
    }
    let ratios: Vec<f64> = all.iter().map(growth).collect();
    let goal = Goal {
        number: "19",
        name: "long_loop_overhead_p50_steps_250_300_over_10_60".to_owned(),
        value: median(&ratios),
        must: 1.5,
        aim: 1.0,
        better: Better::Lower,
    };
    say(&goal.to_string())?;
    say("\n  run  p50 10-60 ms  p50 250-300 ms  p50 ms  p99 ms  longest request KiB")?;
    for (number, run) in (1..).zip(&all) {
        let seen = &run.seen;
        let (early, late) = (p50(run, EARLY), p50(run, LATE));
        let longest = seen.longest / 1024;
        say(&format!(
            "  {number:>3} {early:>13.3} {late:>15.3} {:>7.3} {:>7.3} {longest:>20}",
            seen.p50_ms, seen.p99_ms
        ))?;
        // Without compaction the last request would have three times the window.
        ensure!(
            seen.longest <= WINDOW * 4,
            "a request of {} bytes is beyond a window of {WINDOW} tokens",
            seen.longest
        );
    }
    ensure!(goal.is_met(), "the overhead of a step grows with its loop");
    Ok(())
}

fn growth(run: &Run) -> f64 {
    p50(run, LATE) / p50(run, EARLY).max(1e-9)
}

fn p50(run: &Run, steps: std::ops::Range<usize>) -> f64 {
    run.seen.steps_ms.get(steps).map_or(f64::NAN, median)
}
