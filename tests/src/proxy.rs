//! A TCP proxy that cuts connections at chosen byte offsets of what the server says.
//!
//! It follows the frames of HTTP/2 just far enough to know where a cut falls: between the bytes of
//! any frame, or between the bytes of a text that is being streamed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Where a cut falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Inside a frame, wherever in the connection.
    MidFrame,
    /// Inside a text that the marker gives away.
    MidDelta,
}

/// A proxy; it serves until it is dropped together with its runtime.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    mid_frame: AtomicU32,
    mid_delta: AtomicU32,
    random: AtomicU64,
}

/// A frame's header: length, type, flags, stream.
const HEADER: usize = 9;
/// Type of a frame that carries a message.
const DATA: u8 = 0;

impl Proxy {
    /// Starts a proxy before `target` that makes `cuts` cuts, alternately of both kinds; after that it
    /// only passes on. `marker` is a text that every delta of the session contains.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn start(
        target: SocketAddr,
        cuts: u32,
        marker: &'static [u8],
        seed: u64,
    ) -> Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let counts = Arc::new(Counts {
            random: AtomicU64::new(seed),
            ..Counts::default()
        });
        let shared = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counts = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A cut is an error of either side's copy; there is nobody to tell.
                    let _ = serve(client, target, cuts, marker, &counts).await;
                });
            }
        });
        Ok(Self { url, counts })
    }

    /// Cuts made so far: in a frame, and in a delta's text.
    #[must_use]
    pub fn cuts(&self) -> (u32, u32) {
        let count = |of: &AtomicU32| of.load(Ordering::SeqCst);
        (count(&self.counts.mid_frame), count(&self.counts.mid_delta))
    }
}

impl Counts {
    /// The next of a sequence of numbers that the seed determines (SplitMix64).
    fn random(&self) -> u64 {
        let step = 0x9E37_79B9_7F4A_7C15;
        let mut z = self
            .random
            .fetch_add(step, Ordering::SeqCst)
            .wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn next_cut(&self, cuts: u32) -> Option<Cut> {
        let frames = self.mid_frame.load(Ordering::SeqCst);
        let deltas = self.mid_delta.load(Ordering::SeqCst);
        match () {
            () if frames + deltas >= cuts => None,
            () if frames <= deltas => Some(Cut::MidFrame),
            () => Some(Cut::MidDelta),
        }
    }

    fn made(&self, cut: Cut) {
        match cut {
            Cut::MidFrame => &self.mid_frame,
            Cut::MidDelta => &self.mid_delta,
        }
        .fetch_add(1, Ordering::SeqCst);
    }
}

async fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    cuts: u32,
    marker: &[u8],
    counts: &Counts,
) -> Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        anyhow::Ok(())
    };
    let down = async {
        let cut = counts.next_cut(cuts);
        // A few frames in, so that each connection gets somewhere.
        let mut left = 3 + counts.random() % 12;
        loop {
            let mut frame = vec![0; HEADER];
            from_server.read_exact(&mut frame).await?;
            let length =
                usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
            frame.resize(HEADER + length, 0);
            from_server.read_exact(&mut frame[HEADER..]).await?;
            left = left.saturating_sub(1);
            let at = cut
                .filter(|_| left == 0)
                .and_then(|cut| place(cut, &frame, marker, counts));
            if let (Some(at), Some(cut)) = (at, cut) {
                to_client.write_all(&frame[..at]).await?;
                to_client.flush().await?;
                counts.made(cut);
                anyhow::bail!("cut");
            }
            to_client.write_all(&frame).await?;
        }
    };
    tokio::select! {
        done = up => done,
        done = down => done,
    }
}

/// Where in `frame` to cut, if it is one to be cut in.
fn place(cut: Cut, frame: &[u8], marker: &[u8], counts: &Counts) -> Option<usize> {
    let is_data = frame[3] == DATA && frame.len() > HEADER + 1;
    match cut {
        Cut::MidFrame if is_data => {
            let inside = frame.len() as u64 - 1;
            usize::try_from(1 + counts.random() % inside).ok()
        }
        Cut::MidDelta if is_data => {
            let found = frame
                .windows(marker.len())
                .position(|window| window == marker)?;
            let inside = usize::try_from(1 + counts.random() % (marker.len() as u64 - 1)).ok()?;
            Some(found + inside)
        }
        Cut::MidFrame | Cut::MidDelta => None,
    }
}
