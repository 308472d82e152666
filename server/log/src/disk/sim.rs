//! A simulated disk, seeded: it loses what was not synced, tears writes, fills up, fails syncs
//! and stops at a chosen operation, the same way for the same seed.
//!
//! Invariant: it is never kinder than the contract of [`Disk`]. A failed sync behaves as Linux
//! does: the bytes stay readable and count as clean, so a later sync answers `Ok` and keeps nothing.

mod dice;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use dice::Dice;

use super::{Disk, DiskFile, Listed, Lock, LockError, OpenAs};
use crate::live::lock;

/// A disk in memory that fails as told. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What is to go wrong; operations are counted from 1 since the last [`SimDisk::plan`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// The power goes at this operation: it and all later ones fail.
    pub power_cut_at: Option<u64>,
    /// This sync, of a file or a directory (counted alone), fails once.
    pub failing_sync: Option<u64>,
    /// This append (counted alone) writes a part and fails once.
    pub failing_append: Option<u64>,
    /// Cutting a file fails.
    pub failing_cut: bool,
    /// Bytes that all files together may take.
    pub capacity: Option<u64>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    operations: u64,
    syncs: u64,
    appends: u64,
    inodes: Vec<Inode>,
    /// Names as a running process sees them; `None` is a directory.
    names: BTreeMap<PathBuf, Option<usize>>,
    /// Names that survive a loss of power.
    durable: BTreeMap<PathBuf, Option<usize>>,
    /// What may not be opened or synced, and the error that says so.
    refused: BTreeMap<PathBuf, io::ErrorKind>,
    locked: bool,
}

#[derive(Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Bytes of `seen` that a failed sync has marked clean without keeping them.
    ghosts: Vec<Range<usize>>,
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

struct SimLock(SimDisk);

impl SimDisk {
    /// What is to go wrong from here on.
    pub fn plan(&self, plan: Plan) {
        let mut state = lock(&self.0);
        (state.plan, state.operations, state.syncs, state.appends) = (plan, 0, 0, 0);
    }

    /// Operations since the last plan.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.0).operations
    }

    /// From here on this name can neither be opened nor synced: it is somebody else's, or rotten.
    pub fn refuse(&self, path: &Path, kind: io::ErrorKind) {
        lock(&self.0).refused.insert(path.into(), kind);
    }

    /// The process dies; the machine does not. Nothing is lost, the lock is free.
    pub fn kill(&self) {
        lock(&self.0).locked = false;
        self.plan(Plan::default());
    }

    /// The power goes and comes back: what was not synced survives in part, as the dice say.
    pub fn power_cycle(&self, dice: &mut Dice) {
        let mut state = lock(&self.0);
        for inode in &mut state.inodes {
            inode.lose(dice);
        }
        let mut names = state.durable.clone();
        for (path, now) in &state.names {
            if names.get(path) != Some(now) && dice.one_in(2) {
                names.insert(path.clone(), *now);
            }
        }
        for path in state.durable.keys() {
            if !state.names.contains_key(path) && dice.one_in(2) {
                names.remove(path);
            }
        }
        let kept = names.clone();
        names.retain(|path, _| {
            path.ancestors()
                .skip(1)
                .all(|dir| is_given(dir) || kept.get(dir) == Some(&None))
        });
        state.names.clone_from(&names);
        state.durable = names;
        drop(state);
        self.kill();
    }

    /// Changes a durable byte of a file, as rot does. For tests.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn rot(&self, path: &Path, offset: usize, change: impl FnOnce(&mut u8)) {
        let mut state = lock(&self.0);
        let inode = state
            .names
            .get(path)
            .copied()
            .flatten()
            .expect("a file to rot");
        change(&mut state.inodes[inode].seen[offset]);
        let seen = state.inodes[inode].seen.clone();
        state.inodes[inode].durable = seen;
    }

    /// Replaces the content of a file, durably; makes it if its directory exists. For tests.
    pub fn put(&self, path: &Path, content: &[u8]) {
        let mut state = lock(&self.0);
        let (seen, durable, ghosts) = (content.to_vec(), content.to_vec(), Vec::new());
        state.inodes.push(Inode {
            seen,
            durable,
            ghosts,
        });
        let inode = state.inodes.len() - 1;
        state.names.insert(path.into(), Some(inode));
        state.durable.insert(path.into(), Some(inode));
    }

    /// The content of a file as a process sees it. For tests.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = lock(&self.0);
        let inode = state.names.get(path).copied().flatten()?;
        Some(state.inodes[inode].seen.clone())
    }

    /// Every name, for tests.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.0).names.keys().cloned().collect()
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = lock(&self.0);
        state.operations += 1;
        match state.plan.power_cut_at {
            Some(cut) if state.operations >= cut => Err(io::Error::other("the power is gone")),
            _ => Ok(state),
        }
    }
}

