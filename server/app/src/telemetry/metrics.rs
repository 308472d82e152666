//! The counters behind `/metrics`.
//!
//! Boundary: counts what it is told and writes it down for Prometheus; each instance has a registry
//! of its own. Invariant: labels are few: names of models and tools, and fixed words; the SDK folds
//! what goes beyond 2,000 combinations into one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use loopwright_log::Stats;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider, UpDownCounter};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

/// Tokens by class; none is part of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Uncached input.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Input written to the prompt cache.
    pub cache_write: u64,
    /// Input read from the prompt cache.
    pub cache_read: u64,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    // The readers stop when their provider goes.
    _provider: SdkMeterProvider,
    meter: Meter,
    loops_started: Counter<u64>,
    loops_ended: Counter<u64>,
    steps: Counter<u64>,
    model_calls: Counter<u64>,
    model_tokens: Counter<u64>,
    model_cost: Counter<u64>,
    prompts: Arc<Mutex<Prompts>>,
    model_latency: Histogram<f64>,
    tool_calls: Counter<u64>,
    tool_latency: Histogram<f64>,
    tool_lookups: Counter<u64>,
    tool_lookup_latency: Histogram<f64>,
    drivers: UpDownCounter<i64>,
    drivers_lost: Counter<u64>,
    watchers: UpDownCounter<i64>,
    sidecars: UpDownCounter<i64>,
}

/// One of something that is there now; it is counted until it is dropped.
#[derive(Debug)]
#[must_use = "it is counted until it is dropped"]
pub struct Tally(UpDownCounter<i64>);

/// What models read since the start, by provider and model: from the cache, and in all.
type Prompts = BTreeMap<(&'static str, String), (u64, u64)>;

/// Models whose share is shown; those that come later are not.
const MAX_SHARES: usize = 1_000;

/// Seconds, from a call on loopback to the longest of answers.
const LATENCY_BOUNDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0,
];

