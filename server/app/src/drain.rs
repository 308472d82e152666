//! The one signal that the server is going down: streams say goodbye, drivers let go.

use tokio::sync::watch;

/// Fires the signal, once.
#[derive(Debug)]
pub struct Drain(watch::Sender<bool>);

/// Hears the signal.
#[derive(Clone, Debug)]
pub struct DrainSignal(watch::Receiver<bool>);

impl Drain {
    /// A signal that has not fired.
    #[must_use]
    pub fn new() -> (Self, DrainSignal) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), DrainSignal(receiver))
    }

    /// Fires it.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl DrainSignal {
    /// Whether it has fired.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it fires, or when nobody is left who could fire it.
    pub async fn wait(&mut self) {
        // An error says that the sender is gone: the server is going down as well.
        let _ = self.0.wait_for(|&draining| draining).await;
    }
}
