//! The composition root: what the server is made of, in the order of the data.
//!
//! `config -> log -> models, sidecars -> drivers -> services -> one listener`. Ending goes the other
//! way: streams say goodbye, drivers let go, the log closes.

use std::{
    collections::BTreeMap, future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration,
};

use anyhow::Context as _;
use loopwright_log::{Failure, JsonlLog, JsonlOptions, Log, RecoveryReport, SyncPolicy};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    config::{Config, tokens::Tokens, units::SyncMode},
    drain::Drain,
    driver::{Clock, CutTails, Drivers, FIRST_WAIT, World},
    effects::model::{Models, ModelsOptions},
    index::Index,
    ledger::{self, Ledgers},
    redaction::Fields,
    service::{
        self, ServiceState,
        caller::Gate,
        health::Health,
        overview::Overview,
        serve::{Http2Settings, serve},
        tools::Tools,
        watch::Seats,
    },
    sidecars::Sidecars,
    telemetry::Telemetry,
};

/// What a session's log may take beyond its limit, so that the loop that reached it can end in order:
/// the outcomes of what was under way.
const ROOM_TO_END: u64 = 64 << 20;

/// The file of the index, in the folder of the log: a cache, which may be deleted at any time.
pub(crate) const INDEX_FILE: &str = "index.redb";

/// How long an end waits for what the index still has to write.
const INDEX_GRACE: Duration = Duration::from_secs(2);

/// A running server.
pub struct App {
    addr: SocketAddr,
    log: Arc<dyn Log>,
    index: Arc<Index>,
    drain: Drain,
    drivers: Arc<Drivers>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    grace: Duration,
}

impl App {
    /// Opens the log, listens, and takes up what was running.
    ///
    /// # Errors
    /// Whatever stops the start, in words that name the key and the way out.
    pub async fn start(
        config: Arc<Config>,
        env: &BTreeMap<String, String>,
        telemetry: Telemetry,
    ) -> anyhow::Result<Self> {
        let tokens = config
            .server
            .auth
            .token_file
            .as_deref()
            .map(Tokens::read)
            .transpose()?;
        let (log, report) = open_log(&config).await?;
        show_log(&telemetry, &log);
        let index = open_index(&config, &log, &report).await;
        let (drain, draining) = Drain::new();
        let models = Models::new(&config, env, ModelsOptions::default())?;
        let sidecars = Sidecars::new(&config, Arc::clone(&log), telemetry.clone());
        let ledgers = Ledgers::new(Arc::clone(&log), Clock);
        let drivers = Drivers::new(Arc::new(World {
            fields: Fields::new(&config.tools.redact),
            log: Arc::clone(&log),
            index: Arc::clone(&index),
            cut: CutTails::of(&report),
            models: Arc::clone(&models),
            sidecars: Arc::clone(&sidecars),
            ledgers: Arc::clone(&ledgers),
            telemetry: telemetry.clone(),
            clock: Clock,
            drain: draining.clone(),
            max_active: config.limits.sessions as usize,
            session_bytes: config.limits.session_bytes.get(),
            first_wait: FIRST_WAIT,
        }));
        let state = ServiceState {
            config: Arc::clone(&config),
            log: Arc::clone(&log),
            drivers: Arc::clone(&drivers),
            models,
            sidecars: Arc::clone(&sidecars),
            ledgers: Arc::clone(&ledgers),
            overview: Overview::new(Arc::clone(&log), Arc::clone(&index), draining.clone()),
            index: Arc::clone(&index),
            fields: Fields::new(&config.tools.redact),
            seats: Seats::new(config.limits.watchers, telemetry.clone()),
            transfers: Arc::default(),
            drain: draining.clone(),
        };
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("server.listen = {listen} cannot be listened on"))?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve_all(state, tokens, telemetry, listener, stopped).await);
        // Tools first: a loop that goes on finds its sidecars being dialled.
        sidecars.recover().await;
        let found = drivers
            .recover()
            .await
            .context("the sessions cannot be listed")?;
        tokio::spawn(ledger::watch_over(ledgers, draining));
        tracing::info!(%addr, resumed = found, "serving");
        Ok(Self {
            addr,
            log,
            index,
            drain,
            drivers,
            stop,
            serving,
            grace: config.server.shutdown_grace.get(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends when the log has failed for good, and not before.
    pub fn log_failed(&self) -> impl Future<Output = Failure> + '_ {
        self.log.wait_failed()
    }

    /// Not serving, goodbye, drivers let go, the log closed: within the grace, whatever hangs.
    ///
    /// # Errors
    /// Where the log has failed for good, perhaps while it was closed.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.drain.begin();
        // The receiver is gone only where serving has ended by itself.
        let _ = self.stop.send(());
        let orderly = async {
            self.drivers.drained().await;
            // A task that was cancelled or panicked is over as well.
            let _ = self.serving.await;
            // What it does not come to is made anew at the next start.
            let _ = tokio::time::timeout(INDEX_GRACE, self.index.close()).await;
            if let Err(error) = self.log.close().await {
                tracing::warn!(%error, "the log did not close in order; the next start recovers");
            }
        };
        if tokio::time::timeout(self.grace, orderly).await.is_err() {
            tracing::warn!(grace = ?self.grace, "something hung; leaving it behind");
        }
        self.log.failed().map_or(Ok(()), Err)
    }
}