impl Metrics {
    /// New counters, all at zero.
    #[must_use]
    pub fn new(service_name: &str) -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .expect("a new registry has no collector to clash with");
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(super::resource(service_name))
            .build();
        let meter = provider.meter("loopwright");
        let counter = |name, about| meter.u64_counter(name).with_description(about).build();
        let gauge = |name, about| {
            meter
                .i64_up_down_counter(name)
                .with_description(about)
                .build()
        };
        let seconds = |name, about| {
            let histogram = meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(about);
            histogram.with_boundaries(LATENCY_BOUNDS.to_vec()).build()
        };
        let prompts = Arc::new(Mutex::default());
        show_cache_hits(&meter, Arc::clone(&prompts));
        Self {
            loops_started: counter("loopwright.loops.started", "Loops started"),
            loops_ended: counter("loopwright.loops.ended", "Loops ended, by reason"),
            steps: counter("loopwright.steps", "Steps begun"),
            model_calls: counter(
                "loopwright.model.calls",
                "Attempts of model calls, by outcome",
            ),
            model_tokens: counter("loopwright.model.tokens", "Tokens used, by class"),
            model_cost: counter(
                "loopwright.model.cost_micro_usd",
                "What model calls cost, in millionths of a US dollar, where the model has a price",
            ),
            prompts,
            model_latency: seconds(
                "loopwright.model.latency",
                "Attempts of model calls, in seconds",
            ),
            tool_calls: counter(
                "loopwright.tool.calls",
                "Attempts of tool calls, by outcome",
            ),
            tool_latency: seconds(
                "loopwright.tool.latency",
                "Attempts of tool calls, in seconds",
            ),
            tool_lookups: counter("loopwright.tool.lookups", "Lookups of calls in doubt"),
            tool_lookup_latency: seconds("loopwright.tool.lookup.latency", "Lookups, in seconds"),
            drivers: gauge("loopwright.drivers", "Sessions driven now"),
            drivers_lost: counter("loopwright.drivers.lost", "Drivers lost, by cause"),
            watchers: gauge("loopwright.watchers", "Watch streams open now"),
            sidecars: gauge("loopwright.sidecars", "Sidecars registered now"),
            meter,
            _provider: provider,
            registry,
        }
    }

    /// A loop was started.
    pub fn loop_started(&self) {
        self.loops_started.add(1, &[]);
    }

    /// A loop ended; `reason` is its end's label.
    pub fn loop_ended(&self, reason: &'static str) {
        self.loops_ended.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A step began.
    pub fn step(&self) {
        self.steps.add(1, &[]);
    }

    /// One attempt of a model call came to an end; `outcome` is `completed`, `aborted`, or the kind
    /// of its failure.
    pub fn model_call(&self, provider: &'static str, outcome: &str, took: Duration) {
        let provider = KeyValue::new("provider", provider);
        self.model_latency
            .record(took.as_secs_f64(), std::slice::from_ref(&provider));
        self.model_calls
            .add(1, &[provider, KeyValue::new("outcome", outcome.to_owned())]);
    }

    /// A model call reported what it used.
    pub fn model_tokens(&self, provider: &'static str, model: &str, tokens: &TokenCounts) {
        let classes = [
            ("input", tokens.input),
            ("output", tokens.output),
            ("cache_write", tokens.cache_write),
            ("cache_read", tokens.cache_read),
        ];
        for (class, count) in classes.into_iter().filter(|(_, count)| *count > 0) {
            let labels = [
                KeyValue::new("provider", provider),
                KeyValue::new("model", model.to_owned()),
                KeyValue::new("class", class),
            ];
            self.model_tokens.add(count, &labels);
        }
        let mut prompts = lock(&self.prompts);
        let key = (provider, model.to_owned());
        if prompts.len() < MAX_SHARES || prompts.contains_key(&key) {
            let (cached, all) = prompts.entry(key).or_default();
            *cached = cached.saturating_add(tokens.cache_read);
            let read = [tokens.input, tokens.cache_write, tokens.cache_read];
            *all = read.into_iter().fold(*all, u64::saturating_add);
        }
    }

    /// A model call cost so much, in millionths of a US dollar.
    pub fn model_cost(&self, provider: &'static str, model: &str, micro_usd: u64) {
        let labels = [
            KeyValue::new("provider", provider),
            KeyValue::new("model", model.to_owned()),
        ];
        self.model_cost.add(micro_usd, &labels);
    }

    /// One attempt of a tool call came to an end; `outcome` is `completed`, `tool_error`, `in_doubt`,
    /// `aborted`, or the kind of its failure.
    pub fn tool_call(&self, tool: &str, outcome: &str, took: Duration) {
        let tool = KeyValue::new("tool", tool.to_owned());
        self.tool_latency
            .record(took.as_secs_f64(), std::slice::from_ref(&tool));
        self.tool_calls
            .add(1, &[tool, KeyValue::new("outcome", outcome.to_owned())]);
    }

    /// It was found out, or not, what became of a tool call in doubt; `outcome` is `completed`,
    /// `never_started`, `not_known` or `aborted`. The time that a call took which was found running and
    /// was rejoined is in it.
    pub fn tool_lookup(&self, tool: &str, outcome: &'static str, took: Duration) {
        let tool = KeyValue::new("tool", tool.to_owned());
        self.tool_lookup_latency
            .record(took.as_secs_f64(), std::slice::from_ref(&tool));
        self.tool_lookups
            .add(1, &[tool, KeyValue::new("outcome", outcome)]);
    }

    /// A driver was lost; `cause` is `panicked`, `lost` (the fence, or a refusal of the log), or
    /// `unavailable` (the log).
    pub fn driver_lost(&self, cause: &'static str) {
        self.drivers_lost.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// Counts a driver while the tally lives.
    pub fn driver(&self) -> Tally {
        Tally::new(&self.drivers)
    }

    /// Counts a watch stream while the tally lives.
    pub fn watcher(&self) -> Tally {
        Tally::new(&self.watchers)
    }

    /// Counts a sidecar while the tally lives.
    pub fn sidecar(&self) -> Tally {
        Tally::new(&self.sidecars)
    }

    /// Shows the log's own counters from now on. `read` is asked at each scrape; let it hold the
    /// log weakly, as it lives as long as these metrics.
    pub fn show_log(&self, read: impl Fn() -> Stats + Send + Sync + 'static) {
        type Field = fn(&Stats) -> u64;
        let read = std::sync::Arc::new(read);
        let totals: [(&'static str, &'static str, Field); 5] = [
            ("loopwright.log.appends", "Records acknowledged", |s| {
                s.appends
            }),
            ("loopwright.log.batches", "Writes to the journal", |s| {
                s.batches
            }),
            ("loopwright.log.syncs", "Syncs of the journal", |s| s.syncs),
            (
                "loopwright.log.journal_bytes",
                "Bytes written to the journal",
                |s| s.journal_bytes,
            ),
            (
                "loopwright.log.filed_bytes",
                "Bytes copied to session files",
                |s| s.filed_bytes,
            ),
        ];
        for (name, about, field) in totals {
            let read = std::sync::Arc::clone(&read);
            let counter = self
                .meter
                .u64_observable_counter(name)
                .with_description(about);
            counter
                .with_callback(move |seen| seen.observe(field(&read()), &[]))
                .build();
        }
        let levels: [(&'static str, &'static str, Field); 2] = [
            (
                "loopwright.log.resident_streams",
                "Streams in memory now",
                |s| s.resident_streams,
            ),
            (
                "loopwright.log.unfiled_bytes",
                "Bytes not yet in session files",
                |s| s.unfiled_bytes,
            ),
        ];
        for (name, about, field) in levels {
            let read = std::sync::Arc::clone(&read);
            let gauge = self
                .meter
                .u64_observable_gauge(name)
                .with_description(about);
            gauge
                .with_callback(move |seen| seen.observe(field(&read()), &[]))
                .build();
        }
    }

    /// The page of `/metrics`, as `text/plain; version=0.0.4`.
    #[must_use]
    pub fn render(&self) -> String {
        let page = TextEncoder::new().encode_to_string(&self.registry.gather());
        page.unwrap_or_else(|error| format!("# the metrics cannot be written: {error}\n"))
    }
}

/// The share of prompt tokens that came from the providers' caches, by model.
fn show_cache_hits(meter: &Meter, prompts: Arc<Mutex<Prompts>>) {
    meter
        .f64_observable_gauge("loopwright.model.cache_hit_share")
        .with_description("Share of prompt tokens read from the provider's cache since the start")
        .with_callback(move |seen| {
            for ((provider, model), (cached, all)) in lock(&prompts).iter() {
                let labels = [
                    KeyValue::new("provider", *provider),
                    KeyValue::new("model", model.clone()),
                ];
                if *all > 0 {
                    seen.observe(*cached as f64 / *all as f64, &labels);
                }
            }
        })
        .build();
}

fn lock(prompts: &Mutex<Prompts>) -> std::sync::MutexGuard<'_, Prompts> {
    prompts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    fn new(counter: &UpDownCounter<i64>) -> Self {
        counter.add(1, &[]);
        Self(counter.clone())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}
