//! The one port: connections accepted, served as HTTP/1.1 or HTTP/2 in the clear, and let go.
//!
//! Invariant: once asked to stop, it accepts nothing more, tells every connection so, and returns
//! within the grace, whatever still hangs.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

/// Bounds of HTTP/2 connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// Streams open at once on one connection (`server.limits.max_concurrent_streams`).
    pub max_concurrent_streams: u32,
    /// How often a silent connection is pinged, and how long the answer may take
    /// (`server.keepalive_interval`).
    pub keepalive_interval: Duration,
}

/// Bytes of one stream that wait for a client that does not read.
const SEND_BUFFER: usize = 64 << 10;
/// How long an HTTP/1 client may take to send its headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// The pause after an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` at `listener` until `shutdown` ends, then lets connections end for up to
/// `grace`. Streams are to hear of the shutdown by the drain signal, which fires before.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: Http2Settings,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) {
    let builder = builder(settings);
    // Without its state type settled, the router would be built anew for each connection.
    let router: Router = router.with_state(());
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let connection =
                        connection(builder.clone(), socket, peer, router.clone(), stopping.clone());
                    connections.spawn(connection);
                }
                Err(error) => pause(&error).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, all).await.is_err() {
        tracing::warn!(
            ?grace,
            "connections were still open when the grace ended; they are cut"
        );
    }
    connections.abort_all();
}

fn builder(settings: Http2Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_interval);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN);
    builder
}

async fn connection(
    builder: Builder<TokioExecutor>,
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Infallible> {
    // A delayed acknowledgement costs 40 ms a message otherwise.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
    }
    let service = TowerToHyperService::new(router);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut told = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended early");
                }
                return Ok(());
            }
            _ = stopping.wait_for(|stop| *stop), if !told => {
                told = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn pause(error: &io::Error) {
    let of_the_peer = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_the_peer {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}
