//! Room for copies, exports and imports: each holds a payload in memory, and a slow client holds it long.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::service::status;

/// Copies, exports and imports that one server makes at once.
const MOST: usize = 8;

/// Room for so many transfers as may go on at once.
pub struct Transfers(Arc<Semaphore>);

impl Default for Transfers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

impl Transfers {
    /// Takes a place, given back when it is dropped.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED (TOO_MANY_TRANSFERS).
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.0).try_acquire_owned();
        permit.map_err(|_| status::sessions::too_many_transfers(MOST))
    }
}
