//! The token file: what it takes, whom it names, what it refuses.

use std::os::unix::fs::PermissionsExt;

use crate::config::tokens::{Identity, Role, Tokens};

const ADMIN: &str = "0123456789abcdef";
const VIEWER: &str = "fedcba9876543210";

fn read(text: &str, mode: u32) -> Result<Tokens, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    Tokens::read(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "tokens"))
}

#[test]
fn a_token_is_found_whole_or_not_at_all() {
    let text = format!("# who\n\n{ADMIN} acme ada admin  # the boss\n{VIEWER}\tacme bob viewer\n");
    let tokens = read(&text, 0o640).unwrap();
    let ada = Identity {
        namespace: "acme".into(),
        principal: "ada".into(),
        role: Role::Admin,
    };
    assert_eq!((tokens.len(), tokens.find(ADMIN)), (2, Some(&ada)));
    assert_eq!(tokens.find(VIEWER).unwrap().role, Role::Viewer);
    for wrong in [
        "",
        &ADMIN[1..],
        "0123456789abcdeF",
        "0123456789abcdef ",
        "acme",
    ] {
        assert_eq!(tokens.find(wrong), None, "{wrong}");
    }
    assert!(!format!("{tokens:?}").contains(ADMIN));
}

#[test]
fn a_file_that_everybody_can_read_is_refused() {
    let text = format!("{ADMIN} acme ada admin\n");
    for mode in [0o644, 0o604, 0o602] {
        let error = read(&text, mode).unwrap_err();
        assert_eq!(
            error,
            format!(
                "server.auth.token_file tokens: its mode {mode:04o} lets everybody at it; chmod \
                 0600 it \
                 (0640 for a group)"
            )
        );
    }
    assert!(read(&text, 0o600).is_ok());
}

#[test]
fn a_bad_line_is_named_and_its_token_is_not() {
    let table = [
        (
            "T acme ada",
            "has 3 words; it takes four: TOKEN NAMESPACE PRINCIPAL ROLE",
        ),
        (
            "T acme ada root",
            "the role \"root\" must be one of admin, user, viewer, sidecar",
        ),
        (
            "T Acme ada user",
            "the namespace \"Acme\" must match [a-z0-9][a-z0-9_-]{0,62}",
        ),
        (
            "T ../x ada user",
            "the namespace \"../x\" must match [a-z0-9][a-z0-9_-]{0,62}",
        ),
        (
            "T acme a$a user",
            "the principal must be up to 128 of [A-Za-z0-9._@:/-]",
        ),
        (
            "short acme ada user",
            "the token must be 16 to 512 visible ASCII characters; `openssl rand -hex 32` makes \
             a good one",
        ),
    ];
    for (line, problem) in table {
        let text = format!("# first\n{}\n", line.replace("T ", &format!("{VIEWER} ")));
        let error = read(&text, 0o600).unwrap_err();
        assert_eq!(error, format!("server.auth.token_file tokens:2: {problem}"));
        assert!(!error.contains(VIEWER));
    }
    assert_eq!(
        read(&format!("{ADMIN} a b user\n{ADMIN} c d user\n"), 0o600).unwrap_err(),
        "server.auth.token_file tokens:2: the same token stands above; give each caller its own"
    );
    assert!(
        read("# nobody\n", 0o600)
            .unwrap_err()
            .contains("names no caller")
    );
}
