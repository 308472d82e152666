//! A disk over another one: it reads what lies there, and keeps every change in memory.
//!
//! So recovery can be tried on a directory that is in use, or that must stay as it is. Invariant:
//! nothing below is ever written, made, renamed, removed, synced or locked.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Disk, DiskFile, Listed, Lock, LockError, OpenAs};
use crate::live::lock;

/// What has changed, above a disk that has not.
pub(crate) struct Overlay {
    below: Arc<dyn Disk>,
    changed: Mutex<BTreeMap<PathBuf, Node>>,
}

#[derive(Clone)]
enum Node {
    Dir,
    File(Arc<OverlayFile>),
    Gone,
}

/// A file whose beginning may lie below. It holds no descriptor: there may be thousands.
struct OverlayFile {
    below: Arc<dyn Disk>,
    path: PathBuf,
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    /// Bytes at the beginning that are those of the file below.
    kept: u64,
    /// What comes after them.
    new: Vec<u8>,
}

impl Overlay {
    pub(crate) fn new(below: Arc<dyn Disk>) -> Overlay {
        Overlay {
            below,
            changed: Mutex::default(),
        }
    }

    fn node(&self, path: &Path) -> Option<Node> {
        lock(&self.changed).get(path).cloned()
    }

    fn change(&self, path: &Path, node: Node) {
        lock(&self.changed).insert(path.into(), node);
    }

    fn file(&self, path: &Path, kept: u64) -> Arc<OverlayFile> {
        let new = Vec::new();
        Arc::new(OverlayFile {
            below: self.below.clone(),
            path: path.into(),
            content: Mutex::new(Content { kept, new }),
        })
    }

    /// The file below, as long as it is now: one that grows shows what it had.
    fn look_below(&self, path: &Path) -> io::Result<Arc<OverlayFile>> {
        let size = self.below.open(path, OpenAs::Read)?.size()?;
        Ok(self.file(path, size))
    }
}

impl Disk for Overlay {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let new = !self.exists(path)?;
        if new {
            self.change(path, Node::Dir);
        }
        Ok(new)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Arc<dyn DiskFile>> {
        let file = match (self.node(path), how) {
            (Some(Node::File(file)), OpenAs::Read | OpenAs::Append) => return Ok(file),
            (Some(Node::Gone), OpenAs::Read) => return Err(io::ErrorKind::NotFound.into()),
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (None, OpenAs::Read) => return Ok(self.look_below(path)?),
            (None, OpenAs::Append) => match self.look_below(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.file(path, 0),
                file => file?,
            },
            (Some(Node::Gone), OpenAs::Append) | (_, OpenAs::Fresh) => self.file(path, 0),
        };
        self.change(path, Node::File(file.clone()));
        Ok(file)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.node(path) {
            Some(node) => Ok(!matches!(node, Node::Gone)),
            None => self.below.exists(path),
        }
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        match self.node(path) {
            Some(Node::File(file)) => file.size().map(Some),
            Some(Node::Dir | Node::Gone) => Ok(None),
            None => self.below.size(path),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let node = match self.node(from) {
            Some(Node::Gone) => return Err(io::ErrorKind::NotFound.into()),
            Some(node) => node,
            None => Node::File(self.look_below(from)?),
        };
        self.change(to, node);
        self.change(from, Node::Gone);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(path, Node::Gone);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = self.below.list(path)?;
        let changed = lock(&self.changed);
        listed.retain(|entry| !changed.contains_key(&path.join(&entry.name)));
        let inside = changed
            .iter()
            .filter(|(name, node)| name.parent() == Some(path) && !matches!(node, Node::Gone));
        listed.extend(inside.filter_map(|(name, node)| {
            Some(Listed {
                name: name.file_name()?.to_str()?.to_owned(),
                is_dir: matches!(node, Node::Dir),
            })
        }));
        Ok(listed)
    }

    fn lock(&self, _path: &Path) -> Result<Lock, LockError> {
        Ok(Box::new(()))
    }
}

impl DiskFile for OverlayFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut content = lock(&self.content);
        parts
            .iter()
            .for_each(|part| content.new.extend_from_slice(part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let kept = {
            let content = lock(&self.content);
            if offset >= content.kept {
                let from = usize::try_from(offset - content.kept).unwrap_or(usize::MAX);
                let rest = content.new.get(from..).unwrap_or_default();
                let len = rest.len().min(buffer.len());
                buffer[..len].copy_from_slice(&rest[..len]);
                return Ok(len);
            }
            content.kept
        };
        let len =
            usize::try_from(kept - offset).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let file = self.below.open(&self.path, OpenAs::Read)?;
        file.read_at(&mut buffer[..len], offset)
    }

    fn size(&self) -> io::Result<u64> {
        let content = lock(&self.content);
        Ok(content.kept + content.new.len() as u64)
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        let mut content = lock(&self.content);
        let new = size.saturating_sub(content.kept);
        content.kept = content.kept.min(size);
        content
            .new
            .truncate(usize::try_from(new).unwrap_or(usize::MAX));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::disk::{append_all, read_file};

    #[test]
    fn changes_show_above_and_not_below() {
        let disk = SimDisk::default();
        let at = |name: &str| PathBuf::from("/d").join(name);
        disk.create_dir(Path::new("/d")).unwrap();
        for name in ["grows", "cut", "moved", "gone"] {
            disk.put(&at(name), b"12345");
        }
        let over = Overlay::new(Arc::new(disk.clone()));
        let append = |name: &str| over.open(&at(name), OpenAs::Append).unwrap();
        append_all(&*append("grows"), &[b"678"]).unwrap();
        append("cut").cut(2).unwrap();
        append_all(&*append("cut"), &[b"ab"]).unwrap();
        over.rename(&at("moved"), &at("there")).unwrap();
        over.remove(&at("gone")).unwrap();
        over.create_dir(&at("dir")).unwrap();
        let fresh = over.open(&at("grows2"), OpenAs::Fresh).unwrap();
        append_all(&*fresh, &[b"new"]).unwrap();
        let content = |name: &str| read_file(&over, &at(name)).map(|bytes| bytes.to_vec());
        assert_eq!(content("grows").unwrap(), b"12345678");
        assert_eq!(content("cut").unwrap(), b"12ab");
        assert_eq!(content("there").unwrap(), b"12345");
        assert_eq!(content("grows2").unwrap(), b"new");
        for name in ["moved", "gone"] {
            assert_eq!(content(name).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        let mut listed: Vec<_> = over.list(Path::new("/d")).unwrap();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        let listed: Vec<_> = listed.iter().map(|one| (&*one.name, one.is_dir)).collect();
        assert_eq!(
            listed,
            [
                ("cut", false),
                ("dir", true),
                ("grows", false),
                ("grows2", false),
                ("there", false)
            ]
        );
        for name in ["grows", "cut", "moved", "gone"] {
            assert_eq!(disk.content(&at(name)).unwrap(), b"12345", "{name}");
        }
        assert_eq!(disk.paths().len(), 5, "nothing was made below");
    }
}
