//! File systems of a rig's own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// A mounted file system, until it is dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// One in memory, with these options of tmpfs.
    ///
    /// # Errors
    /// Where it cannot be mounted; with why.
    pub fn tmpfs(dir: &Path, options: &str) -> Result<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("{options},mode=0700"), "rig"]);
        done(mount.arg(dir))?;
        Ok(Self(dir.to_owned()))
    }

    /// The ext4 of an image, with these options, by a loop device.
    ///
    /// # Errors
    /// Where it cannot be mounted; with why.
    pub fn image(image: &Path, dir: &Path, options: &str) -> Result<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", &format!("loop,{options}")]);
        done(mount.arg(image).arg(dir))?;
        Ok(Self(dir.to_owned()))
    }

    /// With other options.
    ///
    /// # Errors
    /// Where that is refused; with why.
    pub fn again(&self, options: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]);
        done(mount.arg(&self.0))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs a command to its end.
///
/// # Errors
/// Where it fails; with what it said.
pub fn done(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
