//! The one task of a registered sidecar: keeps it connected, and ends it with its lease.
//!
//! Boundary: connects and reports; what is offered follows from the report. Invariant: ends when
//! the lease has run out, when its handle is dropped, or with the server; each new connection is
//! asked anew what it serves.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use loopwright_log::Id;
use loopwright_proto::v1::DescribeResponse;
use tokio::time::{Instant, sleep};

use super::book::Fact;
use super::channel::Link;
use super::endpoint::EndpointError;
use super::live::{Live, Phase};
use super::{Sidecars, describe};

/// How often a connected sidecar is asked whether it serves.
const HEALTH_EVERY: Duration = Duration::from_secs(10);
/// Pause before the second dial; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between dials.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keeps `live`, which has `link` already where it was just registered.
pub(super) async fn keep(sidecars: Weak<Sidecars>, live: Arc<Live>, link: Option<Link>) {
    let mut tending = pin!(tend(&sidecars, &live, link));
    loop {
        tokio::select! {
            () = live.lease_ran_out() => {}
            () = &mut tending => return,
        }
        let Some(sidecars) = sidecars.upgrade() else {
            return;
        };
        if sidecars.end(&live).await {
            return;
        }
    }
}

/// Ends with the server only.
async fn tend(sidecars: &Weak<Sidecars>, live: &Arc<Live>, mut link: Option<Link>) {
    loop {
        if let Some(link) = link.take() {
            let (phase, why) = until_lost(&link).await;
            let Some(sidecars) = sidecars.upgrade() else {
                return;
            };
            sidecars.report_down(live, phase, why);
        }
        link = redial(sidecars, live).await;
        if link.is_none() {
            return;
        }
    }
}

async fn until_lost(link: &Link) -> (Phase, String) {
    loop {
        tokio::select! {
            () = link.closed() => return (Phase::Connecting, "the connection was lost".to_owned()),
            () = sleep(HEALTH_EVERY) => {}
        }
        if link.says_not_serving().await {
            return (
                Phase::Unhealthy,
                "it says that it does not serve".to_owned(),
            );
        }
    }
}

/// `None` when the server is gone.
async fn redial(sidecars: &Weak<Sidecars>, live: &Arc<Live>) -> Option<Link> {
    let lost_at = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let wait = {
            let sidecars = sidecars.upgrade()?;
            let why = match sidecars.connect(live).await {
                Ok(link) => return Some(link),
                Err(why) => why,
            };
            let wait = sidecars
                .limits
                .sidecar_wait
                .saturating_sub(lost_at.elapsed());
            let phase = if wait.is_zero() {
                Phase::Unhealthy
            } else {
                Phase::Connecting
            };
            sidecars.report_down(live, phase, why);
            wait
        };
        // Withdrawn when calls would no longer wait for it, not a whole pause later.
        sleep(if wait.is_zero() {
            pause
        } else {
            pause.min(wait)
        })
        .await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Sidecars {
    /// Dials a registered sidecar and takes in what it serves now.
    async fn connect(self: &Arc<Self>, live: &Arc<Live>) -> Result<Link, String> {
        let address =
            self.allow
                .address(&live.registered.endpoint)
                .map_err(|error| match error {
                    EndpointError::Malformed(why) | EndpointError::NotAllowed(why) => why,
                })?;
        let link = Link::dial(&address, &self.allow, self.keepalive).await?;
        let answer = link.describe().await?;
        if link.says_not_serving().await {
            return Err("it says that it does not serve".to_owned());
        }
        let (sidecars, live) = (Arc::clone(self), Arc::clone(live));
        let adopted = tokio::spawn(async move { sidecars.adopt(&live, link, answer).await });
        // To its end even where this task is not: the book must hear of every record written.
        adopted.await.unwrap_or_else(|lost| Err(lost.to_string()))
    }

    async fn adopt(
        self: &Arc<Self>,
        live: &Arc<Live>,
        link: Link,
        answer: DescribeResponse,
    ) -> Result<Link, String> {
        let name = &live.registered.name;
        let _writing = self.writer.lock().await;
        let (described, facts) = self.judge(&live.namespace, name, answer)?;
        if self.is_current(live) {
            if let Err(error) = self.append(&live.namespace, facts).await {
                tracing::warn!(sidecar = %name, %error, "its tools could not be written down");
            }
            let offer = live.up(link.clone(), &described);
            self.announce(offer);
        }
        Ok(link)
    }

    /// What `answer` comes to, and the fact of it where it is news.
    pub(super) fn judge(
        &self,
        namespace: &Id,
        name: &str,
        answer: DescribeResponse,
    ) -> Result<(describe::Described, Vec<Fact>), String> {
        let tenants = self.read();
        let noted = tenants
            .get(namespace.as_str())
            .and_then(|tenant| tenant.book.get(name));
        let first_seen = noted
            .map(|noted| noted.first_seen.clone())
            .unwrap_or_default();
        let before = noted.map(|noted| noted.described.clone());
        drop(tenants);
        let described = describe::check(name, answer, &first_seen, &self.schemas, self.terms)?;
        let fact = Fact::SidecarDescribed {
            name: name.to_owned(),
            described: described.clone(),
        };
        let is_news = before.is_none_or(|before| before != described);
        Ok((described, is_news.then_some(fact).into_iter().collect()))
    }

    fn report_down(&self, live: &Arc<Live>, phase: Phase, why: String) {
        tracing::debug!(sidecar = %live.registered.name, %why, "the sidecar is not connected");
        let offer = live.down(phase, why);
        self.announce(offer);
    }
}