impl State {
    fn admits(&self, path: &Path) -> io::Result<()> {
        let refused = self.refused.get(path);
        refused.map_or(Ok(()), |kind| Err((*kind).into()))
    }
}

impl Inode {
    /// What was appended since the last sync survives up to some byte, perhaps with holes.
    fn lose(&mut self, dice: &mut Dice) {
        let mut disk = self.seen.clone();
        for ghost in std::mem::take(&mut self.ghosts) {
            let end = ghost.end.min(disk.len());
            disk[ghost.start.min(end)..end].fill(0);
        }
        let same = shared(&disk, &self.durable);
        if same < disk.len().max(self.durable.len()) {
            if dice.one_in(3) {
                disk.clone_from(&self.durable);
            } else {
                let fresh = (disk.len() - same.min(disk.len())) as u64;
                let kept = usize::try_from(dice.below(fresh + 1)).expect("within the file");
                disk.truncate(same + kept);
                // A block in the middle that did not make it, before one that did.
                if kept > 2 && dice.one_in(3) {
                    let from = same + usize::try_from(dice.below(kept as u64)).expect("small");
                    let to = (from + 1 + usize::try_from(dice.below(64)).expect("small"))
                        .min(disk.len());
                    disk[from..to].fill(0);
                }
            }
        }
        self.seen.clone_from(&disk);
        self.durable = disk;
    }

