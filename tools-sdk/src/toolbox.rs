//! The checked tools of one sidecar, and the one way into them: every call, from the wire or from a test,
//! passes `begin`.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use loopwright_proto::v1;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::{Answer, Outcome, ToolError};
use crate::connection::Connection;
use crate::context::{CallIdentity, ToolContext};
use crate::error::DefinitionError;
use crate::inquiry::terms_of;
use crate::keyfile::{Begun, KeyFile};
use crate::memory::Memory;
use crate::running::{Listener, Running};
use crate::schema::ArgumentSchema;
use crate::tool::Tool;
use crate::{name, wire};

/// Most calls of one sidecar at a time, all tools together.
const MAX_CALLS: usize = 256;
/// When a call refused for want of a place may be tried again.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Longest identifier or key that is read, in bytes.
const MAX_ID_BYTES: usize = 1024;

/// The tools of a sidecar that may be served, and the calls that run on them.
pub(crate) struct Toolbox {
    slots: BTreeMap<String, Arc<Slot>>,
    places: Arc<Semaphore>,
    pub(crate) memory: Memory,
    pub(crate) keyfile: OnceLock<Arc<KeyFile>>,
    pub(crate) tasks: TaskTracker,
    /// Tells every call to stop.
    pub(crate) stop: CancellationToken,
}

struct Slot {
    tool: Tool,
    schema: ArgumentSchema,
    places: Option<Arc<Semaphore>>,
}

impl Toolbox {
    /// Checks the sidecar's name and each tool.
    pub(crate) fn check(name: &str, tools: &[Tool]) -> Result<Self, DefinitionError> {
        name::check_sidecar(name)?;
        if tools.is_empty() {
            return Err(DefinitionError::NoTools(name.to_owned()));
        }
        let mut slots = BTreeMap::new();
        for tool in tools {
            let slot = Arc::new(Slot::check(tool)?);
            if slots.insert(tool.name.clone(), slot).is_some() {
                return Err(DefinitionError::DuplicateTool(tool.name.clone()));
            }
        }
        Ok(Self {
            slots,
            places: Arc::new(Semaphore::new(MAX_CALLS)),
            memory: Memory::new(),
            keyfile: OnceLock::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Remembers keys in a file from now on, and those that it holds already.
    pub(crate) fn remember_in(&self, path: PathBuf) -> io::Result<()> {
        let keyfile = KeyFile::new(path);
        let kept = keyfile.load()?;
        let memory = keyfile.memory();
        if self.keyfile.set(keyfile).is_ok() {
            self.memory.restore(kept, memory);
        }
        Ok(())
    }

    /// Lets another process have the key file, once no call runs.
    pub(crate) fn close(&self) {
        if let Some(file) = self.keyfile.get() {
            file.close();
        }
    }

    /// What Describe says, by name.
    pub(crate) fn specs(&self) -> Vec<v1::ToolSpec> {
        self.slots
            .values()
            .map(|slot| wire::tool_spec(&slot.tool))
            .collect()
    }

    /// Starts or joins a call. An error is the outcome of a call that surely did not run.
    pub(crate) fn begin(
        &self,
        request: v1::CallToolRequest,
        traceparent: Option<String>,
        connection: Option<Connection>,
    ) -> Result<Listener, Outcome> {
        let slot = self
            .slots
            .get(&request.tool)
            .ok_or_else(|| self.no_such_tool(&request.tool))?;
        check_ids(&request)?;
        self.check_instance(&request)?;
        let hash = check_hash(&request)?;
        let arguments = read_arguments(&request.arguments_json)?;
        slot.schema.check(&arguments).map_err(|faults| {
            Outcome::not_executed(format!(
                "the arguments of {} do not fit: {faults}",
                request.tool
            ))
        })?;
        refuse_overdue(&request)?;
        let leaving = self.leaving(&request.tool, connection);
        // Without a key there is nothing to ask about; a deduplicated tool refuses it.
        let terms = terms_of(&slot.tool).filter(|terms| !terms.lossy || !request.key.is_empty());
        let Some(terms) = terms else {
            let running = self.start(slot, request, traceparent, arguments, None)?;
            return Ok(running.listen(leaving));
        };
        let asked = Begun {
            key: request.key.clone(),
            arguments_sha256: hash,
            epoch: request.epoch,
            attempt: request.attempt,
            ..terms
        };
        let start = |begun| self.start(slot, request, traceparent, arguments, Some(begun));
        Ok(self.memory.enter(&asked, start)?.listen(leaving))
    }

    /// The tool of this name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Tool> {
        self.slots.get(name).map(|slot| &slot.tool)
    }

    fn start(
        &self,
        slot: &Arc<Slot>,
        request: v1::CallToolRequest,
        traceparent: Option<String>,
        arguments: Value,
        remembered: Option<Begun>,
    ) -> Result<Arc<Running>, Outcome> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let reason = format!("the sidecar runs {MAX_CALLS} calls already, its limit");
            Outcome::try_later(reason, BUSY_PAUSE)
        })?;
        let own_place = slot.place()?;
        let running = Running::new(self.stop.child_token());
        let deadline = request.deadline.as_ref().and_then(wire::system_time);
        let context = ToolContext {
            call: CallIdentity {
                session_id: request.session_id,
                call: request.call,
                key: request.key,
                attempt: request.attempt,
                epoch: request.epoch,
            },
            deadline,
            traceparent,
            progress: running.progress.clone(),
            stop: running.stop.clone(),
        };
        let (slot, task) = (Arc::clone(slot), Arc::clone(&running));
        let until = deadline.map(monotonic);
        let noted = remembered.and_then(|begun| Some((Arc::clone(self.keyfile.get()?), begun)));
        self.tasks.spawn(async move {
            let _places = (place, own_place);
            let work = slot.tool.run(context, arguments);
            let outcome = match noted {
                None => task.run_to_end(work, until).await,
                Some((file, begun)) => run_noted(&task, work, until, &file, begun).await,
            };
            task.publish(outcome);
        });
        Ok(running)
    }

    /// A call that is meant for another process would be asked about there.
    fn check_instance(&self, request: &v1::CallToolRequest) -> Result<(), Outcome> {
        let meant = request.instance();
        if meant.is_empty() || self.memory.is_of(meant) {
            return Ok(());
        }
        Err(Outcome::try_later(
            "the call is meant for an earlier process of this sidecar",
            BUSY_PAUSE,
        ))
    }

    pub(crate) fn no_such_tool(&self, tool: &str) -> Outcome {
        let names: Vec<&str> = self.slots.keys().map(String::as_str).collect();
        let asked: String = tool.chars().take(64).collect();
        let known = names.join(", ");
        Outcome::not_executed(format!(
            "there is no tool {asked:?}; this sidecar has: {known}"
        ))
    }
}