/// Everything that is served on `listener`, until `stopped`.
async fn serve_all(
    state: ServiceState,
    tokens: Option<Tokens>,
    telemetry: Telemetry,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
) -> impl Future<Output = ()> + Send + 'static {
    let server = state.config.server.clone();
    let health = Health::serving().await;
    let tools = Tools::new(Arc::clone(&state.sidecars));
    let metrics = Arc::clone(telemetry.metrics());
    let metrics = Arc::new(move || metrics.render());
    let router = service::router(&state, tools, Gate::new(tokens), &health, metrics);
    let settings = Http2Settings {
        max_concurrent_streams: server.limits.max_concurrent_streams,
        keepalive_interval: server.keepalive_interval.get(),
    };
    let stop = async move {
        // A sender that is gone means the same.
        let _ = stopped.await;
        health.not_serving().await;
    };
    // Connections that hang leave time for the log to be closed in order.
    let grace = server.shutdown_grace.get().mul_f32(0.75);
    serve(listener, router, settings, stop, grace)
}

async fn open_log(config: &Config) -> anyhow::Result<(Arc<dyn Log>, RecoveryReport)> {
    let settings = &config.session_log;
    let options = JsonlOptions {
        sync: match settings.sync {
            SyncMode::Always => SyncPolicy::Always,
            SyncMode::None => SyncPolicy::Never,
            SyncMode::Interval(period) => SyncPolicy::Interval(period.get()),
        },
        segment_bytes: settings.segment_bytes.get(),
        session_bytes: config
            .limits
            .session_bytes
            .get()
            .saturating_add(ROOM_TO_END),
        ..JsonlOptions::new(&settings.dir)
    };
    if settings.sync != SyncMode::Always {
        tracing::warn!(sync = ?settings.sync, "facts are acknowledged before they are durable");
    }
    let opened = tokio::task::spawn_blocking(move || JsonlLog::open(options)).await?;
    let (log, report) = opened.with_context(|| in_dir(&settings.dir))?;
    tell(&report);
    Ok((log, report))
}

fn show_log(telemetry: &Telemetry, log: &Arc<dyn Log>) {
    let seen = Arc::downgrade(log);
    let read = move || seen.upgrade().map(|log| log.stats()).unwrap_or_default();
    telemetry.metrics().show_log(read);
}

async fn open_index(config: &Config, log: &Arc<dyn Log>, report: &RecoveryReport) -> Arc<Index> {
    let path = config.session_log.dir.join(INDEX_FILE);
    let index = Index::open(Arc::clone(log), &path).await;
    // What a brief says of it may be from before the damage.
    let damaged = report.corrupt.iter().map(|one| &one.stream);
    damaged.for_each(|key| index.forget(key));
    index
}

fn in_dir(dir: &Path) -> String {
    format!("session_log.dir = {} cannot be used", dir.display())
}

fn tell(report: &RecoveryReport) {
    let RecoveryReport {
        records, streams, ..
    } = report;
    tracing::info!(records, streams, "the log is open");
    for aside in &report.set_aside {
        tracing::warn!(?aside, "a torn tail was cut and kept aside");
    }
    for corrupt in &report.corrupt {
        tracing::error!(%corrupt, "a session is damaged");
    }
}
