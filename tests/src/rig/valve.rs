//! A TCP proxy that holds what goes one way, until it is told what becomes of it.
//!
//! Boundary: bytes; it looks for a text in them and knows no protocol. Invariant: what was held is
//! passed on whole and in order, or not at all.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// How long a connection stays open whose other end is gone, so that what was passed on late is heard.
const LINGER: Duration = Duration::from_secs(5);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected.
    Up,
    /// To who connected.
    Down,
}

/// What the proxy does.
#[derive(Clone, Debug, Default)]
struct State {
    holds: Option<Hold>,
    /// Times that all connections were broken.
    breaks: u64,
}

/// What is held from now on.
#[derive(Clone, Debug)]
struct Hold {
    way: Way,
    /// It says when this has come.
    text: String,
    has_come: bool,
}

/// A proxy; it serves until the runtime ends.
#[derive(Clone, Debug)]
pub struct Valve {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    state: watch::Sender<State>,
}

impl Valve {
    /// Starts a proxy before `target`.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let valve = Self {
            url: format!("http://{}", listener.local_addr()?),
            state: watch::Sender::default(),
        };
        let state = valve.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    // A broken connection is what tests are about; there is nobody to tell.
                    let _ = serve(client, target, &state).await;
                });
            }
        });
        Ok(valve)
    }

    /// Holds what goes this way from now on.
    pub fn hold(&self, way: Way, text: &str) {
        let (text, has_come) = (text.to_owned(), false);
        let hold = Hold {
            way,
            text,
            has_come,
        };
        self.state.send_modify(|state| state.holds = Some(hold));
    }

    /// Waits until the text has come, and is held.
    ///
    /// # Errors
    /// Where nothing is held at all.
    pub async fn until_held(&self) -> Result<()> {
        let mut state = self.state.subscribe();
        let come = |state: &State| state.holds.as_ref().is_none_or(|hold| hold.has_come);
        let held = state.wait_for(come).await?.holds.is_some();
        held.then_some(()).context("nothing is held")
    }

    /// Passes on what was held, and all that comes.
    pub fn open(&self) {
        self.state.send_modify(|state| state.holds = None);
    }

    /// Throws away what is held, and breaks all connections; the next one is passed on.
    pub fn break_all(&self) {
        self.state.send_modify(|state| {
            state.holds = None;
            state.breaks += 1;
        });
    }
}

async fn serve(client: TcpStream, target: SocketAddr, state: &watch::Sender<State>) -> Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let born = state.borrow().breaks;
    let up = pass(from_client, to_server, (Way::Up, born), state);
    let down = pass(from_server, to_client, (Way::Down, born), state);
    let (up, down) = tokio::join!(up, down);
    up.and(down)
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (way, born): (Way, u64),
    state: &watch::Sender<State>,
) -> Result<()> {
    let mut watched = state.subscribe();
    let mut held = Vec::new();
    let mut is_over = false;
    loop {
        let now = watched.borrow_and_update().clone();
        let holds = now.holds.as_ref().is_some_and(|hold| hold.way == way);
        if now.breaks > born {
            return Ok(());
        }
        if holds {
            // What was read when nothing was held yet, too.
            state.send_if_modified(|state| state.look(&held));
        } else {
            to.write_all(&std::mem::take(&mut held)).await?;
            if is_over {
                tokio::time::sleep(LINGER).await;
                return Ok(());
            }
        }
        tokio::select! {
            read = from.read_buf(&mut held), if !is_over => {
                // A connection that was reset is over, too.
                is_over = read.unwrap_or(0) == 0;
            }
            changed = watched.changed() => changed?,
        }
    }
}

impl State {
    /// Whether the text has come only now.
    fn look(&mut self, held: &[u8]) -> bool {
        let Some(Hold { text, has_come, .. }) = &mut self.holds else {
            return false;
        };
        let mut windows = held.windows(text.len());
        let comes = !*has_come && windows.any(|window| window == text.as_bytes());
        *has_come |= comes;
        comes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_comes_late_or_never() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let valve = Valve::start(listener.local_addr()?).await?;
        let address: SocketAddr = valve.url.trim_start_matches("http://").parse()?;

        valve.hold(Way::Up, "held");
        let mut client = TcpStream::connect(address).await?;
        let (mut server, _) = listener.accept().await?;
        client.write_all(b"is held").await?;
        valve.until_held().await?;
        drop(client);
        valve.open();
        let mut heard = [0; 7];
        server.read_exact(&mut heard).await?;
        assert_eq!(&heard, b"is held");

        valve.hold(Way::Up, "lost");
        let mut client = TcpStream::connect(address).await?;
        let (mut server, _) = listener.accept().await?;
        client.write_all(b"is lost").await?;
        valve.until_held().await?;
        valve.break_all();
        let mut heard = Vec::new();
        assert_eq!(server.read_to_end(&mut heard).await?, 0, "{heard:?}");
        Ok(())
    }
}
