//! Logs, traces and metrics of the server itself.
//!
//! Boundary: sets up the process's subscriber, hands out spans and counts; decides nothing, and no
//! loop waits for it. Invariant: with no collector configured there is no OpenTelemetry layer, no
//! span is made, and what remains of tracing is a check of one `Option`.
//!
//! A loop outlives processes, so its trace must too. What ties it together is the loop's
//! `traceparent`, which the log keeps: every span hangs from that text or from one derived from it,
//! and the loop's own span is written once, at its end, under the id that the text announced, by
//! whichever process ends the loop.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, TracerProviderBuilder};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, filter, fmt};

use crate::config::{LogFormat, TelemetryConfig};

mod context;
mod metrics;
mod spans;

#[cfg(test)]
mod tests;

pub use metrics::{Metrics, Tally, TokenCounts};
pub use spans::{LoopSpan, ModelCallSpan, ModelOutcome, ToolCallSpan, fail, looked_up, model_done};

/// The way to spans and counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    tracer: Option<SdkTracer>,
    metrics: Arc<Metrics>,
}

/// What must be told that the process ends.
#[derive(Debug)]
#[must_use = "the last spans are sent by `shutdown`"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// RUST_LOG cannot be read.
    #[error("RUST_LOG = {value:?}: {reason}; write a level or directives such as info,h2=warn")]
    RustLog {
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The collector cannot be used.
    #[error("telemetry.otlp_endpoint = {endpoint:?}: {reason}")]
    Collector {
        /// The endpoint.
        endpoint: String,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// The process has a subscriber already.
    #[error("logging was set up before in this process; it can be set up once")]
    Twice,
}

/// The target of every span made here, and of nothing else.
const TARGET: &str = "loopwright::trace";
/// Where the certificates of the usual authorities lie, on the usual systems.
const CA_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Telemetry {
    /// Counts, and no traces: for tests, and for a server inside another program.
    #[must_use]
    pub fn off() -> Self {
        Self {
            tracer: None,
            metrics: Arc::new(Metrics::new("loopwright")),
        }
    }

    /// Whether spans are made at all.
    #[must_use]
    pub fn tracing_on(&self) -> bool {
        self.tracer.is_some()
    }

    /// The counters behind `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

impl TelemetryGuard {
    /// Sends the spans that wait and closes the exporter, within `limit`, whatever hangs.
    pub async fn shutdown(self, limit: Duration) {
        let Some(provider) = self.provider else {
            return;
        };
        // The exporter's thread needs the runtime while it flushes, so this one must not block it.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        match tokio::time::timeout(limit, flush).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans may be lost"),
            Ok(Err(error)) => tracing::warn!(%error, "the last spans may be lost"),
            Err(_) => tracing::warn!(?limit, "the collector did not take the last spans in time"),
        }
    }
}

/// Sets up logging, and tracing where a collector is configured, for the whole process.
///
/// `rust_log` is the value of RUST_LOG, which goes before `telemetry.log_level`. Call it within the
/// runtime: the exporter sends from there.
///
/// # Errors
/// RUST_LOG or the endpoint cannot be used, or this process has set up logging before.
pub fn init(
    config: &TelemetryConfig,
    rust_log: Option<&str>,
) -> Result<(Telemetry, TelemetryGuard), TelemetryError> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = match &config.otlp_endpoint {
        Some(endpoint) => {
            let exporter = exporter(endpoint).map_err(|reason| TelemetryError::Collector {
                endpoint: endpoint.clone(),
                reason,
            })?;
            Some(provider(&config.service_name, |builder| {
                builder.with_batch_exporter(exporter)
            }))
        }
        None => None,
    };
    let (telemetry, trace_layer) = traced(provider.as_ref(), &config.service_name);
    let mut layers = vec![log_layer(config, rust_log)?];
    layers.extend(trace_layer);
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok((telemetry, TelemetryGuard { provider }))
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log_layer(
    config: &TelemetryConfig,
    rust_log: Option<&str>,
) -> Result<BoxedLayer, TelemetryError> {
    let filter = log_filter(config, rust_log)?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    Ok(match config.log_format {
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    })
}

fn log_filter(
    config: &TelemetryConfig,
    rust_log: Option<&str>,
) -> Result<EnvFilter, TelemetryError> {
    let text = rust_log
        .filter(|text| !text.trim().is_empty())
        .unwrap_or(&config.log_level);
    let mut filter = EnvFilter::try_new(text).map_err(|error| TelemetryError::RustLog {
        value: text.to_owned(),
        reason: error.to_string(),
    })?;
    // Spans go to the collector; the exporter's own remarks at info would drown ours.
    let mut quiet = vec![format!("{TARGET}=off")];
    if !text.contains("opentelemetry") {
        quiet.push("opentelemetry=warn".to_owned());
    }
    for directive in quiet {
        filter = filter.add_directive(directive.parse().expect("a fixed directive is well formed"));
    }
    Ok(filter)
}

fn traced(
    provider: Option<&SdkTracerProvider>,
    service_name: &str,
) -> (Telemetry, Option<BoxedLayer>) {
    let metrics = Arc::new(Metrics::new(service_name));
    let tracer = provider.map(|provider| provider.tracer("loopwright"));
    let layer = tracer.clone().map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(filter::filter_fn(|meta| {
                meta.is_span() && meta.target() == TARGET
            }))
            .boxed()
    });
    (Telemetry { tracer, metrics }, layer)
}

fn provider(
    service_name: &str,
    export: impl FnOnce(TracerProviderBuilder) -> TracerProviderBuilder,
) -> SdkTracerProvider {
    let builder = SdkTracerProvider::builder()
        .with_id_generator(context::Ids::default())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .with_resource(resource(service_name));
    export(builder).build()
}

fn resource(service_name: &str) -> Resource {
    Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(opentelemetry::KeyValue::new(
            "service.version",
            env!("CARGO_PKG_VERSION"),
        ))
        .build()
}

fn exporter(endpoint: &str) -> Result<SpanExporter, String> {
    // Building the channel outside a runtime would panic.
    if tokio::runtime::Handle::try_current().is_err() {
        return Err("can be set up only within the runtime".to_owned());
    }
    let mut builder = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
    if endpoint.starts_with("https:") {
        let roots = std::env::var("SSL_CERT_FILE").into_iter();
        let mut bundles = roots.chain(CA_BUNDLES.map(str::to_owned));
        let Some(pem) = bundles.find_map(|path| std::fs::read(path).ok()) else {
            return Err(
                "https needs the certificates of authorities, and none were found; name \
                        them in SSL_CERT_FILE"
                    .to_owned(),
            );
        };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        builder = builder.with_tls_config(tls);
    }
    builder.build().map_err(|error| error.to_string())
}
