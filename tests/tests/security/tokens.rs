//! A server with a token file: two namespaces, a token for each role in each.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use loopwright_client::Client;
use loopwright_tests::scene::{self, Scene, Stage};

pub(crate) const ROLES: [&str; 4] = ["admin", "user", "viewer", "sidecar"];
pub(crate) const NAMESPACES: [&str; 2] = ["red", "blue"];

/// A guarded server.
pub(crate) struct Guarded {
    pub(crate) scene: Scene,
    _dir: tempfile::TempDir,
}

impl Guarded {
    /// Starts one; its model answers at once, as often as it is asked.
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("tokens");
        write(&path, 0o600)?;
        let script = "{at_end: repeat, turns: [{text: hello}]}";
        let stage = Stage::new(&[("m", script)])?;
        let stage = stage.set("server.auth.token_file", path.display().to_string());
        Ok(Self {
            scene: stage.start()?,
            _dir: dir,
        })
    }

    /// A client with the token of a role in a namespace.
    pub(crate) fn client(&self, namespace: &str, role: &str) -> Result<Client> {
        scene::client(&self.scene.server.url, Some(&token(namespace, role)))
    }
}

/// The token of a role in a namespace.
pub(crate) fn token(namespace: &str, role: &str) -> String {
    format!("secret-of-{namespace}-{role}-0123456789")
}

/// Writes the file of all tokens.
pub(crate) fn write(path: &Path, mode: u32) -> Result<()> {
    let mut lines = String::new();
    for namespace in NAMESPACES {
        for role in ROLES {
            let token = token(namespace, role);
            lines.push_str(&format!(
                "{token} {namespace} {role}-of-{namespace} {role}\n"
            ));
        }
    }
    fs::write(path, lines)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
