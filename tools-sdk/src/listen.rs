//! Where a sidecar listens: a tcp address or a unix socket, and the stream of its connections.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A tcp address; port 0 takes a free one. Loopback only, unless remote callers are allowed.
    Tcp(SocketAddr),
    /// A unix socket at an absolute path, created with mode 0600. A socket left by a dead process is
    /// replaced, any other file is not.
    Unix(PathBuf),
}

/// A bound listener.
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket; removed on drop, if it is still ours.
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Default for Listen {
    /// A free port of 127.0.0.1.
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    /// Reads "127.0.0.1:7071" or "unix:/path".
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err("the path of a unix socket must be absolute: unix:/PATH".to_owned()),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "expected IP:PORT such as 127.0.0.1:7071 (port 0 takes a free one), or unix:/PATH"
                    .to_owned()
            }),
        }
    }
}

impl Listen {
    pub(crate) async fn bind(&self, allow_remote: bool) -> io::Result<Bound> {
        match self {
            Self::Tcp(address) if !address.ip().is_loopback() && !allow_remote => {
                Err(io::Error::other(
                    "it is reachable from other machines, and whoever reaches a sidecar can run its \
                     tools; listen on 127.0.0.1, or allow \
                     remote callers explicitly (--allow-remote, allow_remote_callers)",
                ))
            }
            Self::Tcp(address) => TcpListener::bind(address).await.map(Bound::Tcp),
            Self::Unix(path) => bind_unix(path).await,
        }
    }
}

impl Bound {
    /// The endpoint to dial from this machine.
    pub(crate) fn endpoint(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => {
                let mut address = listener.local_addr()?;
                if address.ip().is_unspecified() {
                    let loopback: std::net::IpAddr = match address {
                        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    };
                    address.set_ip(loopback);
                }
                Ok(format!("http://{address}"))
            }
            Self::Unix(_, file) => Ok(format!("unix:{}", file.path.display())),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == self.inode);
        if ours {
            // A socket that stays behind is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds within a private directory and moves the socket into place once its mode is right: at no time can
/// another user connect, and a dead process's socket is replaced atomically.
async fn bind_unix(path: &Path) -> io::Result<Bound> {
    refuse_taken(path).await?;
    let parent = path
        .parent()
        .filter(|_| path.is_absolute())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path of a unix socket must be absolute",
            )
        })?;
    // The tail of a fresh id is random. Short, since a socket's path has at most 107 bytes.
    let id = uuid::Uuid::now_v7().simple().to_string();
    let private = parent.join(format!(".lw{}", &id[24..]));
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = bind_within(&private, path);
    let removed = std::fs::remove_dir_all(&private);
    let bound = bound?;
    removed?;
    Ok(bound)
}

fn bind_within(private: &Path, path: &Path) -> io::Result<Bound> {
    let draft = private.join("s");
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
    let metadata = std::fs::symlink_metadata(&draft)?;
    std::fs::rename(&draft, path)?;
    let file = SocketFile {
        path: path.to_owned(),
        inode: (metadata.dev(), metadata.ino()),
    };
    Ok(Bound::Unix(listener, file))
}

async fn refuse_taken(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        let text = "there is a file that is no socket; move it away or listen elsewhere";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match UnixStream::connect(path).await {
        Ok(_) => {
            let text = "another process serves there; stop it or listen elsewhere";
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
