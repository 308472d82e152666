//! Blobs: content-addressed, per stream, checked.

use bytes::Bytes;

use super::{Subject, fill, key};
use crate::{BlobError, BlobRef, MAX_BLOB_BYTES};

pub(super) async fn run(subject: &Subject) {
    let log = &*subject.log;
    let (owner, other) = (key("blobs", "owner"), key("blobs", "other"));
    fill(log, &owner, 1).await;
    let payload = Bytes::from(vec![7u8; 2 * 1024 * 1024]);
    let blob = log.put_blob(&owner, payload.clone()).await.expect("kept");
    assert_eq!(blob, BlobRef::of(&payload).expect("within the limit"));
    assert_eq!(
        log.put_blob(&owner, payload.clone()).await,
        Ok(blob.clone()),
        "twice is once"
    );
    assert_eq!(log.get_blob(&owner, &blob).await, Ok(payload));
    let missing = log.get_blob(&other, &blob).await;
    assert!(
        matches!(missing, Err(BlobError::Missing { .. })),
        "another stream's: {missing:?}"
    );
    let hostile = BlobRef {
        sha256: "../../../etc/passwd".into(),
        bytes: 1,
    };
    let missing = log.get_blob(&owner, &hostile).await;
    assert!(
        matches!(missing, Err(BlobError::Missing { .. })),
        "a path as a hash: {missing:?}"
    );
    let wrong_size = BlobRef { bytes: 3, ..blob };
    let damaged = log.get_blob(&owner, &wrong_size).await;
    assert!(
        matches!(damaged, Err(BlobError::Damaged { .. })),
        "{damaged:?}"
    );
    let empty = log.put_blob(&owner, Bytes::new()).await.expect("kept");
    assert_eq!(log.get_blob(&owner, &empty).await, Ok(Bytes::new()));
    let huge = Bytes::from(vec![
        0u8;
        usize::try_from(MAX_BLOB_BYTES).expect("fits") + 1
    ]);
    let refused = log.put_blob(&owner, huge).await;
    assert!(
        matches!(refused, Err(BlobError::TooLarge { .. })),
        "{refused:?}"
    );
}
