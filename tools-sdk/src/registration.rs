//! The sidecar's place at the server: registers, renews the lease, registers again when it is gone, and
//! takes itself out at the end. Whatever happens at the server, the sidecar goes on serving.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use loopwright_proto::v1;
use loopwright_proto::v1::tool_service_client::ToolServiceClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::endpoint;
use crate::error::ServeError;
use crate::sidecar::{Notices, Options};
use crate::wire;

/// First and longest pause between two tries to reach the server.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one request may take; at registration the server dials back meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long taking the sidecar out may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds of the pause between two renewals, whatever the server grants.
const RENEWAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// Keeps one sidecar registered, or does nothing where there is no server.
pub(crate) struct Registration {
    server: Option<Server>,
    registered: watch::Sender<bool>,
}

struct Server {
    url: String,
    client: ToolServiceClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    name: String,
    endpoint: String,
    labels: BTreeMap<String, String>,
    notices: Notices,
    lease_id: Option<String>,
    was_registered: bool,
}

impl Registration {
    pub(crate) fn new(name: &str, own: String, options: &Options) -> Result<Self, ServeError> {
        let registered = watch::Sender::new(false);
        let Some(url) = options.server.clone() else {
            return Ok(Self {
                server: None,
                registered,
            });
        };
        let endpoint = endpoint::parse(&url).map_err(|why| ServeError::Option {
            option: "the server address",
            value: url.clone(),
            why: format!("{why}; write http://HOST:PORT or unix:/PATH"),
        })?;
        let server = Server {
            client: ToolServiceClient::new(endpoint.connect_lazy()),
            authorization: options.token.as_deref().map(bearer).transpose()?,
            name: name.to_owned(),
            endpoint: own,
            labels: options.labels.clone(),
            notices: options.notices.clone(),
            lease_id: None,
            was_registered: false,
            url,
        };
        Ok(Self {
            server: Some(server),
            registered,
        })
    }

    /// True while the sidecar holds a lease, as far as it knows.
    pub(crate) fn registered(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }

    /// Holds the sidecar registered until `stop`, then takes it out. An error is a refusal for good.
    pub(crate) async fn keep(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Some(mut server) = self.server else {
            stop.cancelled().await;
            return Ok(());
        };
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Err(refused) = server.hold(&self.registered) => Err(refused),
        };
        server.take_out().await;
        ended
    }
}

impl Server {
    async fn hold(&mut self, registered: &watch::Sender<bool>) -> Result<Infallible, ServeError> {
        loop {
            let lease_ttl = self.register().await?;
            registered.send_replace(true);
            self.renew(lease_ttl).await;
            registered.send_replace(false);
        }
    }

    /// Registers, however long it takes; returns the lease's time to live.
    async fn register(&mut self) -> Result<Duration, ServeError> {
        let message = v1::RegisterSidecarRequest {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            request_id: uuid::Uuid::now_v7().to_string(),
            labels: self.labels.clone(),
        };
        let mut pauses = pauses();
        let mut said = None;
        loop {
            let request = self.request(message.clone());
            let status = match self.client.register_sidecar(request).await {
                Ok(response) => return Ok(self.accepted(response.into_inner())),
                Err(status) => status,
            };
            if !self.was_registered && is_final(status.code()) {
                return Err(self.refused(&status));
            }
            // One line for each kind of trouble, however often it is met.
            if said.replace(status.code()) != Some(status.code()) {
                self.notice(&self.waiting(&status));
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    fn accepted(&mut self, response: v1::RegisterSidecarResponse) -> Duration {
        let names: Vec<&str> = response
            .accepted
            .iter()
            .map(|tool| tool.name.as_str())
            .collect();
        self.notice(&format!(
            "sidecar {} is registered with {}, which offers: {}",
            self.name,
            self.url,
            if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(", ")
            }
        ));
        for tool in &response.quarantined {
            self.notice(&format!(
                "the tool {} is not offered: {}",
                tool.name, tool.reason
            ));
        }
        self.lease_id = Some(response.lease_id);
        self.was_registered = true;
        response
            .lease_ttl
            .as_ref()
            .and_then(wire::duration)
            .unwrap_or(RENEWAL.1)
    }

    /// Renews the lease until the server does not know it any more.
    async fn renew(&mut self, lease_ttl: Duration) {
        let mut trouble: Option<ExponentialBackoff> = None;
        let mut pause = renewal_pause(lease_ttl);
        loop {
            tokio::time::sleep(pause).await;
            let lease_id = self.lease_id.clone().unwrap_or_default();
            let request = self.request(v1::RenewLeaseRequest { lease_id });
            match self.client.renew_lease(request).await {
                Ok(response) => {
                    if trouble.take().is_some() {
                        self.notice(&format!(
                            "the Loopwright server at {} answers again",
                            self.url
                        ));
                    }
                    let ttl = response.into_inner().lease_ttl;
                    pause =
                        renewal_pause(ttl.as_ref().and_then(wire::duration).unwrap_or(lease_ttl));
                }
                Err(status) if status.code() == Code::NotFound => {
                    self.lease_id = None;
                    self.notice(&format!(
                        "the Loopwright server at {} does not know sidecar {} any more; registering \
                         again",
                        self.url, self.name
                    ));
                    return;
                }
                Err(status) => {
                    if trouble.is_none() {
                        self.notice(&self.waiting(&status));
                    }
                    let pauses = trouble.get_or_insert_with(pauses);
                    pause = pauses.next().unwrap_or(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Tells the server that the sidecar goes, as far as it can be told.
    async fn take_out(&mut self) {
        let Some(lease_id) = self.lease_id.take() else {
            return;
        };
        let target = v1::deregister_sidecar_request::Target::LeaseId(lease_id);
        let request = self.request(v1::DeregisterSidecarRequest {
            target: Some(target),
        });
        let told = tokio::time::timeout(FAREWELL_TIMEOUT, self.client.deregister_sidecar(request));
        // Untold, the server finds out when the lease ends.
        if let Ok(Err(status)) = told.await {
            tracing::debug!(%status, "not deregistered");
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(REQUEST_TIMEOUT);
        if let Some(authorization) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", authorization.clone());
        }
        request
    }

    fn waiting(&self, status: &Status) -> String {
        let words = endpoint::status_words(status);
        match status.code() {
            Code::Unavailable => format!(
                "sidecar {} waits for the Loopwright server at {} ({words}); it will register by itself",
                self.name, self.url
            ),
            _ => format!(
                "the Loopwright server at {} does not take sidecar {} yet: {words}; trying again",
                self.url, self.name
            ),
        }
    }

    fn refused(&self, status: &Status) -> ServeError {
        let way_out = match status.code() {
            Code::Unauthenticated => "; put the server's token into LOOPWRIGHT_TOKEN",
            Code::Unimplemented => "; is that address a Loopwright server's?",
            _ => "",
        };
        let why = format!("{}{way_out}", endpoint::status_words(status));
        ServeError::Refused {
            server: self.url.clone(),
            why,
        }
    }

    fn notice(&self, line: &str) {
        (self.notices)(line);
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, ServeError> {
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| ServeError::Option {
                option: "the token",
                value: "(hidden)".to_owned(),
                why: "it holds characters that a header cannot carry".to_owned(),
            })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Refusals that trying again does not change.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

fn renewal_pause(lease_ttl: Duration) -> Duration {
    (lease_ttl / 3).clamp(RENEWAL.0, RENEWAL.1)
}
