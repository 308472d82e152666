//! One connection to a sidecar: dialled, described, watched until it is gone.
//!
//! Boundary: sockets and HTTP/2; knows nothing of registrations. Invariants: a [`Link`] is exactly
//! one connection. It never reconnects by itself, so what fails with [`LinkClosed`] was surely not
//! sent; nothing on this hop is retried; every wait ends.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use loopwright_proto::v1::{
    DescribeRequest, DescribeResponse, sidecar_service_client::SidecarServiceClient,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::endpoint::{Address, AllowList};
use crate::redaction::Redaction;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer to Describe or to a health check.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer to Describe, bytes.
const MAX_DESCRIBE_BYTES: usize = 4 << 20;
/// Longest name of an instance that is taken; one that is longer is as none.
const MAX_INSTANCE_BYTES: usize = 128;
/// Largest set of response headers that is taken, bytes.
const MAX_HEADER_BYTES: u32 = 64 << 10;

/// A live connection. Clones share it; it closes when the last one is dropped and no call runs.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    channel: Channel,
    closed: CancellationToken,
    /// Set by the first answer to Describe.
    instance: Arc<OnceLock<String>>,
}

/// The connection was gone before the request could be sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the sidecar is closed")]
pub(crate) struct LinkClosed;

impl Link {
    /// Dials. TCP is sent without delay and probed by the kernel every `keepalive` when silent.
    ///
    /// # Errors
    /// In words: nobody listens there, the socket lies outside its folder, or time ran out.
    pub(crate) async fn dial(
        address: &Address,
        allow: &AllowList,
        keepalive: Duration,
    ) -> Result<Self, String> {
        let socket = timeout(CONNECT_TIMEOUT, connect(address, allow, keepalive))
            .await
            .map_err(|_| format!("no connection within {CONNECT_TIMEOUT:?}"))?
            .map_err(|error| error.to_string())?;
        let closed = CancellationToken::new();
        let io = Watched {
            socket,
            _gone: closed.clone().drop_guard(),
        };
        let mut only = Some(TokioIo::new(io));
        let connector =
            tower::service_fn(move |_: Uri| std::future::ready(only.take().ok_or(LinkClosed)));
        let endpoint = endpoint(address)?;
        let channel = timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector))
            .await
            .map_err(|_| format!("no HTTP/2 connection within {CONNECT_TIMEOUT:?}"))?
            .map_err(|error| format!("no HTTP/2 connection: {}", root_cause(&error)))?;
        let instance = Arc::default();
        Ok(Self {
            channel,
            closed,
            instance,
        })
    }

    /// A client that takes answers of up to `max_bytes`.
    pub(crate) fn client(&self, max_bytes: usize) -> SidecarServiceClient<Channel> {
        SidecarServiceClient::new(self.channel.clone()).max_decoding_message_size(max_bytes)
    }

    /// Asks which tools there are.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn describe(&self) -> Result<DescribeResponse, String> {
        let mut client = self.client(MAX_DESCRIBE_BYTES);
        match timeout(ASK_TIMEOUT, client.describe(DescribeRequest {})).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                let fits = Some(answer.instance()).filter(|name| name.len() <= MAX_INSTANCE_BYTES);
                // At the other end of one connection it stays what it was.
                let _ = self.instance.set(fits.unwrap_or_default().to_owned());
                Ok(answer)
            }
            Ok(Err(status)) => Err(format!(
                "Describe failed: {}",
                in_words(&status, Redaction::default())
            )),
            Err(_) => Err(format!("Describe had no answer within {ASK_TIMEOUT:?}")),
        }
    }

    /// The instance that the sidecar says it is; `None` before it was asked, empty where it does not say.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.instance.get().map(String::as_str)
    }

    /// Whether the sidecar says that it does not serve. One without a health service, or too busy
    /// to answer, is taken to serve: the connection tells whether it lives.
    pub(crate) async fn says_not_serving(&self) -> bool {
        let mut client = HealthClient::new(self.channel.clone());
        let asked = client.check(HealthCheckRequest {
            service: String::new(),
        });
        let not_serving = |status: i32| status == ServingStatus::NotServing as i32;
        matches!(timeout(ASK_TIMEOUT, asked).await,
            Ok(Ok(answer)) if not_serving(answer.get_ref().status))
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Ends when the connection is gone.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

/// Whether `status` says that nothing was sent.
pub(crate) fn was_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<LinkClosed>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A status as people read it, clamped.
pub(crate) fn in_words(status: &Status, redaction: Redaction) -> String {
    let message = redaction.text(status.message());
    let message = loopwright_core::message::clamp(&message, 512);
    if message.is_empty() {
        format!("status {:?}", status.code())
    } else {
        format!("status {:?}: {message}", status.code())
    }
}

async fn connect(address: &Address, allow: &AllowList, keepalive: Duration) -> io::Result<Socket> {
    let stream = match address {
        Address::Unix(path) => {
            stays_below(path, allow.unix_dir()).await?;
            return UnixStream::connect(path).await.map(Socket::Unix);
        }
        Address::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
        Address::Ip(hosts, port) => {
            let targets: Vec<_> = hosts.iter().map(|&ip| (ip, *port).into()).collect();
            TcpStream::connect(targets.as_slice()).await?
        }
    };
    stream.set_nodelay(true)?;
    // Probes of the kernel, not HTTP/2 pings: gRPC servers in C and Go take pings on a connection
    // without traffic for abuse and close it, which would put long silent calls in doubt.
    let probes = TcpKeepalive::new()
        .with_time(keepalive)
        .with_interval(keepalive);
    SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    Ok(Socket::Tcp(stream))
}

/// A symbolic link must not lead out of the folder.
async fn stays_below(path: &Path, dir: Option<&Path>) -> io::Result<()> {
    let Some(dir) = dir else { return Ok(()) };
    let (real, dir) = (
        tokio::fs::canonicalize(path).await?,
        tokio::fs::canonicalize(dir).await?,
    );
    if real.starts_with(&dir) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} leads out of tools.unix_dir to {}",
            path.display(),
            real.display()
        ),
    ))
}

fn endpoint(address: &Address) -> Result<Endpoint, String> {
    let uri = match address {
        // What stands in `:authority`; grpcio refuses the path of a socket there.
        Address::Unix(_) => "http://localhost".to_owned(),
        Address::Name(host, port) => format!("http://{host}:{port}"),
        Address::Ip(hosts, port) => match hosts.first() {
            Some(ip) => format!("http://{}", std::net::SocketAddr::new(*ip, *port)),
            None => return Err("no host".to_owned()),
        },
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
    let agent = concat!("loopwright/", env!("CARGO_PKG_VERSION"));
    let endpoint = endpoint
        .user_agent(agent)
        .map_err(|error| error.to_string())?;
    Ok(endpoint.http2_max_header_list_size(MAX_HEADER_BYTES))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket that tells when it is dropped, which HTTP/2 does as soon as the connection has ended.
struct Watched {
    socket: Socket,
    _gone: DropGuard,
}

/// Calls the same method of whichever socket it is.
macro_rules! with_socket {
    ($self:ident, $pinned:ident => $call:expr) => {
        match &mut $self.get_mut().socket {
            Socket::Tcp(stream) => {
                let $pinned = Pin::new(stream);
                $call
            }
            Socket::Unix(stream) => {
                let $pinned = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_socket!(self, socket => socket.poll_read(cx, buf))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        with_socket!(self, socket => socket.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_socket!(self, socket => socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_socket!(self, socket => socket.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_socket!(self, socket => socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(stream) => stream.is_write_vectored(),
            Socket::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