impl Slot {
    fn check(tool: &Tool) -> Result<Self, DefinitionError> {
        tool.check()?;
        let schema =
            ArgumentSchema::compile(&tool.input_schema).map_err(|why| DefinitionError::Tool {
                tool: tool.name.clone(),
                why,
            })?;
        let places = tool.max_concurrency.map(|calls| {
            let calls = usize::try_from(calls).unwrap_or(MAX_CALLS).min(MAX_CALLS);
            Arc::new(Semaphore::new(calls))
        });
        Ok(Self {
            tool: tool.clone(),
            schema,
            places,
        })
    }

    fn place(&self) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, Outcome> {
        let Some(places) = &self.places else {
            return Ok(None);
        };
        let place = Arc::clone(places).try_acquire_owned().map_err(|_| {
            let limit = self.tool.max_concurrency.unwrap_or_default();
            let name = &self.tool.name;
            Outcome::try_later(
                format!("{limit} calls of {name} run already, its limit"),
                BUSY_PAUSE,
            )
        })?;
        Ok(Some(place))
    }
}

/// Runs a call between its two notes in the key file.
async fn run_noted(
    task: &Running,
    work: impl Future<Output = Result<Answer, ToolError>>,
    until: Option<Instant>,
    file: &Arc<KeyFile>,
    begun: Begun,
) -> Outcome {
    if let Err(error) = file.begin(begun.clone()).await {
        return Outcome::not_executed(format!("the call cannot be remembered on disk: {error}"));
    }
    let outcome = task.run_to_end(work, until).await;
    if let Err(error) = file.end(&begun, &outcome).await {
        // It ran: it is answered now, and after a restart as a call whose end is not known.
        tracing::warn!(%error, "the end of a call cannot be remembered on disk");
    }
    outcome
}

/// SHA-256 of an arguments text, as the wire writes it.
pub(crate) fn arguments_sha256(arguments_json: &str) -> String {
    format!("{:x}", Sha256::digest(arguments_json.as_bytes()))
}

fn check_ids(request: &v1::CallToolRequest) -> Result<(), Outcome> {
    for (field, id) in [
        ("session_id", &request.session_id),
        ("call", &request.call),
        ("key", &request.key),
        ("instance", &request.instance.clone().unwrap_or_default()),
    ] {
        if id.len() > MAX_ID_BYTES {
            return Err(Outcome::not_executed(format!(
                "{field} has {} bytes; at most {MAX_ID_BYTES} are read",
                id.len()
            )));
        }
    }
    Ok(())
}

/// A request that was long on its way: whoever sent it waits no more.
fn refuse_overdue(request: &v1::CallToolRequest) -> Result<(), Outcome> {
    let deadline = request.deadline.as_ref().and_then(wire::system_time);
    if deadline.is_some_and(|deadline| deadline < SystemTime::now()) {
        return Err(Outcome::not_executed("the call's deadline has passed"));
    }
    Ok(())
}

fn check_hash(request: &v1::CallToolRequest) -> Result<String, Outcome> {
    let hash = arguments_sha256(&request.arguments_json);
    if request.arguments_sha256.is_empty() || request.arguments_sha256 == hash {
        return Ok(hash);
    }
    Err(Outcome::not_executed(
        "arguments_sha256 is not the SHA-256 of arguments_json",
    ))
}

fn read_arguments(json: &str) -> Result<Value, Outcome> {
    // A model that wants no arguments may send none at all.
    let json = if json.trim().is_empty() { "{}" } else { json };
    serde_json::from_str(json)
        .map_err(|error| Outcome::not_executed(format!("the arguments are no JSON: {error}")))
}

fn monotonic(deadline: SystemTime) -> Instant {
    // Further off than a day is no limit that a call could meet.
    const FAR: Duration = Duration::from_secs(24 * 60 * 60);
    let left = deadline
        .duration_since(SystemTime::now())
        .unwrap_or(Duration::ZERO);
    Instant::now() + left.min(FAR)
}
