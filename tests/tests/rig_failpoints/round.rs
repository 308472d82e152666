//! One round: a run of every lane side by side, each brought to its point; then the server is killed,
//! the calls meet their fates, the next server ends what is open, and the oracle looks.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use loopwright_client::{Client, WatchEvent};
use loopwright_proto::v1::{
    Agent, Entry, StartLoopRequest, event::Kind, start_loop_request::Input,
};
use loopwright_tests::{
    kit::{self, Options, Server},
    rig::{
        self, Chance, Outcome,
        effects::Effects,
        valve::{Valve, Way},
    },
    scene,
};

use super::{
    judge::Told,
    lanes::{self, Fate, Lane, Point},
    model::Model,
    sidecar::Sidecar,
};

/// How long anything may take that is to happen at once, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait between the last lane's arrival and the kill, milliseconds.
const LONGEST_MS: u64 = 30;

/// The server and its peers.
pub(super) struct World {
    server: Server,
    client: Client,
    model: Model,
    effects: Effects,
    lanes: Vec<Peer>,
}

/// One lane's.
struct Peer {
    lane: Lane,
    sidecar: Sidecar,
    valve: Valve,
    effects: Effects,
}

impl World {
    /// Starts everything on a directory of its own.
    pub(super) async fn start(dir: &Path, chance: &mut Chance) -> Result<Self> {
        let model = Model::start().await?;
        let effects = Effects::new(&dir.join("effects"))?;
        let options = Options::default()
            .set("models.mock.provider", "openai")
            .set("models.mock.id", "mock")
            .set("models.mock.base_url", model.mock.openai_url())
            .set("loop.model", "mock")
            .set("tools.lease_ttl", "1h")
            .set("tools.on_unknown", "tell_model")
            // On a machine that is busy, a late answer is no proof of anything.
            .set("tools.lookup_timeout", "60s")
            .set("tools.sidecar_wait", "60s")
            .set("server.listen", format!("127.0.0.1:{}", rig::port(chance)?));
        let place = dir.to_owned();
        let server = tokio::task::spawn_blocking(move || options.start_in(&place)).await??;
        let client = rig::patient(&server.url)?;
        let mut lanes = Vec::new();
        for lane in lanes::all() {
            let (sidecar, valve) = Sidecar::serve(lane, &effects).await?;
            kit::register(&server.url, &lane.name(), &valve.url).await?;
            lanes.push(Peer {
                lane,
                sidecar,
                valve,
                effects: effects.clone(),
            });
        }
        let names: Vec<String> = lanes
            .iter()
            .map(|peer| format!("{}__act", peer.lane.name()))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        kit::wait_for_tools(&client, &names).await?;
        Ok(Self {
            server,
            client,
            model,
            effects,
            lanes,
        })
    }

    /// One run of each lane.
    pub(super) async fn round(
        &mut self,
        round: u32,
        chance: &mut Chance,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let arriving = self
            .lanes
            .iter()
            .map(|peer| peer.arrive(round, &self.client));
        tokio::time::timeout(PATIENCE, try_join_all(arriving))
            .await
            .context("not every lane gets to its point")??;
        tokio::time::sleep(Duration::from_millis(chance.below(LONGEST_MS))).await;
        tokio::task::block_in_place(|| self.server.kill())?;
        let fates: Vec<Fate> = self
            .lanes
            .iter()
            .map(|peer| peer.lane.fate(chance))
            .collect();
        for (peer, fate) in self.lanes.iter().zip(&fates) {
            peer.meet(round, *fate).await?;
        }
        self.model.end(round);
        tokio::task::block_in_place(|| self.server.restart())?;
        let sessions: Vec<String> = self
            .lanes
            .iter()
            .map(|peer| peer.lane.session(round))
            .collect();
        let late = async {
            // Into the next server's work, or after it.
            tokio::time::sleep(Duration::from_millis(chance.below(400))).await;
            for (peer, _) in self
                .lanes
                .iter()
                .zip(&fates)
                .filter(|(_, fate)| **fate == Fate::Late)
            {
                peer.come_late(round).await?;
            }
            anyhow::Ok(())
        };
        let ends = sessions
            .iter()
            .map(|session| scene::to_end(&self.client, session, ""));
        let (ended, late) = tokio::join!(try_join_all(ends), late);
        let logs = ended.context("a loop does not end")?;
        late?;
        self.judge(&fates, &sessions, &logs, outcome)
    }

