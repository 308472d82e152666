//! The rig of the benches: the mock, the floor and the server as processes, and one run of each.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loopwright_client::{Client, ClientOptions};
use loopwright_proto::v1::{
    Agent, LoopLimits, StartLoopRequest, ToolSelection, start_loop_request,
};

use super::{
    Workload, floor,
    mock::Seen,
    process::{Role, cpu_ms, rss_kib},
    program::say,
    resume::Witness,
};
use crate::kit::{self, Build, Server};

/// One run's figures.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the mock saw.
    pub seen: Seen,
    /// Processor time of a step, milliseconds.
    pub cpu_ms_per_step: f64,
    /// Steps of all loops by the second.
    pub steps_per_second: f64,
}

/// The mock, and the way to floors and servers that work on it.
#[derive(Debug)]
pub struct Rig {
    mock: Role,
    model: String,
    sidecar: String,
    http: reqwest::Client,
    next: u32,
    budgets: Vec<String>,
    /// Data directories of all servers, kept until the bench is over: for seconds after files were
    /// deleted, ext4 passes by what they were, inode by inode, and charges the next server with it.
    homes: tempfile::TempDir,
}

/// A server under load, and how to reach it.
pub struct Loaded {
    /// The process.
    pub server: Server,
    client: Client,
}

/// The floor as a child: one run, as its argument says, and the kernel's account of it.
///
/// # Errors
/// Where the run fails.
pub async fn floor_child() -> Result<()> {
    let order = std::env::args().nth(1).context("an order")?;
    let FloorOrder {
        work,
        base,
        model,
        sidecar,
        sync,
    } = serde_json::from_str(&order)?;
    let [loops, steps, result_bytes, pieces] = work;
    let work = Workload {
        loops,
        steps,
        result_bytes,
        pieces,
        counted: false,
    };
    let before = cpu_ms(std::process::id())?;
    floor::run(work, base, &model, &sidecar, sync).await?;
    let cpu = cpu_ms(std::process::id())? - before;
    say(&format!("DONE {cpu} {}", rss_kib(std::process::id())?))
}

#[derive(serde::Serialize, serde::Deserialize)]
struct FloorOrder {
    work: [u32; 4],
    base: u32,
    model: String,
    sidecar: String,
    sync: bool,
}

impl Rig {
    /// Starts the mock.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn start() -> Result<Self> {
        let mock = Role::start("mock", &[])?;
        let [_, model, sidecar] = &*mock.ready.clone() else {
            anyhow::bail!("the mock said {:?}", mock.ready)
        };
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(600))
            .build()?;
        let (model, sidecar) = (model.clone(), sidecar.clone());
        Ok(Self {
            mock,
            model,
            sidecar,
            http,
            next: 1,
            budgets: Vec::new(),
            homes: tempfile::tempdir()?,
        })
    }

    /// The budgets that the loops of every later load are charged to.
    pub fn charge(&mut self, budgets: &[&str]) {
        self.budgets = budgets.iter().map(|name| (*name).to_owned()).collect();
    }

    /// A server on the mock, with the mock's sidecar registered.
    ///
    /// # Errors
    /// Where it does not come up.
    pub async fn serve(&self, sync: bool, more: &[(&str, &str)]) -> Result<Loaded> {
        ensure!(cpu_ms(self.mock.pid()).is_ok(), "the mock has gone");
        let mut options = kit::Options {
            build: Build::Release,
            ..kit::Options::default()
        }
        .set("models.bench.provider", "openai")
        .set("models.bench.id", "m")
        .set("models.bench.base_url", format!("{}/v1", self.model))
        .set("loop.model", "bench")
        .set("loop.max_steps", "1000")
        .set("limits.sessions", "5000")
        .set("tools.lease_ttl", "1h")
        .set("telemetry.log_level", "warn")
        .set("session_log.sync", if sync { "always" } else { "none" });
        for (key, value) in more {
            options = options.set(key, *value);
        }
        let home = tempfile::tempdir_in(self.homes.path())?.keep();
        let server = options.start_in(&home)?;
        let client = Client::connect(ClientOptions::at(&server.url))?;
        kit::register(&server.url, "bench", &self.sidecar).await?;
        Ok(Loaded { server, client })
    }

    /// A run of the server: the load `times` times, one after the other.
    ///
    /// # Errors
    /// Where a loop cannot be started, or did other work than it was given.
    pub async fn load(&mut self, loaded: &mut Loaded, work: Workload, times: u32) -> Result<Run> {
        let pid = loaded.server.pid();
        let before = cpu_ms(pid)?;
        let mut last = None;
        for _ in 0..times {
            let base = self.begin(loaded, work).await?.base;
            last = Some(self.seen(base, work).await?);
        }
        let cpu = cpu_ms(pid)? - before;
        Ok(Run::of(
            last.context("at least one time")?,
            cpu,
            work,
            times,
        ))
    }

    /// Starts the loops of a load, and waits for none; the witness tells how they stand.
    ///
    /// # Errors
    /// Where a loop cannot be started.
    pub async fn begin(&mut self, loaded: &Loaded, work: Workload) -> Result<Witness> {
        let base = self.take(work);
        let starts = (base..base + work.loops).map(|number| {
            let client = loaded.client.clone();
            let request = start(work, number, &self.budgets);
            tokio::spawn(async move { client.start_loop(request).await })
        });
        for started in starts.collect::<Vec<_>>() {
            started.await??;
        }
        Ok(Witness {
            model: self.model.clone(),
            http: self.http.clone(),
            base,
            work,
        })
    }

    /// A run of the floor, in a process of its own.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn floor(&mut self, work: Workload, sync: bool) -> Result<Run> {
        let base = self.take(work);
        let Workload {
            loops,
            steps,
            result_bytes,
            pieces,
            ..
        } = work;
        let order = FloorOrder {
            work: [loops, steps, result_bytes, pieces],
            base,
            model: self.model.clone(),
            sidecar: self.sidecar.clone(),
            sync,
        };
        let order = serde_json::to_string(&order)?;
        let child = tokio::task::spawn_blocking(move || Role::start("floor", &[order])).await??;
        let cpu = child.ready.get(1).context("the floor's account")?.parse()?;
        Ok(Run::of(self.seen(base, work).await?, cpu, work, 1))
    }

    /// What the mock saw of a run, once it is over; checks that it was the whole work.
    async fn seen(&self, base: u32, work: Workload) -> Result<Seen> {
        let url = format!("{}/seen?base={base}&loops={}", self.model, work.loops);
        let body = self
            .http
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
        let seen: Seen = serde_json::from_slice(&body)?;
        let calls = work.loops * (work.steps + 1);
        ensure!(
            seen.model_calls == calls,
            "{} model calls, not {calls}",
            seen.model_calls
        );
        Ok(seen)
    }

    fn take(&mut self, work: Workload) -> u32 {
        let base = self.next;
        self.next += work.loops;
        base
    }
}

