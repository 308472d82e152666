//! The page of `/metrics`.

use loopwright_log::Stats;

use super::*;

#[test]
fn the_metrics_page_shows_what_was_counted() {
    let metrics = Metrics::new("test");
    metrics.loop_started();
    metrics.loop_ended("completed");
    metrics.step();
    metrics.model_call("openai", "completed", Duration::from_millis(30));
    metrics.model_tokens(
        "openai",
        "m-1",
        &TokenCounts {
            input: 7,
            ..TokenCounts::default()
        },
    );
    metrics.model_tokens(
        "openai",
        "m-1",
        &TokenCounts {
            cache_read: 21,
            output: 100,
            ..TokenCounts::default()
        },
    );
    metrics.model_cost("openai", "m-1", 1_200);
    metrics.model_cost("openai", "m-1", 34);
    metrics.tool_call("calc__add", "failed", Duration::from_millis(3));
    metrics.tool_lookup("calc__add", "not_known", Duration::from_millis(3));
    metrics.show_log(|| Stats {
        appends: 12,
        syncs: 3,
        ..Stats::default()
    });
    let (kept, dropped) = (metrics.watcher(), metrics.watcher());
    drop(dropped);
    let page = metrics.render();
    for line in [
        "loopwright_loops_started_total 1",
        "loopwright_loops_ended_total{reason=\"completed\"} 1",
        "loopwright_steps_total 1",
        "loopwright_model_calls_total{outcome=\"completed\",provider=\"openai\"} 1",
        "loopwright_model_tokens_total{class=\"input\",model=\"m-1\",provider=\"openai\"} 7",
        "loopwright_model_cache_hit_share{model=\"m-1\",provider=\"openai\"} 0.75",
        "loopwright_model_cost_micro_usd_total{model=\"m-1\",provider=\"openai\"} 1234",
        "loopwright_model_latency_seconds_bucket{provider=\"openai\",le=\"0.05\"} 1",
        "loopwright_tool_calls_total{outcome=\"failed\",tool=\"calc__add\"} 1",
        "loopwright_tool_latency_seconds_count{tool=\"calc__add\"} 1",
        "loopwright_tool_lookups_total{outcome=\"not_known\",tool=\"calc__add\"} 1",
        "loopwright_tool_lookup_latency_seconds_count{tool=\"calc__add\"} 1",
        "loopwright_watchers 1",
        "loopwright_log_appends_total 12",
        "loopwright_log_syncs_total 3",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    drop(kept);
    assert!(
        metrics
            .render()
            .lines()
            .any(|l| l == "loopwright_watchers 0")
    );
}
