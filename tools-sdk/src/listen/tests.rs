//! Sockets and their files.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o777
}

#[tokio::test]
async fn a_unix_socket_is_private_and_goes_with_its_listener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("files.sock");
    let bound = Listen::Unix(path.clone()).bind(false).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(
        bound.endpoint().unwrap(),
        format!("unix:{}", path.display())
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "the draft is gone"
    );
    let taken = Listen::Unix(path.clone()).bind(false).await.err().unwrap();
    assert!(taken.to_string().contains("another process"), "{taken}");
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let dead = dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    assert!(dead.exists());
    let bound = Listen::Unix(dead.clone()).bind(false).await.unwrap();
    assert!(UnixStream::connect(&dead).await.is_ok());
    drop(bound);

    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "precious").unwrap();
    let error = Listen::Unix(file.clone()).bind(false).await.err().unwrap();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_that_another_process_put_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let first = Listen::Unix(path.clone()).bind(false).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = Listen::Unix(path.clone()).bind(false).await.unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn beyond_loopback_is_refused_unless_allowed() {
    let any = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let error = any.bind(false).await.err().unwrap();
    assert!(error.to_string().contains("other machines"), "{error}");
    let bound = any.bind(true).await.unwrap();
    assert!(bound.endpoint().unwrap().starts_with("http://127.0.0.1:"));
}

#[test]
fn addresses_are_read_or_explained() {
    assert_eq!("127.0.0.1:0".parse(), Ok(Listen::default()));
    assert_eq!(
        "unix:/run/a.sock".parse(),
        Ok(Listen::Unix("/run/a.sock".into()))
    );
    for wrong in ["unix:run/a.sock", "localhost", "7071", ""] {
        assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
    }
}