impl Run {
    fn of(seen: Seen, cpu_ms: f64, work: Workload, times: u32) -> Self {
        let steps = f64::from(work.all_steps());
        let steps_per_second = steps / seen.seconds.max(1e-9);
        Self {
            seen,
            cpu_ms_per_step: cpu_ms / (steps * f64::from(times)),
            steps_per_second,
        }
    }
}

fn start(work: Workload, number: u32, budgets: &[String]) -> StartLoopRequest {
    StartLoopRequest {
        input: Some(start_loop_request::Input::Text(work.message(number))),
        agent: Some(Agent {
            model: "bench".to_owned(),
            budgets: budgets.to_vec(),
            // The work of the page is one remote tool.
            tools: Some(ToolSelection {
                tools: vec!["bench__work".to_owned()],
            }),
            limits: Some(LoopLimits {
                max_steps: Some(1000),
                ..LoopLimits::default()
            }),
            ..Agent::default()
        }),
        ..StartLoopRequest::default()
    }
}

impl Loaded {
    /// A client of the server.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Appends, syncs and journal bytes so far.
    ///
    /// # Errors
    /// Where the server does not tell them.
    pub async fn counters(&self) -> Result<(f64, f64, f64)> {
        let text = self.meters().await?;
        Ok((
            value(&text, "loopwright_log_appends_total")?,
            value(&text, "loopwright_log_syncs_total")?,
            value(&text, "loopwright_log_journal_bytes_total")?,
        ))
    }

    /// Waits until every session is at rest: none is driven, and the log has let go of their state.
    ///
    /// # Errors
    /// Where the server does not tell.
    pub async fn until_at_rest(&self) -> Result<()> {
        // The registrations of sidecars, and what the log says of itself, are streams too.
        self.until_resident(8.0).await
    }

    /// Waits until no session is driven: what their drivers write last is written.
    ///
    /// # Errors
    /// Where the server does not tell.
    pub async fn until_let_go(&self) -> Result<()> {
        self.until_resident(f64::INFINITY).await
    }

    async fn until_resident(&self, most: f64) -> Result<()> {
        loop {
            let text = self.meters().await?;
            let driven = value(&text, "loopwright_drivers")?;
            let resident = value(&text, "loopwright_log_resident_streams")?;
            if driven <= 0.0 && resident <= most {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn meters(&self) -> Result<String> {
        Ok(reqwest::get(format!("{}/metrics", self.server.url))
            .await?
            .text()
            .await?)
    }
}

/// The value of a meter in the text of `/metrics`.
fn value(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.with_context(|| format!("no meter {name} in:\n{text}"))?;
    line.split_whitespace()
        .next_back()
        .context("a value")?
        .parse()
        .context("a number")
}
