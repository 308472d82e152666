//! `loopwright serve`: the server, until a signal or a failed log ends it.

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Where;
use crate::{app::App, telemetry};

/// How long the last spans may take.
const FLUSH: Duration = Duration::from_secs(1);

/// `loopwright serve`.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Address to listen on; server.listen
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Folder of the sessions; session_log.dir
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
}

impl Serve {
    pub(super) async fn run(self, mut place: Where) -> anyhow::Result<ExitCode> {
        let named = [
            ("server.listen", self.listen),
            ("session_log.dir", self.dir),
        ];
        for (key, value) in named {
            place
                .flags
                .extend(value.map(|value| (key.to_owned(), value)));
        }
        let (loaded, env) = place.load()?;
        let rust_log = env.get("RUST_LOG").map(String::as_str);
        let (telemetry, guard) = telemetry::init(&loaded.config.telemetry, rust_log)?;
        let mut signals = Signals::hear()?;
        let starting = Box::pin(App::start(Arc::new(loaded.config), &env, telemetry));
        let app = tokio::select! {
            app = starting => app?,
            // Nothing has been promised to anybody yet.
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        let line = format!(
            "loopwright {} is listening on http://{}\n",
            env!("CARGO_PKG_VERSION"),
            app.addr()
        );
        let mut out = std::io::stdout();
        // Nobody has to read it.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        wait_for_end(&app, &mut signals).await;
        let ended = Box::pin(app.shutdown()).await;
        guard.shutdown(FLUSH).await;
        Ok(match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        })
    }
}

/// The signals that ask the server to end; heard from the beginning, since a start that recovers may
/// take a while.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn hear() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be heard")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be heard")?,
        })
    }

    async fn next(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: draining");
    }
}

/// Waits for SIGTERM or Ctrl-C, or for the log to fail for good.
async fn wait_for_end(app: &App, signals: &mut Signals) {
    tokio::select! {
        () = signals.next() => {}
        failure = app.log_failed() => {
            tracing::error!(%failure, "the log has failed; a restart recovers");
        }
    }
}
