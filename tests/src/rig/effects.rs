//! What the tools of a rig did: a file with a line for each real effect, and what a sidecar remembers
//! of its calls by their keys.
//!
//! Boundary: knows requests, and nothing of who serves them. Invariant: an effect's line is in the file
//! before anybody is told of its result.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use loopwright_proto::v1::{
    AttachCallRequest, CallNeverStarted, CallNotKnown, CallRunning, CallToolRequest, EffectClass,
    LookupCallRequest, attach_call_response, lookup_call_response,
};
use tokio::sync::watch;

use crate::sidecar::said;

/// One effect, as its line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What the server gave the call to be recognised by: `namespace/session@born/call`.
    pub key: String,
    /// The tool's own name.
    pub tool: String,
    /// The attempt that had it.
    pub attempt: u32,
    /// The epoch of the driver that called.
    pub epoch: u64,
}

impl Effect {
    /// The call, as `session/call`.
    #[must_use]
    pub fn call(&self) -> String {
        let mut parts = self.key.split('/').skip(1);
        let (session, call) = (parts.next(), parts.next());
        let session = session.and_then(|session| session.split('@').next());
        format!("{}/{}", session.unwrap_or(""), call.unwrap_or(""))
    }
}

/// The file and the memory; clones share them.
#[derive(Clone, Debug)]
pub struct Effects(Arc<Shared>);

/// A call that runs, until it is dropped.
#[derive(Debug)]
pub struct Running {
    effects: Effects,
    key: String,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    memory: Mutex<Memory>,
    /// Rises with every effect and every end of a call.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Memory {
    file: File,
    /// Calls that had their effect.
    kept: BTreeMap<String, Kept>,
    /// Attempts that run now.
    running: BTreeMap<String, u32>,
    /// Calls that are promised not to run: below this epoch, and up to this attempt.
    bound: BTreeMap<String, (u64, u32)>,
    /// Calls of which the sidecar knows nothing any more.
    forgotten: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Kept {
    arguments_sha256: String,
    epoch: u64,
    result: String,
}

impl Effects {
    /// Nothing has happened yet; what does is written to `path`.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        let memory = Memory {
            file: File::create(path)?,
            kept: BTreeMap::new(),
            running: BTreeMap::new(),
            bound: BTreeMap::new(),
            forgotten: BTreeSet::new(),
        };
        Ok(Self(Arc::new(Shared {
            path: path.to_owned(),
            memory: Mutex::new(memory),
            changes: watch::Sender::default(),
        })))
    }

    /// Takes a call on, unless it was promised that it would not run.
    ///
    /// # Errors
    /// Why it is not executed.
    pub fn begin(&self, request: &CallToolRequest) -> Result<Running, String> {
        let CallToolRequest {
            key,
            epoch,
            attempt,
            ..
        } = request;
        let mut memory = self.memory();
        if let Some((above, up_to)) = memory.bound.get(key)
            && (epoch < above || attempt <= up_to)
        {
            return Err(format!("{key} was said not to have started"));
        }
        *memory.running.entry(key.clone()).or_default() += 1;
        Ok(Running {
            effects: self.clone(),
            key: key.clone(),
        })
    }

    /// Has the effect; a deduplicated one only if the key is new. The result.
    ///
    /// # Errors
    /// Why it is not executed.
    pub fn act(&self, request: &CallToolRequest, class: EffectClass) -> Result<String, String> {
        let mut memory = self.memory();
        let CallToolRequest {
            key,
            tool,
            attempt,
            epoch,
            arguments_sha256,
            ..
        } = request;
        if class == EffectClass::Deduplicated
            && let Some(kept) = memory.kept.get_mut(key)
        {
            if kept.arguments_sha256 != *arguments_sha256 {
                return Err(format!("{key} came with other arguments"));
            }
            if *epoch < kept.epoch {
                return Err(format!("{key} is called by a newer driver"));
            }
            kept.epoch = *epoch;
            return Ok(kept.result.clone());
        }
        let line = format!("{key} {tool} {attempt} {epoch}\n");
        let written = memory.file.write_all(line.as_bytes());
        written.map_err(|error| error.to_string())?;
        let result = format!("did {tool} for {key}");
        let kept = Kept {
            arguments_sha256: arguments_sha256.clone(),
            epoch: *epoch,
            result: result.clone(),
        };
        memory.kept.insert(key.clone(), kept);
        drop(memory);
        self.changed();
        Ok(result)
    }

    /// Forgets a call, as a sidecar does that is started again.
    pub fn forget(&self, key: &str) {
        self.memory().forgotten.insert(key.to_owned());
    }

    /// What became of a call.
    #[must_use]
    pub fn lookup(&self, request: &LookupCallRequest) -> lookup_call_response::Outcome {
        use lookup_call_response::Outcome;
        let mut memory = self.memory();
        if memory.forgotten.contains(&request.key) {
            return Outcome::NotKnown(CallNotKnown {
                reason: "the sidecar was started again".to_owned(),
            });
        }
        match memory.kept.get(&request.key) {
            Some(kept) => Outcome::Completed(said(kept.result.as_str())),
            None if memory.running.contains_key(&request.key) => Outcome::Running(CallRunning {}),
            None => {
                let binding = (request.epoch, request.attempt);
                memory.bound.insert(request.key.clone(), binding);
                Outcome::NeverStarted(CallNeverStarted {})
            }
        }
    }

    /// Waits for the end of a call that runs.
    pub async fn attach(&self, request: &AttachCallRequest) -> attach_call_response::Kind {
        use attach_call_response::Kind;
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let kept = {
                let memory = self.memory();
                let kept = memory.kept.get(&request.key).cloned();
                let runs = memory.running.contains_key(&request.key);
                kept.map_or(if runs { Err(()) } else { Ok(None) }, |kept| Ok(Some(kept)))
            };
            match kept {
                Ok(Some(kept)) => return Kind::Result(said(kept.result)),
                Ok(None) => {
                    let reason = "it does not run any more".to_owned();
                    return Kind::NotKnown(CallNotKnown { reason });
                }
                // The sender lives as long as this.
                Err(()) => drop(changes.changed().await),
            }
        }
    }

    /// Rises with every effect and every end of a call.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Every effect so far, as the file has it.
    ///
    /// # Errors
    /// Where the file cannot be read, or a line of it is no effect.
    pub fn all(&self) -> Result<Vec<Effect>> {
        let text = std::fs::read_to_string(&self.0.path)?;
        let effect = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some(Effect {
                key: words.next()?,
                tool: words.next()?,
                attempt: words.next()?.parse().ok()?,
                epoch: words.next()?.parse().ok()?,
            })
        };
        text.lines()
            .map(|line| effect(line).with_context(|| format!("`{line}` is no effect")))
            .collect()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        let memory = self.0.memory.lock();
        memory.unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut memory = self.effects.memory();
        if let Some(attempts) = memory.running.get_mut(&self.key) {
            *attempts -= 1;
            if *attempts == 0 {
                memory.running.remove(&self.key);
            }
        }
        drop(memory);
        self.effects.changed();
    }
}

