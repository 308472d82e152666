//! Serving: listen, register, answer calls, and go down in order.
//!
//! Going down: the server is told first, so that no new call comes; running calls have the drain time,
//! are then told to stop, and are dropped after their grace.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use loopwright_proto::v1::sidecar_service_server::SidecarServiceServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tonic_health::server::HealthReporter;

use crate::connection::Watched;
use crate::error::ServeError;
use crate::listen::{Bound, SocketFile};
use crate::registration::Registration;
use crate::running::STOP_GRACE;
use crate::service::ToolboxService;
use crate::sidecar::Sidecar;
use crate::toolbox::Toolbox;

/// Largest message either way; the contract's own limit.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Most calls of one connection at a time.
const MAX_STREAMS: u32 = 512;
/// How often an open connection is probed; a caller that vanished is then noticed.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long connections may take to close once no call runs.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// A sidecar that is being served. Dropping it shuts it down in the background.
#[derive(Debug)]
pub struct Serving {
    endpoint: String,
    registered: watch::Receiver<bool>,
    task: JoinHandle<Result<(), ServeError>>,
    stop: Option<DropGuard>,
}

impl Sidecar {
    /// Serves until SIGTERM or Ctrl-C, or until it cannot go on; a second signal ends it at once.
    pub async fn serve(self) -> Result<(), ServeError> {
        let cannot = |error: std::io::Error| ServeError::Stopped(format!("no signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let notices = Arc::clone(&self.options.notices);
        let name = self.name().to_owned();
        let mut serving = self.spawn().await?;
        tokio::select! {
            ended = serving.ended() => return ended,
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        notices(&format!("sidecar {name} stops: running calls may end"));
        tokio::select! {
            ended = serving.shutdown() => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    }

    /// Serves in the background and returns once it listens; for tests and for programs that do more.
    pub async fn spawn(self) -> Result<Serving, ServeError> {
        let toolbox = self.toolbox()?;
        let options = &self.options;
        let cannot = |source| ServeError::Listen {
            address: options.listen.to_string(),
            source,
        };
        let bound = options
            .listen
            .bind(options.allow_remote)
            .await
            .map_err(cannot)?;
        let local = bound.endpoint().map_err(cannot)?;
        let endpoint = options.advertise.clone().unwrap_or(local);
        if let Some(path) = options.keyfile.clone() {
            let cannot = |source| ServeError::Keys {
                path: path.clone(),
                source,
            };
            toolbox.remember_in(path.clone()).map_err(cannot)?;
        }
        let registration = Registration::new(self.name(), endpoint.clone(), options)?;
        let registered = registration.registered();

        let (health, router) = routes(&toolbox, &self.version).await;
        let tools = toolbox.specs().len();
        let plural = if tools == 1 { "tool" } else { "tools" };
        (options.notices)(&format!(
            "sidecar {} serves {tools} {plural} at {endpoint}",
            self.name()
        ));

        let stop = CancellationToken::new();
        let life = Life {
            toolbox,
            health,
            registration,
            drain: options.drain,
            stop: stop.clone(),
        };
        let task = tokio::spawn(life.live(router, bound));
        Ok(Serving {
            endpoint,
            registered,
            task,
            stop: Some(stop.drop_guard()),
        })
    }
}

impl Serving {
    /// Where it serves: "http://127.0.0.1:PORT" or "unix:/path".
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns true once it is registered with the server; false if it ended before that.
    pub async fn registered(&mut self) -> bool {
        self.registered
            .wait_for(|registered| *registered)
            .await
            .is_ok()
    }

    /// Returns when it ends by itself: an error, as long as nobody shut it down. Not to be called again
    /// after it returned.
    pub async fn ended(&mut self) -> Result<(), ServeError> {
        let crashed = |error| ServeError::Stopped(format!("the serving task is gone: {error}"));
        (&mut self.task).await.map_err(crashed)?
    }

    /// Deregisters, lets running calls end, stops the rest, and returns when all is done.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        drop(self.stop.take());
        self.ended().await
    }
}

/// What one served sidecar consists of, from the first connection to the last.
struct Life {
    toolbox: Arc<Toolbox>,
    health: HealthReporter,
    registration: Registration,
    drain: Duration,
    stop: CancellationToken,
}

impl Life {
    async fn live(self, router: Router, bound: Bound) -> Result<(), ServeError> {
        let Self {
            toolbox,
            health,
            registration,
            drain,
            stop,
        } = self;
        let close = CancellationToken::new();
        let (mut server, _socket) = start(router, bound, close.clone());
        let ended = {
            let mut registered = pin!(registration.keep(stop));
            tokio::select! {
                ended = &mut registered => ended,
                served = &mut server => return Err(stopped(served)),
            }
        };
        health
            .set_not_serving::<SidecarServiceServer<ToolboxService>>()
            .await;
        close.cancel();
        drain_calls(&toolbox, drain).await;
        if tokio::time::timeout(CLOSE_TIME, &mut server).await.is_err() {
            server.abort();
        }
        toolbox.close();
        ended
    }
}

/// The services on the listener, serving from the first connection on.
async fn routes(toolbox: &Arc<Toolbox>, version: &str) -> (HealthReporter, Router) {
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_serving::<SidecarServiceServer<ToolboxService>>()
        .await;
    let service = ToolboxService {
        toolbox: Arc::clone(toolbox),
        version: version.to_owned(),
    };
    let service = SidecarServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let router = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(health_service)
        .add_service(service);
    (health, router)
}

type ServerTask = JoinHandle<Result<(), tonic::transport::Error>>;

fn start(
    router: Router,
    bound: Bound,
    close: CancellationToken,
) -> (ServerTask, Option<SocketFile>) {
    let closed = close.cancelled_owned();
    match bound {
        Bound::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let incoming = incoming.map(|socket| socket.map(Watched::new));
            (
                tokio::spawn(router.serve_with_incoming_shutdown(incoming, closed)),
                None,
            )
        }
        Bound::Unix(listener, file) => {
            let incoming = UnixListenerStream::new(listener);
            let incoming = incoming.map(|socket| socket.map(Watched::new));
            (
                tokio::spawn(router.serve_with_incoming_shutdown(incoming, closed)),
                Some(file),
            )
        }
    }
}

fn stopped(
    served: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> ServeError {
    ServeError::Stopped(match served {
        Ok(Ok(())) => "the listener closed".to_owned(),
        Ok(Err(error)) => crate::endpoint::root_cause(&error),
        Err(error) => error.to_string(),
    })
}

async fn drain_calls(toolbox: &Toolbox, drain: Duration) {
    toolbox.tasks.close();
    if tokio::time::timeout(drain, toolbox.tasks.wait())
        .await
        .is_ok()
    {
        return;
    }
    toolbox.stop.cancel();
    // Each call ends itself after its grace; a little more for those that were just about to.
    let _ = tokio::time::timeout(STOP_GRACE + CLOSE_TIME, toolbox.tasks.wait()).await;
}
