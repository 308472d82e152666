//! Who may call: the table of bearer tokens.
//!
//! Boundary: reads the token file and answers whose a token is; what a role may do is decided
//! where calls come in. Invariant: tokens are kept as SHA-256 digests, compared in constant time
//! against all of the table, and never printed; a file that others can read is refused.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything, in its namespace.
    Admin,
    /// Starts and steers loops.
    User,
    /// Reads.
    Viewer,
    /// Registers tools.
    Sidecar,
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The tenant: everything that the caller sees and makes lies in it.
    pub namespace: String,
    /// The caller's name, kept in the log with what it did.
    pub principal: String,
    /// What it may do.
    pub role: Role,
}

/// The table.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    entries: Vec<([u8; 32], Identity)>,
}

/// Why a token file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file as a whole.
    #[error("server.auth.token_file {}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A line of it.
    #[error("server.auth.token_file {}:{line}: {problem}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and the way out.
        problem: String,
    },
}

const MAX_TOKENS: usize = 1024;
const MAX_FILE_BYTES: u64 = 1 << 20;
const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 512;

impl Role {
    /// The word that stands for it in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Viewer => "viewer",
            Self::Sidecar => "sidecar",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Admin, Self::User, Self::Viewer, Self::Sidecar]
            .into_iter()
            .find(|r| r.as_str() == text)
    }
}

impl Tokens {
    /// Reads a file of lines `TOKEN NAMESPACE PRINCIPAL ROLE`; `#` starts a comment.
    ///
    /// # Errors
    /// The file cannot be read, others can read it, or a line is not as above. The first problem.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let failed = |problem: String| TokensError::File {
            path: path.to_path_buf(),
            problem,
        };
        let meta = std::fs::metadata(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            let problem = format!(
                "its mode {mode:04o} lets everybody at it; chmod 0600 it (0640 for a group)"
            );
            return Err(failed(problem));
        }
        if meta.len() > MAX_FILE_BYTES {
            return Err(failed(format!("is longer than {MAX_FILE_BYTES} bytes")));
        }
        let text =
            std::fs::read_to_string(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
        Self::parse(path, &text)
    }

    /// Whose `token` is, if anybody's. The time taken does not depend on the token.
    #[must_use]
    pub fn find(&self, token: &str) -> Option<&Identity> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for (known, identity) in &self.entries {
            let difference = known
                .iter()
                .zip(&digest)
                .fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(identity);
            }
        }
        found
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none; never so for a table that was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn parse(path: &Path, text: &str) -> Result<Self, TokensError> {
        let mut entries: Vec<([u8; 32], Identity)> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let words: Vec<&str> = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            if words.is_empty() {
                continue;
            }
            let failed = |problem| TokensError::Line {
                path: path.to_path_buf(),
                line: at + 1,
                problem,
            };
            let (digest, identity) = entry(&words).map_err(failed)?;
            if entries.iter().any(|(known, _)| *known == digest) {
                return Err(failed(
                    "the same token stands above; give each caller its own".to_owned(),
                ));
            }
            entries.push((digest, identity));
        }
        let problem = match entries.len() {
            0 => "names no caller; add a line TOKEN NAMESPACE PRINCIPAL ROLE".to_owned(),
            n if n > MAX_TOKENS => format!("holds {n} tokens; at most {MAX_TOKENS} are taken"),
            _ => return Ok(Self { entries }),
        };
        Err(TokensError::File {
            path: path.to_path_buf(),
            problem,
        })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.entries.iter().map(|(_, identity)| identity))
            .finish()
    }
}

fn entry(words: &[&str]) -> Result<([u8; 32], Identity), String> {
    let [token, namespace, principal, role] = words else {
        return Err(format!(
            "has {} words; it takes four: TOKEN NAMESPACE PRINCIPAL ROLE",
            words.len()
        ));
    };
    if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len())
        || !token.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(format!(
            "the token must be {MIN_TOKEN} to {MAX_TOKEN} visible ASCII characters; \
             `openssl rand -hex 32` makes a good one"
        ));
    }
    if !is_id(namespace) {
        return Err(format!(
            "the namespace {namespace:?} must match [a-z0-9][a-z0-9_-]{{0,62}}"
        ));
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._@:/-".contains(&b);
    if principal.len() > 128 || !principal.bytes().all(fine) {
        return Err("the principal must be up to 128 of [A-Za-z0-9._@:/-]".to_owned());
    }
    let Some(role) = Role::parse(role) else {
        return Err(format!(
            "the role {role:?} must be one of admin, user, viewer, sidecar"
        ));
    };
    let identity = Identity {
        namespace: (*namespace).to_owned(),
        principal: (*principal).to_owned(),
        role,
    };
    Ok((Sha256::digest(token.as_bytes()).into(), identity))
}

fn is_id(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    first && text.len() <= 63 && text.bytes().all(fine)
}