#[cfg(test)]
mod tests {
    use lookup_call_response::Outcome;

    use super::*;

    fn call(attempt: u32, epoch: u64) -> CallToolRequest {
        CallToolRequest {
            key: "default/s/c1".to_owned(),
            tool: "act".to_owned(),
            attempt,
            epoch,
            ..CallToolRequest::default()
        }
    }

    fn lookup(attempt: u32, epoch: u64) -> LookupCallRequest {
        LookupCallRequest {
            key: "default/s/c1".to_owned(),
            attempt,
            epoch,
            ..LookupCallRequest::default()
        }
    }

    #[test]
    fn a_sidecar_keeps_its_word() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let effects = Effects::new(&dir.path().join("effects"))?;
        let said = effects.lookup(&lookup(1, 2));
        assert!(matches!(said, Outcome::NeverStarted(_)), "{said:?}");
        assert!(
            effects.begin(&call(1, 1)).is_err(),
            "a request that was on its way"
        );
        assert!(
            effects.begin(&call(1, 2)).is_err(),
            "the attempt that was asked about"
        );
        let running = effects.begin(&call(2, 2)).map_err(anyhow::Error::msg)?;
        let said = effects.lookup(&lookup(2, 3));
        assert!(matches!(said, Outcome::Running(_)), "{said:?}");
        let done = effects.act(&call(2, 2), EffectClass::Deduplicated);
        assert_eq!(done, effects.act(&call(3, 3), EffectClass::Deduplicated));
        assert!(
            effects.act(&call(2, 2), EffectClass::Deduplicated).is_err(),
            "a lower epoch"
        );
        drop(running);
        let said = effects.lookup(&lookup(3, 3));
        assert!(matches!(said, Outcome::Completed(_)), "{said:?}");
        assert_eq!(effects.all()?.len(), 1);
        effects
            .act(&call(3, 3), EffectClass::Idempotent)
            .map_err(anyhow::Error::msg)?;
        assert_eq!(
            effects.all()?.len(),
            2,
            "a tool that remembers nothing acts again"
        );
        effects.forget("default/s/c1");
        let said = effects.lookup(&lookup(3, 3));
        assert!(matches!(said, Outcome::NotKnown(_)), "{said:?}");
        Ok(())
    }
}