    fn judge(
        &self,
        fates: &[Fate],
        sessions: &[String],
        logs: &[Vec<Entry>],
        outcome: &mut Outcome,
    ) -> Result<()> {
        let effects = self.effects.all()?;
        for (at, peer) in self.lanes.iter().enumerate() {
            let (session, fate, told) = (&sessions[at], fates[at], Told::of(&logs[at]));
            let key = format!("default/{session}@");
            let of_run = effects.iter().filter(|effect| effect.key.starts_with(&key));
            let of_run: Vec<_> = of_run.cloned().collect();
            outcome.count("runs", 1);
            outcome.count("effects", of_run.len() as u64);
            for end in ["completed", "unknown"] {
                outcome.count(end, u64::from(told.ends == [end]));
            }
            if let Err(wrong) = told.check(&peer.lane, fate, &of_run) {
                let lane = peer.lane;
                outcome.wrong(format!(
                    "{session}, {lane:?} {fate:?}: {wrong}: {told:?}, {of_run:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Peer {
    /// Starts a loop, and waits until its call is at the point.
    async fn arrive(&self, round: u32, client: &Client) -> Result<()> {
        let (lane, session) = (&self.lane, self.lane.session(round));
        match lane.point {
            Point::AfterIntent => self.valve.hold(Way::Up, &session),
            Point::AfterReply => self.valve.hold(Way::Down, &session),
            Point::AfterSend | Point::AfterEffect => self.sidecar.arm(&session, lane.point),
            Point::BeforeIntent | Point::AfterResult => {}
        }
        let request = StartLoopRequest {
            session_id: session.clone(),
            request_id: format!("start-{session}"),
            agent: Some(Agent {
                model: "mock".to_owned(),
                ..Agent::default()
            }),
            input: Some(Input::Text(Model::told(lane, round))),
            ..StartLoopRequest::default()
        };
        client.start_loop(request).await.context("StartLoop")?;
        let mut watch = client.watch(&session, 0);
        loop {
            let is_there = match watch.next().await.context("the watch ended")?? {
                WatchEvent::Delta(_) => lane.point == Point::BeforeIntent,
                WatchEvent::Entry(entry) => scene::has(&entry, |kind| match kind {
                    Kind::ToolCallStarted(_) => {
                        !matches!(lane.point, Point::BeforeIntent | Point::AfterResult)
                    }
                    Kind::ToolCallCompleted(_) if lane.point == Point::AfterResult => true,
                    _ => false,
                }),
                _ => false,
            };
            if is_there {
                break;
            }
        }
        match lane.point {
            Point::AfterIntent | Point::AfterReply => self.valve.until_held().await,
            Point::AfterSend | Point::AfterEffect => self.sidecar.until_reached(&session).await,
            Point::BeforeIntent | Point::AfterResult => Ok(()),
        }
        .with_context(|| format!("{session} is not at {:?}", lane.point))
    }

    /// Between the death of a server and the start of the next.
    async fn meet(&self, round: u32, fate: Fate) -> Result<()> {
        let session = self.lane.session(round);
        match (self.lane.point, fate) {
            (Point::AfterIntent, Fate::Lost) | (Point::AfterReply, _) => self.valve.break_all(),
            (Point::AfterIntent, Fate::Now) => {
                self.valve.open();
                return self.until_acted(&session).await;
            }
            (Point::AfterSend | Point::AfterEffect, Fate::Lost | Fate::Now) => {
                self.sidecar.release(&session, fate);
            }
            _ => {}
        }
        Ok(())
    }

    /// When the next server is at work: what was held up goes on, and what was asleep wakes.
    async fn come_late(&self, round: u32) -> Result<()> {
        let session = self.lane.session(round);
        match self.lane.point {
            Point::AfterIntent => self.valve.open(),
            _ => self.sidecar.release(&session, Fate::Late),
        }
        if self.lane.lookup {
            return Ok(());
        }
        // Nobody forbids it.
        self.until_acted(&session).await
    }

    /// The request is not only passed on, but has arrived.
    async fn until_acted(&self, session: &str) -> Result<()> {
        let mut changes = self.effects.changes();
        let key = format!("default/{session}@");
        let acted = async {
            while !self
                .effects
                .all()?
                .iter()
                .any(|one| one.key.starts_with(&key))
            {
                changes.changed().await?;
            }
            anyhow::Ok(())
        };
        let acted = tokio::time::timeout(PATIENCE, acted).await;
        acted.with_context(|| format!("{session}: what was passed on is not acted on"))?
    }
}