    fn sync(&mut self) {
        let mut disk = self.seen.clone();
        for ghost in &self.ghosts {
            let end = ghost.end.min(disk.len());
            disk[ghost.start.min(end)..end].fill(0);
        }
        self.durable = disk;
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.step()?;
        if state.names.contains_key(path) {
            return Ok(false);
        }
        state.names.insert(path.into(), None);
        Ok(true)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.syncs += 1;
        if state.plan.failing_sync == Some(state.syncs) {
            return Err(io::Error::other("input/output error"));
        }
        state.admits(path)?;
        let dir = match path.to_str() {
            // Where relative names begin has a name only to sync it by.
            Some("") => return Err(io::ErrorKind::NotFound.into()),
            Some(".") => Path::new(""),
            _ => path,
        };
        if !is_given(dir) && state.names.get(dir) != Some(&None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |name: &PathBuf| name.parent() == Some(dir);
        let now: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| inside(name))
            .map(|(n, i)| (n.clone(), *i))
            .collect();
        let gone: Vec<PathBuf> = state
            .durable
            .iter()
            .filter(|(name, inode)| {
                inode.is_none() && inside(name) && !state.names.contains_key(*name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        state
            .durable
            .retain(|name, _| !inside(name) && !gone.iter().any(|dir| name.starts_with(dir)));
        state.durable.extend(now);
        Ok(())
    }

    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.step()?;
        state.admits(path)?;
        let known = state
            .names
            .get(path)
            .copied()
            .flatten()
            .filter(|_| how != OpenAs::Fresh);
        let inode = match known {
            Some(inode) => inode,
            None if how == OpenAs::Read => return Err(io::ErrorKind::NotFound.into()),
            None if path
                .parent()
                .is_none_or(|dir| state.names.get(dir) != Some(&None)) =>
            {
                return Err(io::ErrorKind::NotFound.into());
            }
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(path.into(), Some(inode));
                inode
            }
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.step()?.names.contains_key(path))
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.step()?;
        let inode = state.names.get(path).copied().flatten();
        Ok(inode.map(|inode| state.inodes[inode].seen.len() as u64))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.step()?.names.remove(path);
        removed
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        if state.names.get(path) != Some(&None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.names.keys().any(|name| name.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.names.remove(path);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let state = self.step()?;
        let inside = state
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(path));
        let listed = inside.filter_map(|(name, inode)| {
            let name = name.file_name()?.to_str()?.to_owned();
            Some(Listed {
                name,
                is_dir: inode.is_none(),
            })
        });
        Ok(listed.collect())
    }

    fn lock(&self, _path: &Path) -> Result<Lock, LockError> {
        let mut state = self.step().map_err(LockError::Io)?;
        if state.locked {
            return Err(LockError::Held { pid: None });
        }
        state.locked = true;
        Ok(Box::new(SimLock(self.clone())))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        lock(&self.0.0).locked = false;
    }
}

impl DiskFile for SimFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let cut = self.disk.step();
        let mut state = match cut {
            Ok(state) => state,
            Err(error) => {
                // The write that the power cut meets may have begun.
                let mut state = lock(&self.disk.0);
                if state.plan.power_cut_at == Some(state.operations) {
                    let part = joined(parts);
                    state.inodes[self.inode]
                        .seen
                        .extend_from_slice(&part[..part.len() / 2]);
                }
                return Err(error);
            }
        };
        state.appends += 1;
        let mut bytes = joined(parts);
        let used: u64 = state
            .inodes
            .iter()
            .map(|inode| inode.seen.len() as u64)
            .sum();
        if let Some(capacity) = state.plan.capacity {
            let room = usize::try_from(capacity.saturating_sub(used)).unwrap_or(usize::MAX);
            if room == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.truncate(room);
        }
        let fails = state.plan.failing_append == Some(state.appends);
        if fails {
            bytes.truncate(bytes.len() / 2);
        }
        state.inodes[self.inode].seen.extend_from_slice(&bytes);
        if fails {
            Err(io::Error::other("input/output error"))
        } else {
            Ok(bytes.len())
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.step()?;
        let seen = &state.inodes[self.inode].seen;
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(seen.len());
        let len = buffer.len().min(seen.len() - from);
        buffer[..len].copy_from_slice(&seen[from..from + len]);
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.step()?.inodes[self.inode].seen.len() as u64)
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.step()?;
        if state.plan.failing_cut {
            return Err(io::Error::other("input/output error"));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let inode = &mut state.inodes[self.inode];
        inode.seen.resize(size, 0);
        // What is written there again is dirty again, and can be kept.
        inode.ghosts.retain(|ghost| ghost.start < size);
        for ghost in &mut inode.ghosts {
            ghost.end = ghost.end.min(size);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.step()?;
        state.syncs += 1;
        let fails = state.plan.failing_sync == Some(state.syncs);
        let inode = &mut state.inodes[self.inode];
        if fails {
            let same = shared(&inode.seen, &inode.durable);
            inode.ghosts.push(same..inode.seen.len());
            return Err(io::Error::other("input/output error"));
        }
        inode.sync();
        Ok(())
    }
}

/// The directories that names begin in: nobody makes them.
fn is_given(dir: &Path) -> bool {
    dir == Path::new("/") || dir.as_os_str().is_empty()
}

fn joined(parts: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// How many bytes two texts share at their beginning.
fn shared(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    if a[..len] == b[..len] {
        return len;
    }
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
